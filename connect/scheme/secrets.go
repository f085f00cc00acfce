package scheme

import (
	"encoding/base64"
	"slices"
	"strings"
)

// Secrets are the secret values that requests are given, without the name of
// their scheme (Bearer), and those that they are made of: a provider that sends
// one of them back has given the credential away (S105). What is made for each
// request alone is none of them.
func (b *Binding) Secrets() []string {
	var out []string
	add := func(v string) {
		if v != "" && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	for i := range b.headers {
		h := &b.headers[i]
		if !h.secret {
			continue
		}
		scheme, value := cutScheme(b.value(i)[0])
		add(value)
		if strings.EqualFold(scheme, "Basic") {
			if pair, err := base64.StdEncoding.DecodeString(value); err == nil {
				add(string(pair))
			}
		}
	}
	for _, v := range b.parts {
		add(v)
	}
	return out
}

// cutScheme cuts the name of the scheme off a header's value (RFC 9110 section
// 11.4), if it has one.
func cutScheme(v string) (scheme, value string) {
	if scheme, value, ok := strings.Cut(v, " "); ok {
		return scheme, value
	}
	return "", v
}

// carried finds the header that has a value, and returns the value as it is there.
func (b *Binding) carried(v string) (_ string, ok bool) {
	for i := range b.headers {
		if _, value := cutScheme(b.value(i)[0]); value == v {
			return value, true
		}
	}
	return "", false
}

// parts are the grant's secrets, but for those that the binding has anyway.
func (b base) parts(g Grant, in *Binding) []string {
	var out []string
	add := func(v string) {
		if _, ok := in.carried(v); v != "" && !ok {
			out = append(out, v)
		}
	}
	add(g.AccessToken.Reveal())
	for i := range b.provider.CredFields {
		if f := &b.provider.CredFields[i]; f.Secret {
			add(g.Fields[f.Name].Reveal())
		}
	}
	return out
}
