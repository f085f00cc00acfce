package scheme

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// oauth1 is OAuth 1.0a (RFC 5849): a request token, the user's consent, and an
// access token without an end, with which every request is signed.
type oauth1 struct{ base }

func newOAuth1(b base) (Scheme, error) {
	p := b.provider
	if p.SignRequest == nil || p.SignRequest.Kind != "oauth1" || p.Authorize == nil || p.Authorize.RequestTokenURL.IsZero() || p.Token == nil {
		return nil, fmt.Errorf("provider %s: authorize.request_token_url, token and sign_request of kind oauth1 are needed for %s", p.ID, p.Mode)
	}
	if err := b.needsClient(); err != nil {
		return nil, err
	}
	return oauth1{b}, nil
}

// needsClient tells what the operator has left out.
func (b base) needsClient() error {
	if b.app.ClientID == "" {
		return fmt.Errorf("client_id is missing: register an app with %s and set its client_id and client_secret", b.provider.DisplayName)
	}
	return nil
}

// tokenSecretField is where the secret of the access token is kept.
const tokenSecretField = "oauth_token_secret"

// temporary are the credentials between the two legs (section 2.1).
type temporary struct {
	Token  string `json:"token"`
	Secret string `json:"secret"`
}

// Depart fetches temporary credentials. The state goes along in the callback's
// address, since OAuth 1 has no parameter for it.
func (s oauth1) Depart(ctx context.Context, f Flow) (Secret, error) {
	a := s.provider.Authorize
	g := f.grant()
	callback, err := url.Parse(f.RedirectURL)
	if err != nil {
		return "", fmt.Errorf("callback address: %w", err)
	}
	addTo(callback, url.Values{"state": {f.State}})
	doc, err := s.tokenRequest(ctx, g, a.RequestTokenURL, a.RequestTokenParams, s.flowValues(f), &oauth1Signer{
		extra: map[string]string{"oauth_callback": callback.String()},
	})
	if err != nil {
		return "", err
	}
	// Section 2.1: it must be there, and true (S102).
	if confirmed, _ := doc.text("oauth_callback_confirmed"); confirmed != "true" {
		return "", &TokenError{Class: Transient, Code: "callback_not_confirmed", Description: "the provider has not confirmed the callback address"}
	}
	token, secret, err := oauth1Token(doc)
	if err != nil {
		return "", err
	}
	kept, err := json.Marshal(temporary{token, secret})
	if err != nil {
		return "", fmt.Errorf("keeping the request token: %w", err)
	}
	return Secret(kept), nil
}

// AuthURL is where the user consents (section 2.2).
func (s oauth1) AuthURL(f Flow) (string, error) {
	t, err := keptToken(f)
	if err != nil {
		return "", err
	}
	env := s.env(f.grant(), s.flowValues(f))
	u, err := s.provider.Authorize.URL.Fill(env)
	if err != nil {
		return "", fmt.Errorf("authorization URL of provider %s: %w", s.provider.ID, err)
	}
	params, err := s.provider.Authorize.Params.FormPresent(env)
	if err != nil {
		return "", fmt.Errorf("authorization parameters of provider %s: %w", s.provider.ID, err)
	}
	for name, v := range s.app.AuthorizationParams {
		params.Set(name, v)
	}
	for name, v := range f.Params {
		params.Set(name, v)
	}
	if scopes := s.scopes(f.Scopes, f.Config); scopes != "" && !params.Has("scope") {
		params.Set("scope", scopes)
	}
	params.Set("oauth_token", t.Token)
	addTo(u, params)
	return u.String(), nil
}

func keptToken(f Flow) (temporary, error) {
	var t temporary
	if json.Unmarshal([]byte(f.Kept.Reveal()), &t) != nil || t.Token == "" {
		return temporary{}, &CallbackError{Code: "missing_token"}
	}
	return t, nil
}

// Check finds out whether the callback brings a verifier for the token that was
// sent along (section 2.2, S102).
func (s oauth1) Check(f Flow, callback url.Values) error {
	if err := refusedCallback(callback); err != nil {
		return err
	}
	if callback.Has("denied") { // Twitter's word
		return &CallbackError{Code: "access_denied"}
	}
	t, err := keptToken(f)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(callback.Get("oauth_token")), []byte(t.Token)) != 1 {
		return &CallbackError{Code: "other_token"}
	}
	if callback.Get("oauth_verifier") == "" {
		return &CallbackError{Code: "missing_code"}
	}
	return nil
}

// Exchange redeems the verifier (section 2.3).
func (s oauth1) Exchange(ctx context.Context, f Flow, callback url.Values) (Grant, error) {
	if err := s.Check(f, callback); err != nil {
		return Grant{}, err
	}
	t, err := keptToken(f)
	if err != nil {
		return Grant{}, err
	}
	config, err := s.captureCallback(f.Config, callback)
	if err != nil {
		return Grant{}, err
	}
	f.Config = config
	g := f.grant()
	doc, err := s.tokenRequest(ctx, g, s.provider.Token.URL, s.provider.Token.Params, s.flowValues(f), &oauth1Signer{
		token: t.Token, tokenSecret: t.Secret, extra: map[string]string{"oauth_verifier": callback.Get("oauth_verifier")},
	})
	if err != nil {
		return Grant{}, err
	}
	token, secret, err := oauth1Token(doc)
	if err != nil {
		return Grant{}, err
	}
	g.AccessToken, g.Raw, g.Issued = Secret(token), Secret(doc.raw), time.Now()
	g.Fields = map[string]Secret{tokenSecretField: Secret(secret)}
	if r := s.provider.TokenResponse; r != nil {
		for field, path := range r.Capture {
			if v, ok := doc.text(path); ok {
				g.Config[field] = v
			}
		}
	}
	return g, nil
}

// tokenRequest sends a signed request for a token.
func (s oauth1) tokenRequest(ctx context.Context, g Grant, at catalog.URL, params catalog.Params, flow lookup, sign *oauth1Signer) (document, error) {
	u, err := at.Fill(s.env(g, flow))
	if err != nil {
		return document{}, fmt.Errorf("token URL of provider %s: %w", s.provider.ID, err)
	}
	m := &message{method: http.MethodPost, url: u, body: "form", params: params}
	req, err := m.build(ctx, s.base, g, flow)
	if err != nil {
		return document{}, fmt.Errorf("token request of provider %s: %w", s.provider.ID, err)
	}
	body, err := payloadOf(req)
	if err != nil {
		return document{}, err
	}
	sign.method, sign.consumerKey, sign.consumerSecret = s.provider.SignRequest.SignatureMethod, s.app.ClientID, s.app.ClientSecret.Reveal()
	if err := sign.sign(req, &held{bytes: body, whole: true}); err != nil {
		return document{}, fmt.Errorf("token request of provider %s: %w", s.provider.ID, err)
	}
	req.Header.Set("Accept", "application/x-www-form-urlencoded, application/json;q=0.5")
	doc, err := s.fetchForm(req, g)
	return doc, scrubbed(err, s.secrets(g, sign.token, sign.tokenSecret))
}

// oauth1Token reads the token of an answer.
func oauth1Token(doc document) (token, secret string, err error) {
	token, _ = doc.text("oauth_token")
	secret, _ = doc.text("oauth_token_secret")
	if token == "" || !usableToken(token) || !usableToken(secret) {
		return "", "", &TokenError{Class: Transient, Code: "no_access_token", Description: "the provider's answer has no token in it"}
	}
	return token, secret, nil
}

// Bind also prepares the signer.
func (s oauth1) Bind(g Grant) (*Binding, error) {
	b, err := s.base.Bind(g)
	if err != nil {
		return nil, err
	}
	b.signer = &oauth1Signer{
		method: s.provider.SignRequest.SignatureMethod, consumerKey: s.app.ClientID, consumerSecret: s.app.ClientSecret.Reveal(),
		token: g.AccessToken.Reveal(), tokenSecret: g.Fields[tokenSecretField].Reveal(),
	}
	return b, nil
}

// Verify sends the entry's request, signed.
func (s oauth1) Verify(ctx context.Context, g Grant) (int, error) {
	return s.verify(ctx, g, func() (*Binding, error) { return s.Bind(g) })
}

// Derive signs what it asks.
func (s oauth1) Derive(ctx context.Context, g Grant) (Grant, error) {
	return s.derive(ctx, g, func(g Grant) (*Binding, error) { return s.Bind(g) })
}

// Account signs what it asks.
func (s oauth1) Account(ctx context.Context, g Grant) (Account, error) {
	return s.account(ctx, g, func(g Grant) (*Binding, error) { return s.Bind(g) })
}

// oauth1TBA is OAuth 1.0a without a redirect: the end user has made a token at
// the provider (NetSuite's token-based authentication) and enters it. The
// consumer is the operator's, unless the entry has fields for one.
type oauth1TBA struct{ base }

func newOAuth1TBA(b base) (Scheme, error) {
	p := b.provider
	if p.SignRequest == nil || p.SignRequest.Kind != "oauth1" {
		return nil, fmt.Errorf("provider %s: sign_request of kind oauth1 is needed for %s", p.ID, p.Mode)
	}
	if _, own := p.Field("cred", "consumer_key"); !own {
		if err := b.needsClient(); err != nil {
			return nil, err
		}
	}
	return oauth1TBA{b}, nil
}

// Accept takes the answers as they are.
func (s oauth1TBA) Accept(_ context.Context, answers map[string]string) (Grant, error) {
	return s.accept(answers)
}

// Bind also prepares the signer.
func (s oauth1TBA) Bind(g Grant) (*Binding, error) {
	b, err := s.base.Bind(g)
	if err != nil {
		return nil, err
	}
	spec, env := s.provider.SignRequest, s.env(g, nil)
	sign := &oauth1Signer{method: spec.SignatureMethod, consumerKey: s.app.ClientID, consumerSecret: s.app.ClientSecret.Reveal()}
	if key := g.Fields["consumer_key"].Reveal(); key != "" {
		sign.consumerKey, sign.consumerSecret = key, g.Fields["consumer_secret"].Reveal()
	}
	for _, f := range []struct {
		from catalog.Value
		to   *string
	}{{spec.Realm, &sign.realm}, {spec.Token, &sign.token}, {spec.TokenSecret, &sign.tokenSecret}} {
		if f.from.IsZero() {
			continue
		}
		if *f.to, err = f.from.Fill(env); err != nil {
			return nil, fmt.Errorf("signature of provider %s: %w", s.provider.ID, err)
		}
	}
	b.signer = sign
	return b, nil
}

// Verify sends the entry's request, signed.
func (s oauth1TBA) Verify(ctx context.Context, g Grant) (int, error) {
	return s.verify(ctx, g, func() (*Binding, error) { return s.Bind(g) })
}

var (
	_ Departer = oauth1{}
	_ Prompter = oauth1TBA{}
)
