package scheme

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// Derive fills the connection's fields that the entry has look-ups for: the id
// of an account, the host that its data is on. It is called once, after the
// first token. Errors: *TokenError, *LookupError, and what the templates lack.
func (b base) Derive(ctx context.Context, g Grant) (Grant, error) {
	return b.derive(ctx, g, b.bind)
}

// derive is Derive for schemes that bind in a way of their own.
func (b base) derive(ctx context.Context, g Grant, bind func(Grant) (*Binding, error)) (Grant, error) {
	g.Config = maps.Clone(g.Config)
	if g.Config == nil {
		g.Config = map[string]string{}
	}
	for i := range b.provider.Derive {
		d := &b.provider.Derive[i]
		if d.Unknown || d.UnlessSet && isSet(d, g.Config) || !b.applies(d.When, g) {
			continue
		}
		if d.ExtraToken != "" {
			// The connection works without it; what needs it says so.
			_ = b.extraToken(ctx, d, &g)
			continue
		}
		var missing *catalog.MissingError
		switch err := b.lookUp(ctx, d, &g, bind); {
		case err == nil, d.Optional:
		case errors.As(err, &missing) && missing.Optional: // made of a field that was rightly left empty
		default:
			return Grant{}, err
		}
	}
	return g, nil
}

// LookupError is a look-up that didn't find what it is for.
type LookupError struct {
	// Fields are the connection's fields that stay unknown.
	Fields []string
	Reason string
}

func (e *LookupError) Error() string {
	return "finding out " + strings.Join(e.Fields, ", ") + ": " + e.Reason
}

// isSet tells whether all that a look-up is for is known already.
func isSet(d *catalog.Derive, config map[string]string) bool {
	for name := range d.Set {
		if config[name] == "" {
			return false
		}
	}
	return d.To == "" || config[d.To] != ""
}

// applies tells whether a look-up is for the scopes of the grant.
func (b base) applies(w *catalog.When, g Grant) bool {
	if w == nil {
		return true
	}
	scopes := strings.Join(g.Scopes, " ")
	if scopes == "" {
		scopes = b.scopes(nil, g.Config)
	}
	return (w.ScopesHave == "" || strings.Contains(scopes, w.ScopesHave)) && (w.ScopesLack == "" || !strings.Contains(scopes, w.ScopesLack))
}

func (b base) lookUp(ctx context.Context, d *catalog.Derive, g *Grant, bind func(Grant) (*Binding, error)) error {
	switch {
	case d.Request != nil:
		doc, err := b.askFor(ctx, d.Request, *g, bind)
		var te *TokenError
		if d.SetSuccess != "" {
			if err != nil && (!errors.As(err, &te) || te.Class == Transient && (te.Status == 0 || te.Status >= 500)) {
				return err
			}
			g.Config[d.SetSuccess] = fmt.Sprint(err == nil)
			return nil
		}
		if err != nil {
			if len(d.Set) == 0 && errors.As(err, &te) && strings.HasPrefix(te.Code, "not_") {
				return nil // the request was all, whatever is answered
			}
			return err
		}
		return b.take(d, doc, g)
	case d.FromTokenResponse:
		doc, err := parseDocument([]byte(g.Raw.Reveal()), asJSON)
		if err != nil {
			return err
		}
		return b.take(d, doc, g)
	case d.JWTClaim != "":
		token, _ := g.token(d.Of)
		v, ok := jwtClaim(token, d.JWTClaim)
		if !ok {
			return &LookupError{[]string{d.To}, "the token has no claim " + d.JWTClaim}
		}
		g.Config[d.To] = v
	case !d.Copy.IsZero():
		v, err := d.Copy.Fill(b.env(*g, nil))
		if err != nil {
			return fmt.Errorf("look-up of provider %s: %w", b.provider.ID, err)
		}
		g.Config[d.To] = v
	}
	return nil
}

// askFor sends the request of a look-up, as signed in if the entry doesn't say
// otherwise.
func (b base) askFor(ctx context.Context, c *catalog.Call, g Grant, bind func(Grant) (*Binding, error)) (document, error) {
	var root *url.URL
	if c.URL.Relative() {
		var err error
		if root, err = b.provider.Request.BaseURL.Fill(b.env(g, nil)); err != nil {
			return document{}, fmt.Errorf("base URL of provider %s: %w", b.provider.ID, err)
		}
	}
	u, err := c.URL.Under(root, b.env(g, nil))
	if err != nil {
		return document{}, fmt.Errorf("look-up of provider %s: %w", b.provider.ID, err)
	}
	m := &message{method: c.Method, url: u, params: c.Params, tree: c.Body.Tree, body: c.Body.Encoding}
	if m.body == "" {
		m.body = "none"
	}
	req, err := m.build(ctx, b, g, nil)
	if err != nil {
		return document{}, fmt.Errorf("look-up of provider %s: %w", b.provider.ID, err)
	}
	switch {
	case c.Auth == "bearer":
		req.Header.Set("Authorization", "Bearer "+g.AccessToken.Reveal())
	case c.Auth == "" && bind != nil:
		binding, err := bind(g)
		if err != nil {
			return document{}, err
		}
		payload, err := payloadOf(req)
		if err != nil {
			return document{}, err
		}
		if err := binding.apply(req, payload); err != nil {
			return document{}, err
		}
	}
	headers, err := c.Headers.Fill(b.env(g, nil))
	if err != nil {
		return document{}, fmt.Errorf("look-up of provider %s: %w", b.provider.ID, err)
	}
	for name, v := range headers {
		req.Header.Set(name, v)
	}
	doc, err := b.fetch(req, g, false)
	return doc, scrubbed(err, b.secrets(g))
}

// take sets the connection's fields from an answer.
func (b base) take(d *catalog.Derive, doc document, g *Grant) error {
	if !holds(d.When, doc) {
		return nil
	}
	if d.Pick != nil {
		v, err := b.pick(d.Pick, doc, *g)
		if err != nil {
			return &LookupError{slices.Sorted(maps.Keys(d.Set)), err.Error()}
		}
		doc = document{root: v}
	}
	for name, path := range d.Set {
		v, ok := plainText(doc.at(path))
		if ok {
			v, ok = transform(d.Transform, v)
		}
		if ok {
			if f, declared := b.provider.Field("conn", name); declared && f.Check(v) != nil {
				ok = false // one that no address could be made of
			}
		}
		if !ok || v == "" {
			if b.needs(name) {
				return &LookupError{[]string{name}, "the provider's answer doesn't tell"}
			}
			continue
		}
		g.Config[name] = v
	}
	return nil
}

// needs tells whether nothing can be called without a connection's field.
func (b base) needs(name string) bool {
	r := b.provider.Request
	if r == nil {
		return false
	}
	env := b.env(Grant{Config: map[string]string{}}, func(ns, path string) (string, bool) {
		return "a", ns != "conn" || path != name
	})
	_, err := r.BaseURL.Fill(env)
	var missing *catalog.MissingError
	return errors.As(err, &missing)
}

// holds tells whether an answer is one that the look-up is for.
func holds(w *catalog.When, doc document) bool {
	if w == nil {
		return true
	}
	if len(w.PathEquals) == 2 {
		if v, _ := doc.text(fmt.Sprint(w.PathEquals[0])); v != fmt.Sprint(w.PathEquals[1]) {
			return false
		}
	}
	if len(w.ArrayLength) == 2 {
		list, ok := doc.at(fmt.Sprint(w.ArrayLength[0])).([]any)
		if !ok || fmt.Sprint(len(list)) != fmt.Sprint(w.ArrayLength[1]) {
			return false
		}
	}
	return true
}

// pick chooses one element of a list.
func (b base) pick(p *catalog.Pick, doc document, g Grant) (any, error) {
	list, ok := doc.at(p.Array).([]any)
	if !ok || len(list) == 0 {
		return nil, errors.New("the provider's answer has none")
	}
	env := b.env(g, nil)
	for i := range p.Match {
		for _, item := range list {
			if matches(&p.Match[i], document{root: item}, env) {
				return item, nil
			}
		}
	}
	switch {
	case p.Default == "first", p.Default == "only" && len(list) == 1:
		return list[0], nil
	}
	return nil, errors.New("the provider's answer has several, and none that fits")
}

func matches(m *catalog.Match, doc document, env *catalog.Env) bool {
	have, ok := doc.text(m.Path)
	if !ok {
		return false
	}
	switch {
	case m.Equals != nil:
		want, err := m.Equals.Text(env)
		return err == nil && have == want
	case !m.Contains.IsZero():
		want, err := m.Contains.Fill(env)
		return err == nil && strings.Contains(strings.ToLower(have), strings.ToLower(want))
	case !m.HostLabelEquals.IsZero():
		want, err := m.HostLabelEquals.Fill(env)
		u, uerr := url.Parse(have)
		if err != nil || uerr != nil {
			return false
		}
		label, _, _ := strings.Cut(u.Hostname(), ".")
		return strings.EqualFold(label, want)
	}
	return false
}

// transform cuts what is wanted out of a value.
func transform(how, v string) (string, bool) {
	switch {
	case how == "last_path_segment":
		v = strings.TrimRight(v, "/")
		return v[strings.LastIndexByte(v, '/')+1:], true
	case strings.HasPrefix(how, "after:"):
		_, rest, ok := strings.Cut(v, strings.TrimPrefix(how, "after:"))
		rest, _, _ = strings.Cut(rest, "/")
		return rest, ok
	}
	return v, true
}

// renewExtra fetches further tokens anew, which end with the main one or before
// it. One that can't be fetched stays as it is.
func (b base) renewExtra(ctx context.Context, g Grant) Grant {
	for i := range b.provider.Derive {
		if d := &b.provider.Derive[i]; d.ExtraToken != "" {
			if err := b.extraToken(ctx, d, &g); err != nil {
				continue
			}
		}
	}
	return g
}

// extraToken fetches a token for another resource.
func (b base) extraToken(ctx context.Context, d *catalog.Derive, g *Grant) error {
	if d.Request == nil {
		return nil
	}
	doc, err := b.askFor(ctx, d.Request, *g, nil)
	if err != nil {
		return err
	}
	v, _ := doc.text(d.Path)
	if v == "" || !usableToken(v) {
		return &LookupError{[]string{d.ExtraToken}, "the provider's answer has no token"}
	}
	t := Token{AccessToken: Secret(v)}
	if refresh, ok := doc.text(d.RefreshPath); ok && d.RefreshPath != "" && usableToken(refresh) {
		t.RefreshToken = Secret(refresh)
	}
	now := time.Now()
	if in, ok := doc.text(d.ExpiresIn); ok && d.ExpiresIn != "" {
		if life, ok := parseDuration(in, time.Second); ok {
			t.Expires = now.Add(life)
		}
	}
	g.Extra = maps.Clone(g.Extra)
	if g.Extra == nil {
		g.Extra = map[string]Token{}
	}
	g.Extra[d.ExtraToken] = t
	if !t.Expires.IsZero() && !g.Expires.IsZero() && t.Expires.Before(g.Expires) {
		g.Expires = t.Expires
	}
	return nil
}
