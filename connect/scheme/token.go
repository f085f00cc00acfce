package scheme

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect/egress"
)

const (
	maxAnswer     = 1 << 20 // bytes of a token endpoint's answer
	maxRetryAfter = time.Hour
)

// tokenCall is one request to a token endpoint. golang.org/x/oauth2 makes the
// request that the RFC asks for; as its transport, a tokenCall turns that into
// what the provider's entry asks for, and the answer back into the standard's.
type tokenCall struct {
	provider *catalog.Provider
	client   *http.Client
	params   map[string]any // added to the standard's parameters
	headers  map[string]string
	body     string // form, json, query; empty: form

	sent   []string // what was sent that may be secret
	answer *answer
}

// context is what x/oauth2 takes its transport from.
func (c *tokenCall) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: c})
}

// RoundTrip sends one token request. What comes of sending it is a *TokenError
// if it isn't a token.
func (c *tokenCall) RoundTrip(std *http.Request) (*http.Response, error) {
	req, err := c.translate(std)
	if err != nil {
		return nil, err
	}
	res, err := c.send(std, req)
	var te *TokenError
	if errors.As(err, &te) {
		te.Code, te.Description = c.scrub(te.Code), c.scrub(te.Description)
	}
	return res, err
}

// scrub takes out what was sent: some providers quote it in their errors (S52).
func (c *tokenCall) scrub(s string) string {
	for _, v := range c.sent {
		s = strings.ReplaceAll(s, v, redacted)
	}
	return s
}

func (c *tokenCall) send(std, req *http.Request) (*http.Response, error) {
	res, err := c.client.Do(req)
	if err != nil {
		return nil, unreachable(err)
	}
	defer res.Body.Close()
	received := time.Now()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, unreachable(err)
	}
	if len(body) > maxAnswer {
		return nil, &TokenError{Class: Transient, Code: "too_large", Description: "the provider's answer is larger than 1 MiB"}
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	form := kind == "application/x-www-form-urlencoded" || kind == "text/plain"
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return nil, failure(res, body, form)
	}
	if c.answer, err = parseAnswer(c.provider, body, form, received); err != nil {
		return nil, err
	}
	standard, err := json.Marshal(map[string]string{
		"access_token": c.answer.access, "refresh_token": c.answer.refresh, "token_type": "Bearer",
	})
	if err != nil {
		return nil, fmt.Errorf("encoding token answer: %w", err)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: std,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(bytes.NewReader(standard)),
	}, nil
}

// translate makes the entry's request of the standard one.
func (c *tokenCall) translate(std *http.Request) (*http.Request, error) {
	raw, err := io.ReadAll(std.Body)
	std.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("reading token request: %w", err)
	}
	form, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil, fmt.Errorf("reading token request: %w", err)
	}
	for name, v := range c.params {
		form.Set(name, fmt.Sprint(v))
	}
	c.remember(std, form)
	u := *std.URL
	payload, kind := []byte(form.Encode()), "application/x-www-form-urlencoded"
	switch c.body {
	case "", "form":
	case "query":
		q := u.Query()
		for name := range form {
			q.Set(name, form.Get(name))
		}
		u.RawQuery, payload, kind = q.Encode(), nil, ""
	case "json":
		doc := make(map[string]any, len(form))
		for name := range form {
			doc[name] = form.Get(name)
		}
		for name, v := range c.params {
			doc[name] = v // with its type
		}
		if payload, err = json.Marshal(doc); err != nil {
			return nil, fmt.Errorf("writing token request: %w", err)
		}
		kind = "application/json"
	default:
		return nil, &UnsupportedError{Provider: c.provider.ID, Feature: "a token request with a body in " + c.body}
	}
	req, err := http.NewRequestWithContext(std.Context(), std.Method, u.String(), bytes.NewReader(payload))
	if err != nil {
		return nil, fmt.Errorf("writing token request: %w", err)
	}
	for name, value := range c.headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "keycaddy")
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if auth, ok := std.Header["Authorization"]; ok { // client authentication
		req.Header["Authorization"] = auth
	}
	return req, nil
}

// remember notes what must not come back in an error's text.
func (c *tokenCall) remember(std *http.Request, form url.Values) {
	const least = 6 // what is shorter is no secret, and may be part of any word
	note := func(s string) {
		if len(s) >= least {
			c.sent = append(c.sent, s)
		}
	}
	for name := range form {
		switch name {
		case "grant_type", "client_id", "redirect_uri", "scope":
		default:
			note(form.Get(name))
		}
	}
	if _, password, ok := std.BasicAuth(); ok {
		note(password)
		if plain, err := url.QueryUnescape(password); err == nil {
			note(plain)
		}
	}
}

// failure reads an answer that isn't a success.
func failure(res *http.Response, body []byte, form bool) error {
	te := &TokenError{Class: Transient, Code: "http_" + strconv.Itoa(res.StatusCode), RetryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now())}
	if res.StatusCode >= 300 && res.StatusCode <= 399 {
		te.Code, te.Description = "redirect", "the token endpoint answered with a redirect, which is never followed with credentials"
		return te
	}
	if res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusRequestTimeout {
		return te
	}
	if doc, err := parseDocument(body, form); err == nil {
		var refused *TokenError
		if errors.As(refusal(doc, res.StatusCode), &refused) {
			refused.RetryAfter = te.RetryAfter
			return refused
		}
	}
	return te
}

// retryAfter reads the header of RFC 9110 section 10.2.3: seconds or a date.
func retryAfter(s string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.Atoi(strings.TrimSpace(s)); err == nil || errors.Is(err, strconv.ErrRange) {
		d = time.Duration(max(0, min(n, int(maxRetryAfter/time.Second)))) * time.Second
	} else if t, err := http.ParseTime(s); err == nil {
		d = t.Sub(now)
	}
	return max(0, min(d, maxRetryAfter))
}

// unreachable says what kept a request from being answered. The URL, which
// may hold secrets, is not part of it.
func unreachable(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	te := &TokenError{Class: Transient, Code: "unreachable", err: err}
	var ne net.Error
	switch {
	case errors.Is(err, egress.ErrRefused):
		te.Class, te.Code = Misconfigured, "refused_address"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		te.Code = "timeout"
	}
	return te
}

// tokenError finds the typed error in what x/oauth2 returns. What it says
// besides may hold the provider's answer, and is dropped.
func tokenError(err error) error {
	var te *TokenError
	var unsupported *UnsupportedError
	switch {
	case errors.As(err, &te):
		return te
	case errors.As(err, &unsupported):
		return unsupported
	}
	return &TokenError{Class: Transient, Code: "unusable_answer"}
}
