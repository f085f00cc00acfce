package scheme

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/keycaddy/keycaddy/catalog"
)

// Verify asks the provider, with the entry's verify request, whether it takes
// the grant. An entry without one is taken at its word; any of its paths
// succeeding is enough. It returns 0 if the grant was accepted and the
// provider's status if it was refused; the error says why the provider could
// not be asked.
func (b base) Verify(ctx context.Context, g Grant) (refused int, err error) {
	return b.verify(ctx, g, func() (*Binding, error) { return b.Bind(g) })
}

// verify is Verify for schemes that bind in a way of their own.
func (b base) verify(ctx context.Context, g Grant, bind func() (*Binding, error)) (refused int, err error) {
	v := b.provider.Verify
	if v == nil || len(v.Paths) == 0 || v.BodySpecial != "" { // of such a body only the vendor's name is known
		return 0, nil
	}
	binding, err := bind()
	if err != nil {
		return 0, err
	}
	for i := range v.Paths {
		status, ok, e := b.try(ctx, g, binding, i)
		switch {
		case ok:
			return 0, nil
		case e == nil:
			refused = status
		default:
			err = e
		}
	}
	if refused != 0 { // says more than a path that could not be asked
		return refused, nil
	}
	return 0, err
}

// try sends one of the verify requests.
func (b base) try(ctx context.Context, g Grant, binding *Binding, path int) (status int, ok bool, err error) {
	req, err := b.verifyRequest(ctx, g, binding, path)
	if err != nil {
		return 0, false, err
	}
	client, err := b.clientFor(g)
	if err != nil {
		return 0, false, err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, false, unreachable(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return 0, false, unreachable(err)
	}
	if accepts(b.provider.Verify.Expect, res.StatusCode, body) {
		return res.StatusCode, true, nil
	}
	if res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests {
		return 0, false, &TokenError{Class: Transient, Code: fmt.Sprintf("http_%d", res.StatusCode)}
	}
	return res.StatusCode, false, nil
}

func (b base) verifyRequest(ctx context.Context, g Grant, binding *Binding, path int) (*http.Request, error) {
	v := b.provider.Verify
	env := b.env(g, nil)
	root := binding.Base
	if !v.BaseURL.IsZero() {
		var err error
		if root, err = v.BaseURL.Fill(env); err != nil {
			return nil, fmt.Errorf("verify base URL of provider %s: %w", b.provider.ID, err)
		}
	}
	u, err := v.Paths[path].Under(root, env)
	if err != nil {
		return nil, fmt.Errorf("verify path of provider %s: %w", b.provider.ID, err)
	}
	var body []byte
	switch {
	case !v.BodyRaw.IsZero():
		raw, err := v.BodyRaw.Fill(env)
		if err != nil {
			return nil, fmt.Errorf("verify body of provider %s: %w", b.provider.ID, err)
		}
		body = []byte(raw)
	case len(v.Body) > 0:
		filled, err := v.Body.Fill(env)
		if err != nil {
			return nil, fmt.Errorf("verify body of provider %s: %w", b.provider.ID, err)
		}
		if body, err = json.Marshal(filled); err != nil {
			return nil, fmt.Errorf("verify body of provider %s: %w", b.provider.ID, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, v.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("verify request of provider %s: %w", b.provider.ID, err)
	}
	if len(v.Body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	headers, err := v.Headers.Fill(env)
	if err != nil {
		return nil, fmt.Errorf("verify request of provider %s: %w", b.provider.ID, err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	if err := binding.Inject(req); err != nil {
		return nil, err
	}
	// What the entry says goes before what is usual.
	for name, usual := range map[string]string{"Accept": "application/json", "User-Agent": userAgent} {
		if req.Header.Get(name) == "" {
			req.Header.Set(name, usual)
		}
	}
	return req, binding.Sign(req, body, true)
}

// accepts tells whether an answer is what the entry expects; any 2xx if it
// expects nothing in particular.
func accepts(e *catalog.Expect, status int, body []byte) bool {
	good := status >= 200 && status <= 299
	if e == nil {
		return good
	}
	if len(e.Status) > 0 {
		good = slices.Contains(e.Status, status)
	}
	if !good {
		return false
	}
	doc, err := parseDocument(body, asJSON)
	if e.Path != "" && e.Is == "" {
		text, ok := doc.text(e.Path)
		return err == nil && ok && text == fmt.Sprint(e.Equals)
	}
	if e.Is == "array" {
		var list []json.RawMessage
		if e.Path == "" {
			return json.Unmarshal(body, &list) == nil
		}
		_, isList := doc.at(e.Path).([]any)
		return isList
	}
	if len(e.NotContains) == 2 {
		text := string(body)
		if e.NotContains[0] != "$text" {
			text, _ = doc.text(e.NotContains[0])
		}
		return !strings.Contains(text, e.NotContains[1])
	}
	return true
}
