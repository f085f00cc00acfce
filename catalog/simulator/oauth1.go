package simulator

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// OAuth 1.0a, RFC 5849, from the server's side.

// oauth1 is a signed request's own parameters, from its Authorization header.
type oauth1 struct {
	realm  string
	params map[string]string
	faults []string
}

func readOAuth1(r *http.Request) *oauth1 {
	o := &oauth1{params: map[string]string{}}
	rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "OAuth ")
	if !ok {
		o.faults = append(o.faults, "there is no Authorization header of OAuth 1 (RFC 5849 section 3.5.1)")
		return o
	}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		quoted := strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`)
		plain, err := url.PathUnescape(quoted)
		if err != nil || len(value) < 2 || value[0] != '"' || percent(plain) != quoted {
			o.faults = append(o.faults, "the parameter "+name+" of the header is not encoded as RFC 5849 section 3.6 says")
		}
		if name == "realm" {
			o.realm = plain
			continue
		}
		if _, twice := o.params[name]; twice {
			o.faults = append(o.faults, "the header has "+name+" twice")
		}
		o.params[name] = plain
	}
	return o
}

// unmet checks the signature and what it covers.
func (o *oauth1) unmet(x *exchange, consumer, secret, token, tokenSecret, method string) []string {
	out := slices.Clone(o.faults)
	want := func(name, value string) {
		if got := o.params[name]; got != value {
			out = append(out, fmt.Sprintf("%s is %s, not %s", name, quote(got), quote(value)))
		}
	}
	want("oauth_consumer_key", consumer)
	want("oauth_signature_method", method)
	if token != "" || o.params["oauth_token"] != "" {
		want("oauth_token", token)
	}
	if v, ok := o.params["oauth_version"]; ok && v != "1.0" {
		out = append(out, "oauth_version is "+quote(v))
	}
	key := percent(secret) + "&" + percent(tokenSecret)
	if method == "PLAINTEXT" {
		if o.params["oauth_signature"] != key {
			out = append(out, "the signature is wrong (RFC 5849 section 3.4.4)")
		}
		return out
	}
	var seconds int64
	if _, err := fmt.Sscan(o.params["oauth_timestamp"], &seconds); err != nil || x.now.Sub(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		out = append(out, "oauth_timestamp is not the present")
	}
	nonce := o.params["oauth_nonce"]
	if other, used := x.v.spent["nonce "+nonce]; nonce == "" || used && other != x.r {
		out = append(out, "oauth_nonce is missing or was used before (RFC 5849 section 3.3)")
	}
	x.v.spent["nonce "+nonce] = x.r
	h := sha1.New
	if method == "HMAC-SHA256" {
		h = sha256.New
	}
	if got := sign1(h, key, o.base(x)); got != o.params["oauth_signature"] {
		out = append(out, "the signature is wrong (RFC 5849 section 3.4.2)")
	}
	return out
}

func sign1(h func() hash.Hash, key, base string) string {
	mac := hmac.New(h, []byte(key))
	mac.Write([]byte(base))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// base is the signature base string, RFC 5849 section 3.4.1.
func (o *oauth1) base(x *exchange) string {
	type pair struct{ k, v string }
	var pairs []pair
	add := func(values url.Values) {
		for k, list := range values {
			for _, v := range list {
				pairs = append(pairs, pair{percent(k), percent(v)})
			}
		}
	}
	add(x.url.Query())
	if mediaType(x.r.Header.Get("Content-Type")) == mediaTypes["form"] {
		if form, err := url.ParseQuery(string(x.body)); err == nil {
			add(form)
		}
	}
	for k, v := range o.params {
		if k != "oauth_signature" {
			pairs = append(pairs, pair{percent(k), percent(v)})
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.k, b.k); c != 0 {
			return c
		}
		return strings.Compare(a.v, b.v)
	})
	joined := make([]string, len(pairs))
	for i, p := range pairs {
		joined[i] = p.k + "=" + p.v
	}
	path := x.url.EscapedPath()
	if path == "" {
		path = "/"
	}
	return strings.Join([]string{x.r.Method, percent(x.url.Scheme + "://" + strings.ToLower(x.url.Host) + path), percent(strings.Join(joined, "&"))}, "&")
}

func (v *Vendor) consumer(x *exchange) (id, secret string) {
	for _, pair := range [][2]string{{"cred.consumer_key", "cred.consumer_secret"}, {"cred.client_id", "cred.client_secret"}, {"app.client_id", "app.client_secret"}} {
		if s, ok := x.value(pair[0]); ok && s != "" {
			id, secret = s, ""
			secret, _ = x.value(pair[1])
			return id, secret
		}
	}
	return "", ""
}

// requestToken1 gives temporary credentials, RFC 5849 section 2.1.
func (v *Vendor) requestToken1() *endpoint {
	return &endpoint{
		name: "request token", method: http.MethodPost,
		check: func(x *exchange) []string {
			o := readOAuth1(x.r)
			id, secret := v.consumer(x)
			out := o.unmet(x, id, secret, "", "", v.facts.SignRequest.SignatureMethod)
			if !strings.HasPrefix(o.params["oauth_callback"], v.account.RedirectURI) {
				out = append(out, "oauth_callback is "+quote(o.params["oauth_callback"]))
			}
			given := x.url.Query()
			if form, err := url.ParseQuery(string(x.body)); err == nil {
				for k, list := range form {
					given[k] = append(given[k], list...)
				}
			}
			for name, value := range v.facts.tree("authorize", "request_token_params") {
				if err := x.one(value, given.Get(name), given.Has(name), false); err != nil {
					out = append(out, fmt.Sprintf("%s %v", name, err))
				}
			}
			return out
		},
		respond: func(w http.ResponseWriter, x *exchange) {
			c := &code{value: "tt." + random(20), secret: "ts." + random(20), verifier: "ov." + random(16), state: readOAuth1(x.r).params["oauth_callback"]}
			v.temporary[c.value] = c
			form(w, url.Values{"oauth_token": {c.value}, "oauth_token_secret": {c.secret}, "oauth_callback_confirmed": {"true"}})
		},
	}
}

func form(w http.ResponseWriter, values url.Values) {
	w.Header().Set("Content-Type", mediaTypes["form"])
	_, _ = w.Write([]byte(values.Encode()))
}

// authorize1 is the page on which the user consents, RFC 5849 section 2.2.
func (v *Vendor) authorize1(x *exchange) ([]string, *url.URL) {
	want, err := x.address(source(v.facts.Authorize.URL), nil)
	if err != nil {
		return []string{err.Error()}, nil
	}
	query := x.url.Query()
	var out []string
	if x.url.Scheme != "https" || x.url.Host != want.Host || x.url.Path != want.Path {
		out = append(out, "it is at "+want.Host+want.Path)
	}
	c := v.temporary[query.Get("oauth_token")]
	if c == nil || c.used {
		return append(out, "oauth_token is none that the vendor has given"), nil
	}
	for name, value := range v.facts.tree("authorize", "params") {
		if err := x.one(value, query.Get(name), query.Has(name), false); err != nil {
			out = append(out, fmt.Sprintf("the query's %s %v", name, err))
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	back, err := url.Parse(c.state)
	if err != nil {
		return []string{"oauth_callback can't be read"}, nil
	}
	q := back.Query()
	q.Set("oauth_token", c.value)
	q.Set("oauth_verifier", c.verifier)
	back.RawQuery = q.Encode()
	return nil, back
}

// accessToken1 redeems temporary credentials, RFC 5849 section 2.3.
func (v *Vendor) accessToken1() *endpoint {
	var c *code
	return &endpoint{
		name: "access token", method: http.MethodPost,
		check: func(x *exchange) []string {
			o := readOAuth1(x.r)
			if c = v.temporary[o.params["oauth_token"]]; c == nil || c.used {
				return []string{"oauth_token is none that the vendor has given"}
			}
			id, secret := v.consumer(x)
			out := o.unmet(x, id, secret, c.value, c.secret, v.facts.SignRequest.SignatureMethod)
			if o.params["oauth_verifier"] != c.verifier {
				out = append(out, "oauth_verifier is wrong")
			}
			return out
		},
		respond: func(w http.ResponseWriter, _ *exchange) {
			c.used = true
			g := &grant{access: "ot." + random(24), secret: "os." + random(24), live: true, extra: map[string]string{}}
			v.grants = append(v.grants, g)
			v.counts.Tokens++
			form(w, url.Values{"oauth_token": {g.access}, "oauth_token_secret": {g.secret}, "user_id": {"42"}, "screen_name": {"ada"}})
		},
	}
}

// oauth1Unmet checks the signature of a call.
func (v *Vendor) oauth1Unmet(x *exchange) []string {
	s := v.facts.SignRequest
	o := readOAuth1(x.r)
	id, secret := v.consumer(x)
	var token, tokenSecret string
	if !s.Token.IsZero() {
		token, _ = v.fill(x, s.Token.String())
		tokenSecret, _ = v.fill(x, s.TokenSecret.String())
	} else if x.grant != nil {
		token, tokenSecret = x.grant.access, x.grant.secret
	}
	out := o.unmet(x, id, secret, token, tokenSecret, s.SignatureMethod)
	if !s.Realm.IsZero() {
		if realm, err := v.fill(x, s.Realm.String()); err != nil || o.realm != realm {
			out = append(out, "the realm is "+quote(o.realm)+", not "+quote(realm))
		}
	}
	return out
}

// signatureUnmet checks a signature over the whole request.
func (v *Vendor) signatureUnmet(x *exchange, service string) []string {
	switch v.facts.SignRequest.Kind {
	case "oauth1":
		return v.oauth1Unmet(x)
	case "aws_sigv4":
		return v.sigv4Unmet(x, service)
	case "wsse_username_token":
		return v.wsseUnmet(x)
	}
	return []string{"the vendor knows no signature of the kind " + v.facts.SignRequest.Kind}
}
