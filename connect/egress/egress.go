// Package egress guards every connection that keycaddy opens to the outside:
// calls to APIs, token endpoints, metadata. Providers, connection fields and
// DNS answers decide where those go, so none of them is trusted: an address is
// checked at the last moment, after the name was resolved and before a packet
// leaves, and special addresses (private networks, loopback, link-local with
// the clouds' metadata services, and every form of IPv4 inside IPv6) are
// refused unless the operator has allowed them.
//
// Plain http is spoken to allowed addresses only.
//
// It may import the standard library only.
package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// ErrRefused says that an address may not be connected to.
var ErrRefused = errors.New("egress: address refused")

// Policy says which addresses may be connected to beyond the public internet.
type Policy struct {
	// Allow lists the special addresses that are open all the same. Plain http
	// works towards these only.
	Allow []netip.Prefix
}

// special lists the ranges that are not the public internet, with what they
// are. Sources: the IANA IPv4 and IPv6 Special-Purpose Address Registries, and
// RFC 6052 and RFC 3056 for the ranges that carry an IPv4 address inside.
var special = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private network"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared address space"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("168.63.129.16/32"), "cloud metadata service"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local, cloud metadata services"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private network"},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol assignments"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private network"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved, broadcast"},
	{netip.MustParsePrefix("::/96"), "unspecified, loopback, IPv4 inside IPv6"},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), "IPv4 inside IPv6"},
	{netip.MustParsePrefix("64:ff9b::/96"), "NAT64"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64"},
	{netip.MustParsePrefix("100::/64"), "discard"},
	{netip.MustParsePrefix("2001::/23"), "Teredo, protocol assignments"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("2002::/16"), "6to4"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing"},
	{netip.MustParsePrefix("fc00::/7"), "private network"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// Check tells whether the address may be connected to, plainly (http) or not.
// The error wraps ErrRefused and says what the address is.
func (p Policy) Check(addr netip.Addr, plain bool) error {
	// ::ffff:10.0.0.1 is 10.0.0.1; a zone would keep prefixes from matching.
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return fmt.Errorf("%w: not an address", ErrRefused)
	}
	for _, a := range p.Allow {
		if a.Contains(addr) {
			return nil
		}
	}
	for _, s := range special {
		if s.prefix.Contains(addr) {
			return fmt.Errorf("%w: %s (%s); the operator can open it with egress allow", ErrRefused, addr, s.what)
		}
	}
	if plain {
		return fmt.Errorf("%w: plain http to %s; only https is spoken to addresses that egress allow doesn't list", ErrRefused, addr)
	}
	return nil
}

// Control is for net.Dialer.ControlContext: it is asked for every address that
// is about to be connected to, after name resolution.
func (p Policy) Control(ctx context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: not an address and port", ErrRefused)
	}
	return p.Check(ap.Addr(), isPlain(ctx))
}

// Dial is how a DialContext function is made to keep the policy: the name is
// resolved here, every address is checked, and dial gets the checked address
// itself, never the name.
func (p Policy) Dial(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if err := p.Check(a, isPlain(ctx)); err != nil {
				return nil, err
			}
		}
		var conn net.Conn
		for _, a := range addrs {
			conn, err = dial(ctx, network, net.JoinHostPort(a.Unmap().String(), port))
			if err == nil || ctx.Err() != nil {
				return conn, err
			}
		}
		return conn, err
	}
}

// PlainKey is the key of a context's value that, if there is one, tells the
// dialer that the request is for plain http. Telling sees to it; a context of
// one's own may know it without being wrapped.
type PlainKey struct{}

func isPlain(ctx context.Context) bool { return ctx.Value(PlainKey{}) != nil }

// Telling wraps a transport that dials by a Policy: it tells the dialer, which
// sees only addresses, whether a request is for plain http.
func Telling(next http.RoundTripper) http.RoundTripper { return telling{next} }

type telling struct{ next http.RoundTripper }

// Certified returns the same with a client certificate.
func (t telling) Certified(cert tls.Certificate) (http.RoundTripper, error) {
	next, err := WithCertificate(t.next, cert)
	return telling{next}, err
}

// A Certifier is a transport that can be had with a client certificate.
type Certifier interface {
	// Certified returns a transport like this one that shows the certificate.
	// Its connections are its own.
	Certified(cert tls.Certificate) (http.RoundTripper, error)
}

// WithCertificate returns a transport like rt, with the same policy, that shows
// a client certificate (RFC 8705). No connection of rt's is used by it, nor any
// of its own by rt. Any transport but a [Certifier] or an *http.Transport is an
// error: nothing goes out without the certificate.
func WithCertificate(rt http.RoundTripper, cert tls.Certificate) (http.RoundTripper, error) {
	switch t := rt.(type) {
	case Certifier:
		return t.Certified(cert)
	case *http.Transport:
		c := t.Clone()
		if c.TLSClientConfig == nil {
			c.TLSClientConfig = &tls.Config{}
		}
		c.TLSClientConfig.Certificates = []tls.Certificate{cert}
		return c, nil
	}
	return nil, fmt.Errorf("transport %T can't show a client certificate", rt)
}

func (t telling) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !isPlain(req.Context()) {
		req = req.WithContext(context.WithValue(req.Context(), PlainKey{}, true))
	}
	return t.next.RoundTrip(req)
}

// NewClient returns the client for keycaddy's own small requests: token
// endpoints, verification, revocation. It follows no redirects, since a
// redirect must not carry credentials elsewhere; it uses no proxy from the
// environment; and a request takes no longer than the timeout, of the time that
// the process is awake.
func NewClient(p Policy, timeout time.Duration) *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, ControlContext: p.Control}
	return &http.Client{
		Transport: &awake{timeout: timeout, tick: newTicker, next: Telling(&http.Transport{
			DialContext:            dialer.DialContext,
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           256,
			MaxIdleConnsPerHost:    8,
			IdleConnTimeout:        90 * time.Second,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		})},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
