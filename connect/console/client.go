package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Refusal is what the API has refused, or the console itself.
type Refusal struct {
	Status  int
	Code    string
	Message string
	Action  string
	// Fields say what is wrong with what was entered.
	Fields []FieldError
}

// FieldError is about one value.
type FieldError struct {
	Path    []string `json:"path"`
	Message string   `json:"message"`
}

func (e *Refusal) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Message) }

// get reads the answer to a GET into out.
func (v *visit) get(path string, query url.Values, out any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return v.call(http.MethodGet, path, nil, out)
}

// call makes a call of the API within this process, as who is signed in.
func (v *visit) call(method, path string, in, out any) error {
	var body io.Reader = http.NoBody
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("calling the API: %w", err)
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(v.r.Context(), method, path, body)
	if err != nil {
		return fmt.Errorf("calling the API: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.RemoteAddr, r.Host = v.r.RemoteAddr, v.r.Host
	a := &answer{status: http.StatusOK, header: http.Header{}}
	v.API.ServeHTTP(a, r)
	if a.status >= http.StatusBadRequest {
		var refused struct {
			Error struct {
				Code, Message, Action string
				Errors                []FieldError
			}
		}
		if err := json.Unmarshal(a.body.Bytes(), &refused); err != nil {
			return fmt.Errorf("reading the API's refusal of %s: %w", path, err)
		}
		e := refused.Error
		return &Refusal{Status: a.status, Code: e.Code, Message: e.Message, Action: e.Action, Fields: e.Errors}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(a.body.Bytes(), out); err != nil {
		return fmt.Errorf("reading the API's answer to %s: %w", path, err)
	}
	return nil
}

// answer keeps what the API writes.
type answer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

// entered returns a form's value without what is pasted along.
func (v *visit) entered(name string) string { return strings.TrimSpace(v.r.PostFormValue(name)) }

// wrong returns what the API has against a form, if err is that; anything else
// isn't for the form's reader.
func wrong(err error) (*Refusal, error) {
	var re *Refusal
	if errors.As(err, &re) && re.Status < http.StatusInternalServerError {
		return re, nil
	}
	return nil, err
}
