package simulate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/catalog/simulator"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/proxy"
	"github.com/keycaddy/keycaddy/vault"
)

// publicURL is where the pages would be.
const publicURL = "https://connect.keycaddy.example"

// variant is one way in which a form is filled in and a vendor behaves.
type variant struct {
	name      string
	fill      simulator.Fill
	otherwise bool
}

func variants(p *catalog.Provider) []variant {
	out := []variant{{name: "filled in", fill: simulator.Everything}}
	for _, list := range [][]catalog.Field{p.AppFields, p.ConnFields, p.CredFields} {
		if slices.ContainsFunc(list, func(f catalog.Field) bool { return !f.Required && (f.Asked() || f.Source == "operator") }) {
			out = append(out, variant{name: "required only", fill: simulator.Required})
			break
		}
	}
	if byTheirOwn(p) {
		out = append(out, variant{name: "otherwise", fill: simulator.Everything, otherwise: true})
	}
	return out
}

// byTheirOwn tells whether tokens come or are renewed in a way of the vendor's
// own. The standard's way is the same for all other entries.
func byTheirOwn(p *catalog.Provider) bool {
	r := p.Refresh
	return p.Token != nil && (p.TokenResponse != nil || len(p.TokenSteps) > 0) && (p.Mode == catalog.ModeOAuth2Code || p.Mode == catalog.ModeMCPOAuth2) ||
		r != nil && r.Mode == catalog.RefreshByToken && (!r.URL.IsZero() || len(r.Params) > 0 || len(r.Headers) > 0 || r.Body != "")
}

// run is one entry on its way, with one account.
type run struct {
	*world
	ctx       context.Context
	provider  *catalog.Provider // the vendor's
	account   *simulator.Account
	vendor    *simulator.Vendor
	connector *connect.Connector
	setup     *connect.Setup
	proxy     *proxy.Proxy
	keys      *connect.Keyring
	key       string
	id        connect.ID
	journal   journal
	revoked   int // grants, before the connection is removed
}

// variant runs a client that goes by one entry against a vendor that goes by
// another: the same one, but where a test wants to see them fall out.
func (w *world) variant(ctx context.Context, p, played *catalog.Provider, v variant) error {
	account, err := simulator.NewAccount(played, publicURL+"/oauth/callback", v.fill)
	if err != nil {
		return err
	}
	r := &run{world: w, ctx: ctx, provider: played, account: account, vendor: simulator.New(played, account), key: uuid.NewString()}
	if err := r.prepare(p, v); err != nil {
		return err
	}
	return r.all()
}

// prepare sets up the server's own parts, which go by an entry, around the
// played vendor.
func (r *run) prepare(p *catalog.Provider, v variant) error {
	r.id = connect.ID{Integration: r.provider.ID, Connection: strings.ReplaceAll(v.name, " ", "-") + "-" + uuid.NewString()[:8]}
	r.vendor.Forbid(r.key)
	if v.otherwise {
		r.vendor.Otherwise()
	}
	public, err := url.Parse(publicURL)
	if err != nil {
		return err
	}
	client := &http.Client{
		Transport: wire{Handler: r.vendor}, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	fields := maps.Clone(r.account.App)
	maps.DeleteFunc(fields, func(name, _ string) bool {
		_, declared := p.Field("app", name)
		return !declared
	})
	in := &connect.Integration{
		Key: p.ID, DisplayName: p.DisplayName, Provider: p,
		App: scheme.App{ClientID: r.account.App["client_id"], ClientSecret: scheme.Secret(r.account.App["client_secret"]), Scopes: r.account.Scopes, Fields: fields},
	}
	if r.setup, err = connect.NewSetup(nil, public, client, []*connect.Integration{in}); err != nil {
		return err
	}
	logger := r.journal.logger()
	refresher := &connect.Refresher{Store: r.store, Vault: r.vault, Logger: logger}
	refresher.Configure(r.setup)
	r.connector = &connect.Connector{Setup: r.setup, Refresher: refresher, Store: r.store, Vault: r.vault, Logger: logger}
	r.proxy = &proxy.Proxy{Base: wire{Handler: r.vendor}, ReplayBuffer: 1 << 20, Logger: logger}
	r.proxy.Provision()
	r.keys = connect.NewKeyring([]connect.APIKey{{Name: "simulate", Key: connect.DigestOf(r.key), Scopes: policy.AllScopes}}, nil)
	return nil
}

// all runs the steps. After one that has failed the next ones would only say
// the same again, so it is the last; the connection is removed all the same.
func (r *run) all() error {
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"wrong credential", r.refused},
		{"connect", r.connect},
		{"call", r.calls},
		{"another account", r.anotherAccount},
		{"refused token", r.replays},
		{"ended token", r.expires},
		{"withdrawn consent", r.withdrawn},
		{"disconnect", r.disconnect},
	} {
		err := step.run()
		if faults := r.vendor.Faults(); len(faults) > 0 {
			err = errors.Join(append([]error{err}, texts(faults)...)...)
		}
		if err != nil {
			var out []error
			for _, line := range failures(err) {
				out = append(out, errors.New(step.name+": "+line))
			}
			var unsupported *scheme.UnsupportedError
			if errors.As(err, &unsupported) {
				return err
			}
			return errors.Join(out...)
		}
	}
	for _, secret := range r.vendor.Secrets() {
		if r.journal.has(secret) {
			return errors.New("a secret of the account has been logged")
		}
	}
	return nil
}

func texts(list []string) []error {
	out := make([]error, len(list))
	for i, s := range list {
		out[i] = errors.New("the vendor says: " + s)
	}
	return out
}

// submit opens a session and sends the form, as the pages do.
func (r *run) submit(answers map[string]string, id string) (connect.Step, error) {
	token, _, err := r.connector.Open(r.ctx, connect.Session{Connection: id, Allowed: []string{r.provider.ID}})
	if err != nil {
		return connect.Step{}, err
	}
	return r.connector.Submit(r.ctx, token, r.provider.ID, answers)
}

// refused tries to connect with a secret that isn't the account's. Where the
// vendor can be asked, nothing may come of it.
func (r *run) refused() error {
	in, err := r.setup.Integration(r.provider.ID)
	if err != nil {
		return err
	}
	if _, redirects := in.Scheme.(scheme.Redirector); redirects {
		return nil
	}
	asked := r.provider.Verify != nil && r.provider.Verify.BodySpecial == "" || r.provider.Token != nil
	answers, changed, err := r.account.Mistyped(r.provider)
	if err != nil || !asked || !changed {
		return err
	}
	id := "mistyped-" + r.id.Connection
	_, err = r.submit(answers, id)
	r.vendor.Faults() // that is what they were for
	var verify *connect.VerifyError
	var token *scheme.TokenError
	var unsupported *scheme.UnsupportedError
	switch {
	case errors.As(err, &unsupported):
		return err
	case err == nil:
		return errors.New("it was taken")
	case !errors.As(err, &verify) && !errors.As(err, &token):
		return fmt.Errorf("it was not the vendor who refused it: %w", err)
	}
	if _, err := r.store.Connection(r.ctx, connect.ID{Integration: r.provider.ID, Connection: id}); !errors.Is(err, connect.ErrNotFound) {
		return fmt.Errorf("something was stored: %v", err)
	}
	return nil
}

// signIn fills in the form and goes through the vendor's page, all the way. It
// returns no connection if the vendor has refused to show its page, of which it
// has recorded the reason.
func (r *run) signIn() (*connect.Connection, error) {
	step, err := r.submit(r.account.Answers(r.provider), r.id.Connection)
	if err != nil || step.Redirect == "" {
		return &step.Connection, err
	}
	callback, err := r.vendor.Visit(step.Redirect)
	if err != nil {
		return nil, nil
	}
	if got, want := callback.Scheme+"://"+callback.Host+callback.Path, publicURL+"/oauth/callback"; got != want {
		return nil, fmt.Errorf("the browser is sent back to %s, not %s", got, want)
	}
	arrival, err := r.connector.Arrive(r.ctx, publicURL+"/oauth/callback", callback.Query(), func(flow string) string {
		if flow == step.Flow {
			return step.Binding
		}
		return ""
	})
	if err != nil {
		return nil, err
	}
	arrival, err = r.connector.Confirm(r.ctx, arrival.Waiting.Key, connect.Evidence{By: connect.ByPerson})
	return &arrival.Connection, err
}

func (r *run) connect() error {
	conn, err := r.signIn()
	if err != nil || conn == nil {
		return err
	}
	if ver := r.provider.Verify; ver != nil && ver.BodySpecial == "" && r.vendor.Counts().Authorized == 0 && r.vendor.Counts().Verified == 0 {
		return errors.New("the credential was not tried with the entry's verify request")
	}
	if conn.ID != r.id || conn.Status != connect.StatusActive {
		return fmt.Errorf("the connection is %s, %s", conn.ID, conn.Status)
	}
	return errors.Join(r.fieldsFilled(*conn), r.expiryKnown(*conn), r.accountKnown(*conn))
}

// fieldsFilled checks that what the vendor has told is in the connection.
func (r *run) fieldsFilled(conn connect.Connection) error {
	var errs []error
	told := r.vendor.Told()
	for _, name := range slices.Sorted(maps.Keys(told)) {
		if got, ok := conn.Config[name]; !ok {
			errs = append(errs, fmt.Errorf("the vendor has told %s, and the connection hasn't got it", name))
		} else if got != told[name] {
			errs = append(errs, fmt.Errorf("the connection's %s is %q; the vendor has told %q", name, got, told[name]))
		}
	}
	return errors.Join(errs...)
}

// expiryKnown checks that the connection ends when the vendor has said so.
func (r *run) expiryKnown(conn connect.Connection) error {
	want, _ := r.vendor.Ends()
	switch d := conn.Expires.Sub(want); {
	case want.IsZero() && r.selfSigned(): // nobody has seen a token yet
		return nil
	case want.IsZero() && !conn.Expires.IsZero() && r.provider.Mode != catalog.ModeClientCredentials:
		return fmt.Errorf("the connection ends at %s, though the vendor hasn't said so", conn.Expires.UTC().Format(time.RFC3339))
	case want.IsZero(), d.Abs() < 90*time.Second:
		return nil
	case conn.Expires.IsZero():
		return errors.New("the connection never ends, though the vendor has told when")
	default:
		return fmt.Errorf("the connection ends %v off the time that the vendor has told", d.Round(time.Second))
	}
}

// answer is what a call has brought.
type answer struct {
	status   int
	body     string
	replayed bool
}

// call goes through the proxy, all the way.
func (r *run) call(method, path, query, body, contentType string) (answer, error) {
	target := publicURL + "/proxy" + path
	if query != "" {
		target += "?" + query
	}
	req, err := http.NewRequestWithContext(r.ctx, method, target, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.GetBody = nil // as a server's request is
	if body == "" {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	req.Header.Set("Authorization", "Bearer "+r.key)
	req.Header.Set(proxy.HeaderIntegration, r.id.Integration)
	req.Header.Set(proxy.HeaderConnection, r.id.Connection)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	c, err := r.proxy.Resolve(req, r.keys, r.setup, r.connector.Refresher)
	if err != nil {
		return answer{}, err
	}
	w := &recorder{header: http.Header{}}
	err = r.proxy.Serve(w, req, path, c)
	return answer{w.code(), w.body.String(), c.Replayed}, err
}

func (r *run) disconnect() error {
	conn, err := r.store.Connection(r.ctx, r.id)
	if err != nil {
		return err
	}
	if err := r.connector.Disconnect(r.ctx, r.id); err != nil {
		return err
	}
	if _, err := r.vault.Read(r.ctx, conn.VaultName()); !errors.Is(err, vault.ErrNotFound) {
		return fmt.Errorf("the vault still has something: %v", err)
	}
	if r.revokes() && r.vendor.Counts().Revoked != r.revoked+1 {
		return errors.New("the vendor was not told that the grant isn't used any more")
	}
	before := r.vendor.Counts().Calls
	if _, err := r.call(http.MethodGet, "/simulated/after", "", "", ""); !errors.Is(err, connect.ErrNotFound) {
		return fmt.Errorf("a call of the removed connection gives %v", err)
	}
	if r.vendor.Counts().Calls != before {
		return errors.New("a call of the removed connection has reached the vendor")
	}
	return nil
}
