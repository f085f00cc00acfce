package egress

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// refused are addresses that nothing may connect to, the first and the last of
// each range among them.
var refused = strings.Fields(`
	0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 127.255.255.255
	168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.0 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1
	192.88.99.1 192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.1
	224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
	:: ::1 ::127.0.0.1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1
	64:ff9b::7f00:1 64:ff9b::169.254.169.254 64:ff9b::8.8.8.8 64:ff9b:1::1 64:ff9b:1:ffff::
	100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:1ff:ffff:: 2001:db8::1 2002:7f00:1:: 2002:a9fe:a9fe::1 3fff::1 5f00::1
	fc00::1 fd00:ec2::254 fdff:ffff::1 fe80::1 fe80::1%eth0 febf::1 fec0::1 ff02::1
	::1%lo fd00::1%0`)

// open are public addresses, those next to a range among them.
var open = strings.Fields(`
	1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 168.63.129.15 168.63.129.17
	169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.88.98.255 192.167.255.255 192.169.0.0
	198.17.255.255 198.20.0.0 223.255.255.255 ::ffff:1.1.1.1
	2001:200::1 2001:4860:4860::8888 2003::1 2606:4700::1111 2a00::1 3ffe::1`)

func TestS91SpecialAddressesAreRefused(t *testing.T) {
	for _, s := range refused {
		for _, plain := range []bool{false, true} {
			if err := (Policy{}).Check(netip.MustParseAddr(s), plain); !errors.Is(err, ErrRefused) {
				t.Errorf("%s is let through: %v", s, err)
			}
		}
		if err := (Policy{}).Control(t.Context(), "tcp", net.JoinHostPort(s, "443"), nil); !errors.Is(err, ErrRefused) {
			t.Errorf("%s is let through by Control: %v", s, err)
		}
	}
	for _, s := range open {
		if err := (Policy{}).Check(netip.MustParseAddr(s), false); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		if err := (Policy{}).Check(netip.MustParseAddr(s), true); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "plain http") {
			t.Errorf("%s by plain http: %v", s, err)
		}
	}
	if err := (Policy{}).Check(netip.Addr{}, false); !errors.Is(err, ErrRefused) {
		t.Errorf("no address: %v", err)
	}
	for _, s := range []string{"", "localhost:443", "example.com:443", "127.0.0.1", "0x7f.1:443", "2130706433:443", "@"} {
		if err := (Policy{}).Control(t.Context(), "tcp", s, nil); !errors.Is(err, ErrRefused) {
			t.Errorf("Control of %q: %v", s, err)
		}
	}
}

func TestAllowListOpensWhatItListsOnly(t *testing.T) {
	p := Policy{Allow: prefixes("10.1.0.0/16", "fd00:1::/32", "127.0.0.1/32", "8.8.8.0/24")}
	for s, want := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "10.2.0.1": false, "fd00:1::5": true, "fd00:1::5%eth0": true, "fd00:2::5": false,
		"127.0.0.1": true, "127.0.0.2": false, "::1": false, "64:ff9b::10.1.2.3": false, "169.254.169.254": false, "8.8.8.8": true,
	} {
		for _, plain := range []bool{false, true} {
			if err := p.Check(netip.MustParseAddr(s), plain); (err == nil) != want {
				t.Errorf("%s, plain %v: %v", s, plain, err)
			}
		}
	}
}

// recorder is a dial function that connects to nothing.
type recorder struct{ dialed []string }

var errDialed = errors.New("dialed")

func (r *recorder) dial(_ context.Context, _, address string) (net.Conn, error) {
	r.dialed = append(r.dialed, address)
	return nil, errDialed
}

func TestS92DialChecksEveryAddressAndDialsTheCheckedOne(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:443": "", "localhost:443": "", "[::1]:443": "", "[::ffff:127.0.0.1]:443": "", "169.254.169.254:443": "",
		"[fe80::1%25lo]:443": "", "1.1.1.1:443": "1.1.1.1:443", "[::ffff:1.1.1.1]:443": "1.1.1.1:443", "[2606:4700::1111]:443": "[2606:4700::1111]:443",
	} {
		var r recorder
		_, err := Policy{}.Dial(r.dial)(t.Context(), "tcp", address)
		switch {
		case want == "" && (err == nil || errors.Is(err, errDialed) || len(r.dialed) > 0):
			t.Errorf("%s: dialed %v, %v", address, r.dialed, err)
		case want != "" && (!errors.Is(err, errDialed) || len(r.dialed) != 1 || r.dialed[0] != want):
			t.Errorf("%s: dialed %v, %v", address, r.dialed, err)
		}
	}
	var r recorder
	if _, err := (Policy{}).Dial(r.dial)(t.Context(), "tcp", "no-port"); err == nil || len(r.dialed) > 0 {
		t.Errorf("without a port: %v", err)
	}
	// Allowed: the name leads to addresses, never to a dial by name.
	p := Policy{Allow: prefixes("127.0.0.0/8", "::1/128")}
	if _, err := p.Dial(r.dial)(t.Context(), "tcp", "localhost:80"); !errors.Is(err, errDialed) {
		t.Errorf("got %v", err)
	}
	for _, s := range r.dialed {
		if _, err := netip.ParseAddrPort(s); err != nil {
			t.Errorf("dialed %q", s)
		}
	}
	// Plain http is known to the dialer by the context alone.
	r.dialed = nil
	rt := Telling(roundTrip(func(req *http.Request) (*http.Response, error) {
		_, err := Policy{}.Dial(r.dial)(req.Context(), "tcp", "1.1.1.1:80")
		return nil, err
	}))
	for target, dialed := range map[string]int{"http://x.example": 0, "https://x.example": 1} {
		r.dialed = nil
		req := httptest.NewRequest("GET", target, nil)
		before := req.Context()
		if _, err := rt.RoundTrip(req); err == nil || len(r.dialed) != dialed || req.Context() != before {
			t.Errorf("%s: dialed %v, %v", target, r.dialed, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestS91ClientNeverConnectsToALocalServer(t *testing.T) {
	var connections atomic.Int32
	count := func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	plain := httptest.NewUnstartedServer(http.NotFoundHandler())
	plain.Config.ConnState = count
	plain.Start()
	defer plain.Close()
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ConnState = count
	tls.StartTLS()
	defer tls.Close()
	t.Setenv("HTTP_PROXY", plain.URL) // which is not used
	t.Setenv("HTTPS_PROXY", plain.URL)
	c := NewClient(Policy{}, time.Second)
	for _, url := range []string{plain.URL, tls.URL, strings.Replace(plain.URL, "127.0.0.1", "localhost", 1), strings.Replace(tls.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1)} {
		res, err := c.Get(url)
		if err == nil {
			res.Body.Close()
		}
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestClientFollowsNoRedirect(t *testing.T) {
	var calls atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer srv.Close()
	c := NewClient(Policy{Allow: prefixes("127.0.0.0/8")}, time.Second)
	res, err := c.Post(srv.URL, "text/plain", strings.NewReader("secret"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusTemporaryRedirect || calls.Load() != 1 {
		t.Errorf("status %d after %d calls", res.StatusCode, calls.Load())
	}
}

func TestClientGivesUp(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer srv.Close()
	c := NewClient(Policy{Allow: prefixes("127.0.0.0/8")}, 100*time.Millisecond)
	began := time.Now()
	if res, err := c.Get(srv.URL); err == nil {
		res.Body.Close()
		t.Error("got an answer")
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("after %v", d)
	}
}

func FuzzCheck(f *testing.F) {
	for _, s := range append(refused, open...) {
		b := netip.MustParseAddr(s).As16()
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		err := (Policy{}).Check(addr, false)
		// What the standard library knows to be special must be refused.
		plain := addr.Unmap()
		if err == nil && (plain.IsPrivate() || plain.IsLoopback() || plain.IsMulticast() || plain.IsLinkLocalUnicast() || plain.IsUnspecified()) {
			t.Errorf("%s is let through", addr)
		}
		if mapped := (Policy{}).Check(netip.AddrFrom16(addr.As16()), false); (mapped == nil) != (err == nil) {
			t.Errorf("%s: %v, mapped %v", addr, err, mapped)
		}
	})
}
