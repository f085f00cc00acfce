package simulator

import (
	"fmt"
	"strings"
	"time"

	"github.com/keycaddy/keycaddy/catalog"
)

// code is one authorization that the user has given and the client not yet
// redeemed.
type code struct {
	value     string
	state     string
	challenge string
	nonce     string
	used      bool
	secret    string // OAuth 1: of the temporary credentials
	verifier  string // OAuth 1
}

// grant is one set of tokens. The next set is another grant of the same family.
type grant struct {
	access, refresh string
	cookies         string
	extra           map[string]string // second tokens, by name
	code            *code
	live            bool
	spent           bool // its refresh token was used, and is replaced
	self            bool // the client signs its tokens itself
	told            time.Time
	secret          string // OAuth 1: the token's
}

// scopes is what the client has to ask for, joined as the vendor wants it.
func (v *Vendor) scopes() string {
	var list []string
	separator := " "
	if s := v.facts.Scopes; s != nil {
		separator = s.Separator
		list = s.Default
		if s.From != "" {
			x := v.exchange(nil, nil)
			value, _ := x.value(s.From)
			return value
		}
	}
	if len(v.account.Scopes) > 0 {
		list = v.account.Scopes
	}
	return strings.Join(list, separator)
}

// newGrant makes tokens. Renewals keep what stays.
func (v *Vendor) newGrant(from *grant, c *code) *grant {
	g := &grant{access: v.accessToken(), code: c, live: true, extra: map[string]string{}}
	if from != nil {
		g.code, g.extra = from.code, from.extra
	}
	if v.refreshable() {
		g.refresh = "rt." + random(24) + "+/~=="
		if from != nil && from.refresh != "" && !v.rotates() {
			g.refresh = from.refresh
		}
	}
	if r := v.facts.TokenResponse; g.refresh != "" && r != nil && r.RefreshToken == v.accessPath() {
		g.refresh = g.access // one token for both
	}
	if from != nil && v.facts.Refresh != nil && v.facts.Refresh.KeepsAccessToken {
		g.access = from.access
	}
	return g
}

// refreshable tells whether the vendor issues refresh tokens.
func (v *Vendor) refreshable() bool {
	r := v.facts.Refresh
	if r == nil || r.Mode != catalog.RefreshByToken {
		return false
	}
	switch v.facts.Mode {
	case catalog.ModeOAuth2Code, catalog.ModeMCPOAuth2:
		return v.facts.raw["refresh"] != nil || v.facts.TokenResponse != nil && v.facts.TokenResponse.RefreshToken != ""
	case catalog.ModeMCPDiscovery:
		return true
	}
	return true // the entry says how, so there is one
}

func (v *Vendor) rotates() bool {
	r := v.facts.Refresh
	return !v.otherwise && r.Rotates && (v.facts.TokenResponse == nil || v.facts.TokenResponse.RefreshToken != v.accessPath())
}

// accessToken is opaque, unless the entry reads claims out of it. It has the
// characters that tokens may have and that want encoding elsewhere (RFC 6750
// section 2.1).
func (v *Vendor) accessToken() string {
	claims := map[string]any{}
	for _, d := range v.facts.Derive {
		if d.JWTClaim != "" && d.Of == "access_token" {
			claims[d.JWTClaim] = v.tell(d.To)
		}
	}
	v.facts.templatesOf(func(_, s string) {
		for _, hole := range holeForm.FindAllString(s, -1) {
			if _, rest, ok := strings.Cut(hole, "jwt_claim(token.access_token, '"); ok {
				name, _, _ := strings.Cut(rest, "'")
				if v.known["claim."+name] == "" {
					v.known["claim."+name] = "claim-" + random(10)
				}
				claims[name] = v.known["claim."+name]
			}
		}
	})
	if len(claims) == 0 {
		return "at." + random(24) + "+/~=="
	}
	claims["jti"] = random(16)
	return unsignedJWT(claims)
}

// newest returns the tokens that were given last, nil before the first.
func (v *Vendor) newest() *grant {
	if len(v.grants) == 0 {
		return nil
	}
	return v.grants[len(v.grants)-1]
}

// retire ends a grant whose refresh token was used.
func (v *Vendor) retire(g *grant) {
	if !v.facts.Refresh.KeepsAccessToken {
		g.live = false
	}
	g.spent = true
}

// reused ends everything that came of a refresh token which is used a second
// time (RFC 9700 section 4.14.2).
func (v *Vendor) reused(x *exchange) bool {
	if !v.refreshable() || !v.rotates() {
		return false
	}
	for _, g := range v.grants {
		if g.spent && g.refresh != "" && (strings.Contains(x.url.RawQuery+string(x.body)+fmt.Sprint(x.r.Header), g.refresh) || containsEncoded(string(x.body), g.refresh)) {
			for _, other := range v.grants {
				other.live, other.refresh = false, ""
			}
			return true
		}
	}
	return false
}

func containsEncoded(body, token string) bool {
	return strings.Contains(unescape(strings.ReplaceAll(body, "+", " ")), token)
}

// tell returns the value of a connection field that the vendor decides on: the
// one that the user has typed, if he was asked.
func (v *Vendor) tell(name string) string {
	if s, ok := v.told[name]; ok {
		return s
	}
	s := v.account.Conn[name]
	if s == "" {
		s = v.makeUp(name)
	}
	v.told[name] = s
	return s
}

func (v *Vendor) makeUp(name string) string {
	ref := "conn." + name
	field, ok := v.facts.Field("conn", name)
	if !ok {
		field = &catalog.Field{Name: name}
	}
	if s, err := v.facts.valueFor(&catalog.Field{
		Name: name, Format: field.Format, Regexp: field.Regexp, Enum: field.Enum, Example: field.Example,
	}, ref); err == nil {
		return s
	}
	return madeUp(field, v.facts.placeOf(ref))
}
