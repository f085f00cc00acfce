package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

// What a request in the corpus may lead to.
const (
	refused = "refused" // 400 or 501 (505: a version that isn't spoken), and the connection ends
	either  = "either"  // refused, or sent on with nothing hidden in it
)

// The smuggling corpus: requests whose end, or whose parts, two servers could
// understand in two ways. Each is made of a rule of RFC 9112 (the number is its
// section) or RFC 9110. "\n" is CR LF; ␊ is LF and ␍ is CR, alone.
func smuggling() map[string]struct{ request, outcome string } {
	const hidden = "GET /proxy/hidden?CASE HTTP/1.1\nHost: localhost\n\n"
	post := func(headers, body string) string {
		return "POST /proxy/x?CASE HTTP/1.1\n" + named + headers + "\n" + body
	}
	get := func(line string) string { return line + "\n" + named + "\n" }
	chunked := func(body string) string { return post("Transfer-Encoding: chunked\n", body) }
	coded := func(value string) string {
		return post("Transfer-Encoding: "+value+"\n", "5\nhello\n0\n\n")
	}
	length := func(value string) string { return post("Content-Length: "+value+"\n", "hello"+hidden) }
	return map[string]struct{ request, outcome string }{
		// Sent on as they are, or with what is ambiguous taken out. "=" is before the
		// body that the provider gets.
		"good":                         {post("Content-Length: 5\n", "hello"), "=hello"},
		"good, chunked":                {chunked("5\nhello\n0\n\n"), "=hello"},
		"6.3 length and chunked":       {post("Content-Length: 5\nTransfer-Encoding: chunked\n", "0\n\n"+hidden), "="},
		"6.3 chunked and length":       {post("Transfer-Encoding: chunked\nContent-Length: 50\n", "0\n\n"+hidden), "="},
		"6.3 the same length twice":    {post("Content-Length: 5\nContent-Length: 5\n", "hello"), either},
		"6.3 the same length in one":   {post("Content-Length: 5, 5\n", "hello"), either},
		"6.1 coding in capitals":       {coded("CHUNKED"), "=hello"},
		"5.2 folded coding":            {post("Transfer-Encoding:\n chunked\n", "0\n\n"+hidden), "="},
		"5.2 folded away":              {post("X-A: b\n Transfer-Encoding: chunked\nContent-Length: 5\n", "hello"), "=hello"},
		"7.1.1 extension":              {chunked("5;a=b;c\nhello\n0;d\n\n"), "=hello"},
		"7.1 leading zeros":            {chunked("005\nhello\n0\n\n"), "=hello"},
		"7.1.2 length in a trailer":    {post("Transfer-Encoding: chunked\nTrailer: Content-Length\n", "5\nhello\n0\nContent-Length: 50\n\n"), either},
		"7.1.2 coding in a trailer":    {chunked("5\nhello\n0\nTransfer-Encoding: chunked\n\n"), either},
		"7.1.2 host in a trailer":      {chunked("5\nhello\n0\nHost: evil.example\n\n"), either},
		"7.8 upgrade of the protocol":  {post("Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\nContent-Length: 0\n", ""), "="},
		"9.1 connection names length":  {post("Connection: Content-Length\nContent-Length: 5\n", "hello"), "=hello"},
		"9.1 connection names coding":  {post("Connection: Transfer-Encoding\nTransfer-Encoding: chunked\n", "5\nhello\n0\n\n"), "=hello"},
		"9.1 connection names host":    {post("Connection: Host\nContent-Length: 5\n", "hello"), "=hello"},
		"9110 10.1.1 expects":          {post("Expect: 100-continue\nContent-Length: 5\n", "hello"), "=hello"},
		"2.2 empty lines before":       {"\n\n" + post("Content-Length: 5\n", "hello"), either},
		"9.3 a GET with a body":        {"GET /proxy/x?CASE HTTP/1.1\n" + named + "Content-Length: 5\n\nhello", "=hello"},
		"2.2 lines that end with LF":   {"POST /proxy/x?CASE HTTP/1.1␊" + strings.ReplaceAll(named, "\n", "␊") + "Content-Length: 5␊␊hello", either},
		"6.1 chunked to HTTP/1.0":      {"POST /proxy/x?CASE HTTP/1.0\n" + named + "Transfer-Encoding: chunked\n\n0\n\n" + hidden, either},
		"2.2 LF before a header":       {post("X-A: b␊Content-Length: 5\n", "hello"), either},
		"5.1 value with space around":  {post("Content-Length: \t 5 \t\n", "hello"), either},
		"5.1 coding with space around": {post("Transfer-Encoding: \tchunked \n", "5\nhello\n0\n\n"), either},
		"5.1 empty length":             {post("Content-Length: \n", ""), either},
		"6.2 length with zeros":        {post("Content-Length: 0000000005\n", "hello"), either},
		"3.2 a fragment":               {get("GET /proxy/x?CASE#/../hidden HTTP/1.1"), refused},

		"6.3 two lengths":               {post("Content-Length: 5\nContent-Length: 6\n", "hello"+hidden), refused},
		"6.3 two lengths in one":        {length("5, 6"), refused},
		"6.3 three lengths, two alike":  {post("Content-Length: 5\nContent-Length: 6\nContent-Length: 5\n", "hello"+hidden), refused},
		"6.2 length with a sign":        {length("+5"), refused},
		"6.2 length below zero":         {length("-5"), refused},
		"6.2 length in hex":             {length("0x5"), refused},
		"6.2 length with an underscore": {length("1_0"), refused},
		"6.2 length with a fraction":    {length("5.0"), refused},
		"6.2 length beyond 64 bits":     {length("18446744073709551621"), refused},
		"6.2 length with a word":        {length("5 bytes"), refused},
		"6.2 length and a semicolon":    {length("5;"), refused},
		"6.2 length in other digits":    {length("٥"), refused},
		"5.1 space before the colon":    {post("Transfer-Encoding : chunked\n", "0\n\n"+hidden), refused},
		"5.1 tab before the colon":      {post("Content-Length\t: 5\n", "hello"+hidden), refused},
		"5 no colon":                    {post("Transfer-Encoding chunked\nContent-Length: 5\n", "hello"+hidden), refused},
		"5 no name":                     {post(": chunked\nContent-Length: 5\n", "hello"+hidden), refused},
		"5 name with a NUL":             {post("Transfer-Encoding\x00: chunked\nContent-Length: 5\n", "hello"+hidden), refused},
		"5 name with a space":           {post("X Transfer-Encoding: chunked\nContent-Length: 5\n", "hello"+hidden), refused},
		"5.2 fold of the first line":    {"POST /proxy/x?CASE HTTP/1.1\n Transfer-Encoding: chunked\n" + named + "Content-Length: 5\n\nhello" + hidden, refused},
		"5.5 NUL in a value":            {post("X-A: a\x00b\nContent-Length: 0\n", ""), refused},
		"5.5 control in a value":        {post("X-A: a\x0bb\nContent-Length: 0\n", ""), refused},
		"5.5 CR in a value":             {post("X-A: a␍Transfer-Encoding: chunked\nContent-Length: 5\n", "hello"+hidden), refused},
		"6.1 unknown coding":            {coded("xchunked"), refused},
		"6.1 coding with a parameter":   {coded("chunked;a=b"), refused},
		"6.1 coding in quotes":          {coded(`"chunked"`), refused},
		"6.1 coding with a control":     {coded("\x0bchunked"), refused},
		"6.1 two codings":               {coded("gzip, chunked"), refused},
		"6.1 chunked is not last":       {coded("chunked, gzip"), refused},
		"6.1 chunked and identity":      {coded("chunked, identity"), refused},
		"6.1 a comma first":             {coded(", chunked"), refused},
		"6.1 empty coding":              {coded(""), refused},
		"6.1 chunked twice":             {post("Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n", "0\n\n"+hidden), refused},
		"6.1 chunked, then another":     {post("Transfer-Encoding: chunked\nTransfer-Encoding: x\nContent-Length: 5\n", "hello"+hidden), refused},
		"6.1 identity":                  {post("Transfer-Encoding: identity\nContent-Length: 5\n", "hello"+hidden), refused},
		"7.1 no size":                   {chunked("\nhello\n0\n\n" + hidden), refused},
		"7.1 bad size":                  {chunked("5;x\nhello\nzz\n" + hidden), refused},
		"7.1 size with a sign":          {chunked("+5\nhello\n0\n\n"), refused},
		"7.1 size below zero":           {chunked("-5\nhello\n0\n\n"), refused},
		"7.1 size in 0x":                {chunked("0x5\nhello\n0\n\n"), refused},
		"7.1 size beyond 64 bits":       {chunked("10000000000000005\nhello\n0\n\n"), refused},
		"7.1 size is too small":         {chunked("3\nhello\n0\n\n"), refused},
		"7.1 no line end after data":    {chunked("5\nhello0\n\n" + hidden), refused},
		"7.1 line of a size ends so":    {chunked("5␊hello\n0\n\n"), refused},
		"7.1.1 LF in an extension":      {chunked("5;a␊b\nhello\n0\n\n"), refused},
		"7.1.1 CR in an extension":      {chunked("5;a␍b\nhello\n0\n\n"), refused},
		"7.1.1 endless extension":       {chunked("5;" + strings.Repeat("a", 20<<10) + "\nhello\n0\n\n"), refused},
		"3.2 no host":                   {"GET /proxy/x?CASE HTTP/1.1\n" + strings.ReplaceAll(named, "Host: localhost\n", "") + "\n", refused},
		"3.2 two hosts":                 {"GET /proxy/x?CASE HTTP/1.1\nHost: a\n" + named + "\n", refused},
		"3.2 host with a path":          {"GET /proxy/x?CASE HTTP/1.1\n" + strings.ReplaceAll(named, "localhost", "localhost/x") + "\n", refused},
		"3.2 host with an account":      {"GET /proxy/x?CASE HTTP/1.1\n" + strings.ReplaceAll(named, "localhost", "a@b\\c") + "\n", refused},
		"3 two spaces":                  {get("GET  /proxy/x?CASE HTTP/1.1"), refused},
		"3 tabs":                        {get("GET\t/proxy/x?CASE\tHTTP/1.1"), refused},
		"3 space in the target":         {get("GET /proxy/x?CASE /hidden HTTP/1.1"), refused},
		"3 space before the line":       {get(" GET /proxy/x?CASE HTTP/1.1"), refused},
		"3 space at the end":            {get("GET /proxy/x?CASE HTTP/1.1 "), refused},
		"3 CR in the line":              {get("GET /proxy/x?CASE␍ HTTP/1.1"), refused},
		"3.1 method that is no token":   {get("G(T /proxy/x?CASE HTTP/1.1"), refused},
		"2.3 version in small letters":  {get("GET /proxy/x?CASE http/1.1"), refused},
		"2.3 version of two digits":     {get("GET /proxy/x?CASE HTTP/1.10"), refused},
		"2.3 version 2":                 {get("GET /proxy/x?CASE HTTP/2.0"), refused},
		"2.3 no version":                {get("GET /proxy/x?CASE"), refused},
	}
}

// No request can hide another one in it: where one ends must be as clear to
// keycaddy as to the provider (S84).
func TestWireSmuggling(t *testing.T) {
	t.Parallel()
	u, c, _ := startOwn(t, demo.Options{}, "keycaddy")
	var bodies sync.Map // the case's number to the body that came whole
	u.API["/x"] = func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil {
			bodies.Store(r.URL.RawQuery, string(body))
		}
	}
	number := 0
	t.Run("corpus", func(t *testing.T) {
		for name, test := range smuggling() {
			// A call that was broken off may reach the provider after its answer
			// reached us, so each is known by its number.
			number++
			id := fmt.Sprintf("case%03d", number)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				answers := statuses(t, c, strings.ReplaceAll(test.request, "CASE", id))
				calls := 0
				for _, call := range u.calls() {
					if strings.Contains(call, "?"+id) {
						calls++
					}
				}
				body, whole := bodies.Load(id)
				t.Logf("answers %v, the provider saw %d calls", answers, calls)
				if len(answers) == 0 || calls > 1 || len(answers) > 1 && answers[1] == 200 {
					t.Fatalf("answers %v, the provider saw %d calls", answers, calls)
				}
				no := answers[0] == 400 || answers[0] == 501 || answers[0] == 505 && strings.HasPrefix(name, "2.3 version")
				switch {
				case no && len(answers) > 1:
					t.Errorf("refused, and went on: %v", answers)
				case no && whole:
					t.Errorf("refused, but the provider got the body %q", body)
				case test.outcome == either && no, test.outcome == refused && no:
				case test.outcome == refused || answers[0] != 200 || !whole:
					t.Errorf("answers %v, the provider got a body: %t", answers, whole)
				case test.outcome == either && body != "" && body != "hello", test.outcome != either && "="+body.(string) != test.outcome:
					t.Errorf("the provider got the body %q", body)
				}
			})
		}
	})
	for _, call := range u.calls() {
		if strings.Contains(call, "hidden") {
			t.Errorf("the provider saw %q", call)
		}
	}
}

// statuses sends a request, and returns the statuses of what is answered to it.
func statuses(t *testing.T, c *caddy, request string) (answers []int) {
	t.Helper()
	w := dial(t, c)
	// It may be refused before all of it is written.
	_, _ = io.WriteString(w, strings.NewReplacer("\n", "\r\n", "␊", "\n", "␍", "\r").Replace(request))
	_ = w.SetReadDeadline(time.Now().Add(10 * time.Second))
	for range 3 {
		res, err := http.ReadResponse(w.in, nil)
		if err != nil {
			break
		}
		_, _ = io.Copy(io.Discard, res.Body)
		if res.StatusCode != http.StatusContinue {
			answers = append(answers, res.StatusCode)
		}
		if len(answers) == 1 { // another one would be there by now, or soon
			_ = w.SetReadDeadline(time.Now().Add(time.Second))
		}
	}
	return answers
}
