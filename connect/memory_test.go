package connect_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault"
)

// rows answers reads as a store does, with strings of their own each time, and
// without one: what is measured is what the refresher keeps of them.
type rows struct {
	connect.Store
	regional bool      // each connection has a region, which its id begins with
	read     *sync.Map // id → *atomic.Int64; nil: it isn't counted
}

func (r rows) Connection(_ context.Context, id connect.ID) (connect.Connection, error) {
	if r.read != nil {
		n, _ := r.read.LoadOrStore(id, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	}
	now := time.Now()
	var config map[string]string
	if r.regional {
		config = map[string]string{"region": id.Connection[:2]}
	}
	return connect.Connection{
		ID:  connect.ID{Integration: string([]byte(id.Integration)), Connection: string([]byte(id.Connection))},
		UID: fmt.Sprintf("%032s", id.Connection[24:]), Provider: string([]byte("many")), Status: connect.Status([]byte("active")),
		Config: config, Version: 1, Expires: now.Add(24 * time.Hour), Due: now.Add(96 * time.Hour), Created: now, Updated: now,
	}, nil
}

type secrets struct{ vault.Vault }

func (secrets) Read(_ context.Context, name string) (vault.Entry, error) {
	now := time.Now()
	cred := scheme.Credential{
		Version: 1, Consent: "0123456789abcdef", Issued: now, Expires: now.Add(24 * time.Hour),
		AccessToken: scheme.Secret("at_" + name), RefreshToken: scheme.Secret("rt_" + name),
	}
	value, err := cred.Encode()
	return vault.Entry{Value: value, Version: 1}, err
}

func manyRefresher(t testing.TB, base string) *connect.Refresher {
	t.Helper()
	r := &connect.Refresher{Store: rows{regional: strings.Contains(base, "{conn.region}")}, Vault: secrets{}, Logger: zap.NewNop()}
	r.Configure(manySetup(t, base))
	return r
}

func manySetup(t testing.TB, base string) *connect.Setup {
	t.Helper()
	p, err := catalog.Parse("many.yaml", []byte(`
id: many
display_name: Many
vendor: vendor
vendor_domain: vendor.example
categories: [test]
auth_scheme: oauth2_code
conn_fields: [{name: region, help: The region of the account., required: true, regex: '^[a-z]+$'}]
authorize: {url: 'https://vendor.example/authorize', pkce: true}
token: {url: 'https://vendor.example/token'}
request: {base_url: '`+base+`', headers: {authorization: 'Bearer {token.access_token}'}}
`))
	must(t, err)
	setup, err := connect.NewSetup(nil, &url.URL{Scheme: "https", Host: "connect.example"}, http.DefaultClient,
		[]*connect.Integration{{Key: "many", DisplayName: "Many", Provider: p, App: scheme.App{ClientID: "id", ClientSecret: "secret"}}})
	must(t, err)
	return setup
}

func nth(region string, i int) connect.ID {
	return connect.ID{Integration: "many", Connection: fmt.Sprintf("%s2b9c1e-0000-4000-8000-%012d", region, i)}
}

func TestConnectionsShareTheirIntegrationsBase(t *testing.T) {
	const fixed = "https://api.vendor.example"
	bases := func(r *connect.Refresher) (a, b *url.URL) {
		t.Helper()
		x, err := r.Current(t.Context(), nth("eu", 1))
		must(t, err)
		y, err := r.Current(t.Context(), nth("us", 2))
		must(t, err)
		return x.Base, y.Base
	}
	if a, b := bases(manyRefresher(t, fixed)); a != b || a.String() != fixed {
		t.Errorf("two copies of a base that is the same: %s, %s", a, b)
	}
	a, b := bases(manyRefresher(t, "https://{conn.region}.vendor.example"))
	if a.Host != "eu.vendor.example" || b.Host != "us.vendor.example" {
		t.Errorf("connections of different regions go to %s and %s", a, b)
	}
}

// Those that are called stay in memory, others make room; and whoever was let go
// of is read again.
func TestMemoryIsBounded(t *testing.T) {
	r := manyRefresher(t, "https://api.vendor.example")
	var read sync.Map
	r.Store = rows{read: &read}
	setup := manySetup(t, "https://api.vendor.example")
	setup.InMemory = 10
	r.Configure(setup)
	call := func(i int) {
		t.Helper()
		b, err := r.Current(t.Context(), nth("eu", i))
		must(t, err)
		if b.ID != nth("eu", i) {
			t.Errorf("got %s for %s", b.ID, nth("eu", i))
		}
	}
	reads := func(i int) int64 {
		n, _ := read.Load(nth("eu", i))
		return n.(*atomic.Int64).Load()
	}
	for i := range 200 {
		call(i)
		call(0)
		call(1)
	}
	if reads(0) != 1 || reads(1) != 1 {
		t.Errorf("those that are called all the time were read %d and %d times", reads(0), reads(1))
	}
	again := 0
	for i := range 200 {
		call(i)
		if reads(i) > 1 {
			again++
		}
	}
	if again < 180 {
		t.Errorf("%d of 200 were read again, with room for 10", again)
	}

	setup = manySetup(t, "https://api.vendor.example")
	setup.InMemory = 3 // less than there are in memory
	r.Configure(setup)
	var calls sync.WaitGroup
	for w := range 16 {
		calls.Go(func() {
			for i := range 300 {
				call((i*7 + w) % 50)
			}
		})
	}
	calls.Wait()
}

// BenchmarkHeld measures the memory that a connection takes once it was used,
// and how long one core is busy with it in each collection of garbage.
// It needs no database: go test ./connect -run '^$' -bench Held -benchtime 1000000x
func BenchmarkHeld(b *testing.B) {
	r := manyRefresher(b, "https://api.vendor.example")
	bytes, objects := heapInUse()
	b.ResetTimer()
	for i := range b.N {
		if _, err := r.Current(b.Context(), nth("eu", i)); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	bytesAfter, objectsAfter := heapInUse()
	b.ReportMetric(float64(bytesAfter-bytes)/float64(b.N), "B/connection")
	b.ReportMetric(float64(objectsAfter-objects)/float64(b.N), "objects/connection")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	began := time.Now()
	runtime.GC()
	b.ReportMetric(float64(time.Since(began))/float64(b.N), "gc-ns/connection")
	runtime.KeepAlive(r)
}

func heapInUse() (bytes, objects uint64) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, m.HeapObjects
}
