package scheme

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestS73OtherSignsThatATokenHasEnded(t *testing.T) {
	b := bind(t, keyEntry+"request: {base_url: 'BASE', expired_statuses: [419], expired: [{status: 200, path: error, equals: token_expired}, {status: 403, path: error.code, equals: '190'}, {status: 403, header: www-authenticate, contains: expired}]}\n")
	zip := func(s string) string {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		io.WriteString(w, s)
		w.Close()
		return z.String()
	}
	long := `{"error":"token_expired","x":"` + strings.Repeat("a", maxSignal) + `"}`
	tests := map[string]struct {
		status  int
		body    string
		headers []string
		stream  bool
		want    bool
	}{
		"401":                      {401, "", nil, false, true},
		"401 for another scope":    {401, "", []string{"Www-Authenticate", `Bearer error="insufficient_scope"`}, false, false},
		"a status":                 {419, "", nil, false, true},
		"in the body":              {200, `{"ok":false,"error":"token_expired"}`, nil, false, true},
		"in the body, zipped":      {200, zip(`{"ok":false,"error":"token_expired"}`), []string{"Content-Encoding", "gzip"}, false, true},
		"another error":            {200, `{"ok":false,"error":"not_allowed"}`, nil, false, false},
		"not JSON":                 {200, `token_expired`, []string{"Content-Type", "text/plain"}, false, false},
		"too long":                 {200, long, nil, false, false},
		"a stream that is well":    {200, `{"error":"token_expired"}`, nil, true, false},
		"a stream that isn't":      {403, `{"error":{"code":190}}`, nil, true, true},
		"in a header":              {403, "", []string{"Www-Authenticate", "Bearer expired"}, false, true},
		"in a header that is well": {200, "{}", []string{"Www-Authenticate", "Bearer expired"}, false, false},
		"403 for another reason":   {403, `{"error":{"code":10}}`, nil, false, false},
	}
	for name, test := range tests {
		res := &http.Response{StatusCode: test.status, Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}, Body: io.NopCloser(strings.NewReader(test.body)), ContentLength: int64(len(test.body))}
		if test.stream {
			res.ContentLength = -1
		}
		for i := 0; i+1 < len(test.headers); i += 2 {
			res.Header.Set(test.headers[i], test.headers[i+1])
		}
		if got := b.Expired(res); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
		if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != test.body {
			t.Errorf("%s: the body is %d bytes of %d, %v", name, len(rest), len(test.body), err)
		}
	}
	broken := &http.Response{StatusCode: 403, Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: -1, Body: io.NopCloser(io.MultiReader(strings.NewReader(`{"a"`), failing{io.ErrUnexpectedEOF}))}
	if b.Expired(broken) {
		t.Error("a body that is cut")
	}
	if rest, err := io.ReadAll(broken.Body); !errors.Is(err, io.ErrUnexpectedEOF) || string(rest) != `{"a"` {
		t.Errorf("S110: the cut is hidden: %q, %v", rest, err)
	}
}
