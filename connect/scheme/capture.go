package scheme

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/keycaddy/keycaddy/catalog"
)

// maxCaptured is the longest value that is taken from a callback.
const maxCaptured = 2 << 10

// captureCallback adds the values that a callback brings to a connection's:
// before the code is redeemed, since the token's address may be made of them.
// What comes through the browser may be anybody's (S27): it has to pass the
// rules of its field, and a field without any may not decide to which host a
// secret is sent. Errors: *CallbackError, *UnsupportedError.
func (b base) captureCallback(config map[string]string, callback url.Values) (map[string]string, error) {
	out := maps.Clone(config)
	if out == nil {
		out = make(map[string]string)
	}
	for field, param := range b.provider.Authorize.CaptureCallbackParams {
		v := strings.TrimSpace(callback.Get(param))
		if v == "" {
			continue
		}
		f, declared := b.provider.Field("conn", field)
		if len(v) > maxCaptured || strings.ContainsFunc(v, unicode.IsControl) || declared && f.Check(v) != nil {
			return nil, &CallbackError{Code: "bad_parameter", Description: clean(param)}
		}
		if (!declared || f.Regexp == nil && len(f.Enum) == 0) && b.decidesHost(field) {
			return nil, &UnsupportedError{Provider: b.provider.ID, Feature: fmt.Sprintf("a rule in its entry (regex or enum) for %s, which comes through the browser and decides where secrets go", field)}
		}
		out[field] = v
	}
	return out, nil
}

// decidesHost tells whether a connection's field decides alone to which host
// requests go.
func (b base) decidesHost(field string) bool {
	return slices.ContainsFunc(b.addresses(), func(u catalog.URL) bool {
		return slices.Contains(u.Hosts(), catalog.Ref{Namespace: "conn", Path: field})
	})
}
