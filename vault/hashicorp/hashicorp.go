// Package hashicorp is the vault in a HashiCorp Vault: secrets rest in a KV
// secrets engine of version 2, whose check-and-set is the commit point that
// package vault asks for.
//
// # Format
//
// The secret named n is the KV entry <mount>/<prefix>/n with one field,
//
//	{"value": "<base64>"}
//
// or, with [Config.TransitKey], the ciphertext that Vault's Transit engine made
// of it ("vault:v1:…"), bound to the name and the version. Then whoever can
// read the KV engine alone has nothing, and an entry that is moved to another
// name doesn't open.
//
// # Outages
//
// Every call ends within [Config.Timeout], tries again within it where that
// can help, and fails with an error wrapping vault.ErrUnavailable where it
// can't. After a few failures in a row calls fail at once, except one now and
// then that finds out whether Vault is back; and only so many calls are under
// way at a time. So a Vault that hangs doesn't hold up what needs no vault.
//
// # Logins
//
// One process has one token at a time, renewed at two thirds of its lease, by
// itself; at the end of its life, or if Vault refuses it, there is a new login.
//
// Sources: Vault's API documentation, pages "KV Secrets Engine - Version 2
// (API)", "Transit Secrets Engine (API)", "AppRole Auth Method (API)",
// "Kubernetes Auth Method (API)", "Token Auth Method (API)" and "HTTP API" for
// status codes.
//
// The package may import vault, Vault's API client, zap and the standard
// library only.
package hashicorp

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/vault"
)

// What a Config says if it says nothing.
const (
	DefaultMount        = "secret"
	DefaultPrefix       = "keycaddy"
	DefaultTransitMount = "transit"
	DefaultTimeout      = 10 * time.Second
)

// maxCalls is how many requests to Vault may be under way at a time.
const maxCalls = 64

// Config says where the secrets rest and how to get at them.
type Config struct {
	// Address is Vault's origin, such as https://vault.internal:8200. It has
	// to be https, unless its host is the loopback address or AllowHTTP is set.
	Address   string
	AllowHTTP bool

	Mount     string // of the KV engine; default: DefaultMount
	Prefix    string // of all names in it; default: DefaultPrefix
	Namespace string // of Vault Enterprise; default: none

	// Login is how to get a token: [Token], [AppRole] or [Kubernetes].
	Login Login

	// TransitKey is the key of the Transit engine that values are sealed with;
	// empty: they are not. TransitMount defaults to DefaultTransitMount.
	TransitKey, TransitMount string

	// CAFile has the certificates (PEM) that Vault's may be issued by; empty:
	// the system's. ServerName is the name to expect in it; empty: the host of
	// the address. It is always verified.
	CAFile, ServerName string

	// Timeout bounds each call, with all its attempts and a login if it takes
	// one. Default: DefaultTimeout
	Timeout time.Duration

	// ReadOnly refuses Write and Delete with ErrReadOnly, and makes Probe ask
	// for the permission to read only.
	ReadOnly bool

	Logger *zap.Logger // default: none
}

// Vault is a vault.Vault in HashiCorp Vault.
type Vault struct {
	config  Config
	keeper  *keeper
	breaker breaker
	slots   chan struct{}
}

var _ vault.Vault = (*Vault)(nil)

// New returns the vault that c describes, or an error that says what is wrong
// with c. It reads the CA file and connects to nothing; Probe does. Once used,
// a Vault renews its token until Close.
func New(c Config) (*Vault, error) {
	c.Mount = cmp.Or(strings.Trim(c.Mount, "/"), DefaultMount)
	c.Prefix = cmp.Or(strings.Trim(c.Prefix, "/"), DefaultPrefix)
	c.TransitMount = cmp.Or(strings.Trim(c.TransitMount, "/"), DefaultTransitMount)
	c.Namespace = strings.Trim(c.Namespace, "/")
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	for _, path := range []struct{ what, value string }{
		{"mount", c.Mount}, {"prefix", c.Prefix}, {"transit mount", c.TransitMount},
		{"transit key", cmp.Or(c.TransitKey, "none")}, {"namespace", cmp.Or(c.Namespace, "none")},
	} {
		if vault.CheckName(path.value) != nil {
			return nil, fmt.Errorf("%s %q: letters, digits and . _ ~ - are allowed, with / between them", path.what, path.value)
		}
	}
	if c.Timeout < 0 {
		return nil, fmt.Errorf("timeout %s is negative", c.Timeout)
	}
	if c.Login == nil {
		return nil, errors.New("no login: give a token, an AppRole or a Kubernetes role")
	}
	if err := c.Login.check(); err != nil {
		return nil, fmt.Errorf("%s login: %w", c.Login.method(), err)
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	return &Vault{
		config: c,
		keeper: &keeper{base: client, login: c.Login, timeout: c.Timeout, logger: c.Logger},
		slots:  make(chan struct{}, maxCalls),
	}, nil
}

// Close ends the renewing of the token. The token itself lives until its lease
// ends, since a call may still be under way.
func (v *Vault) Close() error {
	v.keeper.close()
	return nil
}

// client is Vault's API client without a token. What Vault's own command takes
// from the environment (VAULT_TOKEN, VAULT_SKIP_VERIFY and the like) has no
// effect on it.
func (c *Config) client() (*api.Client, error) {
	address, err := c.address()
	if err != nil {
		return nil, err
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading CA file: %w", err)
		}
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s has no certificate in PEM", c.CAFile)
		}
	}
	client, err := api.NewClient(&api.Config{
		Address: address,
		HttpClient: &http.Client{
			Transport: &http.Transport{
				Proxy:               http.ProxyFromEnvironment,
				DialContext:         (&net.Dialer{Timeout: c.Timeout, KeepAlive: 15 * time.Second}).DialContext,
				TLSClientConfig:     trust,
				TLSHandshakeTimeout: c.Timeout,
				ForceAttemptHTTP2:   true,
				HTTP2:               &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
				MaxIdleConnsPerHost: maxCalls,
				IdleConnTimeout:     90 * time.Second,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the client follows one itself
		},
		MaxRetries:     0,    // call does that
		ReadYourWrites: true, // of performance standbys, which answer 412 until they can
	})
	if err != nil {
		return nil, fmt.Errorf("making Vault's client (the environment must make sense too): %w", err)
	}
	client.ClearToken()
	client.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	if c.Namespace != "" {
		client.SetNamespace(c.Namespace)
	}
	return client, nil
}

func (c *Config) address() (string, error) {
	u, err := url.Parse(c.Address)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return "", errors.New("address is not an origin such as https://vault.internal:8200")
	}
	switch u.Scheme {
	case "https":
	case "http":
		ip, err := netip.ParseAddr(u.Hostname())
		if u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) && !c.AllowHTTP {
			return "", fmt.Errorf("address %s is not https: whoever is on the way could read the secrets (allow http expressly if it is tunnelled)", c.Address)
		}
	default:
		return "", fmt.Errorf("address %s is neither https nor http", c.Address)
	}
	return u.Scheme + "://" + u.Host, nil
}

// ReadOnly tells whether the vault was set up to be read only.
func (v *Vault) ReadOnly() bool { return v.config.ReadOnly }
