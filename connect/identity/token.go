package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/policy"
)

// Tokens are JWTs that an issuer signs for callers (RFC 7519, RFC 8725). They
// name the audience, and end.
type Tokens struct {
	// Name is what their callers are called in logs, before the subject.
	Name             string
	Issuer, Audience string
	// KeysURL is where the issuer's keys are (RFC 7517); or Keys are the keys
	// themselves, as JSON.
	KeysURL string
	Keys    json.RawMessage
	// Client fetches the keys. Context ends their renewal.
	Client  *http.Client
	Context context.Context

	Scopes policy.Scopes
	Limits policy.Limits
	// The claims that say which end user, connections and integrations the
	// caller is limited to, beside Limits; empty: none does. A token without a
	// claim that is wanted is refused.
	EndUser, Connections, Integrations string

	known known

	mu     sync.Mutex
	keys   keyfunc.Keyfunc
	tryAt  time.Time // the keys could not be had; not again before
	failed error
}

// methods are the signatures that are taken: none that the verifier's key could
// make too (RFC 8725 section 3.1).
var methods = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

const (
	keysTimeout = 5 * time.Second
	leeway      = 30 * time.Second // between the issuer's clock and this one's
	maxToken    = 8 << 10
)

// who returns the caller that a token is of.
func (t *Tokens) who(ctx context.Context, token string, now time.Time) (*connect.Caller, error) {
	if len(token) > maxToken {
		return nil, refused("it is longer than 8 KiB")
	}
	digest := connect.DigestOf(token)
	if caller, ok := t.known.get(digest, now); ok {
		return caller, nil
	}
	keys, err := t.keyset(now)
	if err != nil {
		return nil, fmt.Errorf("%w: the keys of %s: %w", connect.ErrStoreUnavailable, t.Issuer, err)
	}
	claims := jwt.MapClaims{}
	parser := jwt.NewParser(jwt.WithValidMethods(methods), jwt.WithIssuer(t.Issuer), jwt.WithAudience(t.Audience), jwt.WithExpirationRequired(),
		jwt.WithLeeway(leeway), jwt.WithTimeFunc(func() time.Time { return now }))
	if _, err := parser.ParseWithClaims(token, claims, keys.KeyfuncCtx(ctx)); err != nil {
		return nil, refused(reason(err))
	}
	subject, _ := claims["sub"].(string)
	limits := t.Limits
	for _, one := range []struct {
		claim string
		into  *[]string
	}{{t.EndUser, &limits.EndUsers}, {t.Connections, &limits.Connections}, {t.Integrations, &limits.Integrations}} {
		if one.claim == "" {
			continue
		}
		values := texts(claims[one.claim])
		if len(*one.into) > 0 {
			values = slices.DeleteFunc(values, func(v string) bool { return !slices.Contains(*one.into, v) })
		}
		if len(values) == 0 {
			return nil, refused("its claim " + one.claim + " says nothing that it could be good for")
		}
		*one.into = values
	}
	if _, err := limits.Compile(); err != nil {
		return nil, refused("its claims are no limits: " + err.Error())
	}
	until, err := claims.GetExpirationTime()
	if err != nil || until == nil {
		return nil, refused("it has no end")
	}
	as, err := json.Marshal([]any{subject, limits})
	if err != nil {
		return nil, err
	}
	return t.known.add(digest, until.Add(leeway), string(as), func() *connect.Caller {
		return connect.NewCaller(t.Name+":"+subject, t.Scopes, limits)
	}), nil
}

// texts is a claim as a list: a text, or several.
func texts(claim any) (out []string) {
	switch v := claim.(type) {
	case string:
		if v != "" {
			out = []string{v}
		}
	case []any:
		for _, one := range v {
			if s, ok := one.(string); ok && s != "" {
				out = append(out, s)
			}
		}
	}
	return out
}

// keyset is the issuer's keys. They are fetched when the first token comes, and
// then when one is signed with a key that isn't known: not more often than every
// ten seconds, whatever is sent here.
func (t *Tokens) keyset(now time.Time) (keyfunc.Keyfunc, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys != nil {
		return t.keys, nil
	}
	if t.Keys != nil {
		keys, err := keyfunc.NewJWKSetJSON(t.Keys)
		t.keys = keys
		return keys, err
	}
	if now.Before(t.tryAt) {
		return nil, t.failed
	}
	strict := false
	keys, err := keyfunc.NewDefaultOverrideCtx(t.Context, []string{t.KeysURL}, keyfunc.Override{
		Client: t.Client, HTTPTimeout: keysTimeout, RefreshInterval: time.Hour, NoErrorReturnFirstHTTPReq: &strict,
		RefreshUnknownKID: rate.NewLimiter(rate.Every(10*time.Second), 1), RateLimitWaitMax: time.Nanosecond,
	})
	if err != nil {
		t.tryAt, t.failed = now.Add(10*time.Second), err
		return nil, err
	}
	t.keys = keys
	return keys, nil
}

// issuerOf reads a token's issuer, which isn't checked yet.
func issuerOf(token string) string {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil {
		return ""
	}
	return claims.Issuer
}

// reason says what is wrong with a token, and nothing that is in it.
func reason(err error) string {
	for known, text := range map[error]string{
		jwt.ErrTokenExpired: "it has expired", jwt.ErrTokenNotValidYet: "it is not valid yet", jwt.ErrTokenInvalidIssuer: "it is of another issuer",
		jwt.ErrTokenInvalidAudience: "it is for another audience", jwt.ErrTokenRequiredClaimMissing: "it has no end, or no audience",
		jwt.ErrTokenUsedBeforeIssued: "it was issued in the future", jwt.ErrTokenUnverifiable: "it is signed with a key that the issuer doesn't show",
	} {
		if errors.Is(err, known) {
			return text
		}
	}
	return "its signature is not the issuer's"
}

// Check tells whether the keys can be read, where they are given.
func (t *Tokens) Check() error {
	_, err := t.keyset(time.Time{})
	return err
}
