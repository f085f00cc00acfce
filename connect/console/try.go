package console

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	tryTimeout = 30 * time.Second
	tryShown   = 64 << 10 // bytes of an answer
)

type tryBody struct {
	Integration, Connection  string
	Method, Path, Body, Type string
	Methods                  []string
	Explained                *explained
	Answer                   *tried
	Wrong                    *Refusal
}

// tried is what came of a call.
type tried struct {
	Status  int
	Text    string
	Headers []header
	Body    string
	Cut     bool
	Took    time.Duration
	Own     string // the code, if it is keycaddy's own answer
}

type header struct{ Name, Value string }

func showTry(v *visit) error {
	in := v.r.URL.Query()
	return v.tryPage(tryBody{Integration: in.Get("integration"), Connection: in.Get("id"), Method: http.MethodGet, Path: "/"})
}

func (v *visit) tryPage(b tryBody) error {
	b.Methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
	return v.show("try", "Try a call", b)
}

// try explains a call, and makes it if that is wanted.
func try(v *visit) error {
	b := tryBody{
		Integration: v.entered("integration"), Connection: v.entered("id"), Method: strings.ToUpper(v.entered("method")), Path: v.entered("path"),
		Body: v.r.PostFormValue("body"), Type: v.entered("type"), Explained: new(explained),
	}
	if !strings.HasPrefix(b.Path, "/") {
		b.Path = "/" + b.Path
	}
	request := map[string]string{"provider_config_key": b.Integration, "connection_id": b.Connection, "method": b.Method, "path": b.Path}
	if err := v.call(http.MethodPost, "/explain", request, b.Explained); err != nil {
		refused, err := wrong(err)
		if err != nil {
			return err
		}
		b.Explained, b.Wrong = nil, refused
		return v.tryPage(b)
	}
	if v.entered("action") == "send" && b.Explained.Allowed {
		b.Answer = v.send(&b)
	}
	return v.tryPage(b)
}

// send makes the call through the proxy, as who is signed in.
func (v *visit) send(b *tryBody) *tried {
	ctx, cancel := context.WithTimeout(v.r.Context(), tryTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, b.Method, b.Path, strings.NewReader(b.Body))
	if err != nil {
		return &tried{Status: http.StatusBadRequest, Text: "The path can't be read."}
	}
	r.RequestURI, r.Host, r.RemoteAddr = b.Path, v.r.Host, v.r.RemoteAddr
	r.Header.Set("Provider-Config-Key", b.Integration)
	r.Header.Set("Connection-Id", b.Connection)
	r.Header.Set("User-Agent", "keycaddy console")
	if b.Body != "" {
		r.Header.Set("Content-Type", b.Type)
	}
	w := &beginning{answer: answer{status: http.StatusOK, header: http.Header{}}}
	began := time.Now()
	v.Proxy(w, r)
	out := &tried{Status: w.status, Text: http.StatusText(w.status), Took: time.Since(began), Own: w.Header().Get("Keycaddy-Error"), Cut: w.cut}
	for name, values := range w.Header() {
		out.Headers = append(out.Headers, header{name, strings.Join(values, ", ")})
	}
	slices.SortFunc(out.Headers, func(a, b header) int { return strings.Compare(a.Name, b.Name) })
	out.Body = w.body.String()
	if !utf8.ValidString(out.Body) {
		out.Body = "(binary)"
	}
	return out
}

// beginning keeps the beginning of an answer.
type beginning struct {
	answer
	cut bool
}

func (b *beginning) Write(p []byte) (int, error) {
	n := len(p)
	if room := tryShown - b.body.Len(); n > room {
		p, b.cut = p[:max(room, 0)], true
	}
	_, err := b.answer.Write(p)
	return n, err
}
