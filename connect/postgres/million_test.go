package postgres

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
	"github.com/keycaddy/keycaddy/vault/sealed"
)

// BenchmarkMillion measures what a million connections cost: how long a start
// takes beside them, and what one of them takes in memory once it was used. The
// number can be less with -benchtime 10000x.
func BenchmarkMillion(b *testing.B) {
	n := b.N
	if n == 1 {
		return // the first round of the benchmark, which finds out how often to run
	}
	c, err := startCluster()
	if err != nil {
		b.Fatal(err)
	}
	dsn := c.database(b)
	start := func() (*Store, time.Duration) {
		began := time.Now()
		s := openTest(b, dsn)
		if err := s.Migrate(b.Context()); err != nil {
			b.Fatal(err)
		}
		if _, _, err := s.APIKeys(b.Context()); err != nil {
			b.Fatal(err)
		}
		if _, _, err := s.Changes(b.Context(), time.Time{}); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Due(b.Context(), 50, time.Minute); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Intents(b.Context(), 100); err != nil {
			b.Fatal(err)
		}
		return s, time.Since(began)
	}
	best := func() time.Duration {
		_, least := start()
		for range 9 {
			_, took := start()
			least = min(least, took)
		}
		return least
	}
	s, _ := start() // which makes the tables
	empty := best()
	keys, err := sealed.OpenKeys(filepath.Join(b.TempDir(), "keys"), true)
	if err != nil {
		b.Fatal(err)
	}
	seed(b, dsn, keys, n)
	full := best()

	r := &connect.Refresher{Store: s, Vault: sealed.New(s, keys), Logger: zap.NewNop()}
	r.Configure(million(b))
	before := heap()
	began := time.Now()
	b.ResetTimer()
	work := make(chan int, 1000)
	done := make(chan error, 8) // fewer than the pool has connections
	for range cap(done) {
		go func() {
			for i := range work {
				if _, err := r.Current(context.Background(), millionth(i)); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for i := range n {
		work <- i
	}
	close(work)
	for range cap(done) {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	took := time.Since(began)
	each := float64(heap()-before) / float64(n)
	b.ReportMetric(each, "B/connection")
	b.ReportMetric(float64(empty.Microseconds())/1000, "ms/start-with-none")
	b.ReportMetric(float64(full.Microseconds())/1000, "ms/start-with-all")
	b.ReportMetric(float64(n)/took.Seconds(), "first-uses/s")
	runtime.KeepAlive(r)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func millionth(i int) connect.ID {
	return connect.ID{Integration: "million", Connection: fmt.Sprintf("5f2b9c1e-0000-4000-8000-%012d", i)}
}

func million(b *testing.B) *connect.Setup {
	p, err := catalog.Parse("million.yaml", []byte(`
id: million
display_name: Million
vendor: vendor
vendor_domain: vendor.example
categories: [test]
auth_scheme: oauth2_code
authorize: {url: 'https://vendor.example/authorize', pkce: true}
token: {url: 'https://vendor.example/token'}
request: {base_url: 'https://api.vendor.example', headers: {authorization: 'Bearer {token.access_token}'}}
`))
	if err != nil {
		b.Fatal(err)
	}
	setup, err := connect.NewSetup(nil, &url.URL{Scheme: "https", Host: "connect.example"}, http.DefaultClient,
		[]*connect.Integration{{Key: "million", DisplayName: "Million", Provider: p, App: scheme.App{ClientID: "id", ClientSecret: "secret"}}})
	if err != nil {
		b.Fatal(err)
	}
	return setup
}

// copied is a table of blobs that keeps them for a COPY.
type copied struct{ rows [][]any }

func (t *copied) ReadBlob(context.Context, string) ([]byte, uint64, bool, error) {
	return nil, 0, false, nil
}

func (t *copied) WriteBlob(_ context.Context, name string, data []byte, after uint64) (bool, error) {
	t.rows = append(t.rows, []any{name, int64(after + 1), data})
	return true, nil
}

func (t *copied) DeleteBlob(context.Context, string) error { return nil }

// seed fills the tables as n connects would have, quickly.
func seed(b *testing.B, dsn string, keys *sealed.Keys, n int) {
	conn := dial(b, dsn)
	now := time.Now()
	for from := 0; from < n; from += 20_000 {
		blobs := new(copied)
		secrets := sealed.New(blobs, keys)
		var rows [][]any
		for i := from; i < min(n, from+20_000); i++ {
			c := connect.Connection{ID: millionth(i), UID: fmt.Sprintf("%032x", i+1)}
			cred := scheme.Credential{
				Version: 1, Consent: "0123456789abcdef", Issued: now, Expires: now.Add(24 * time.Hour),
				AccessToken:  scheme.Secret(fmt.Sprintf("at_%060d", i)),
				RefreshToken: scheme.Secret(fmt.Sprintf("rt_%060d", i)),
			}
			value, err := cred.Encode()
			if err != nil {
				b.Fatal(err)
			}
			if _, err := secrets.Write(b.Context(), c.VaultName(), value, 0); err != nil {
				b.Fatal(err)
			}
			rows = append(rows, []any{
				c.UID, c.Integration, c.Connection, "million", "active", "", c.SearchText(), "", "", int64(1), cred.Expires, now.Add(96 * time.Hour), now, now,
			})
		}
		columns := []string{"uid", "integration", "connection", "provider", "status", "cause", "search", "end_user_id", "organization_id", "version", "expires", "due", "created", "updated"}
		if _, err := conn.CopyFrom(b.Context(), pgx.Identifier{"keycaddy", "connections"}, columns, pgx.CopyFromRows(rows)); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.CopyFrom(b.Context(), pgx.Identifier{"keycaddy", "blobs"}, []string{"name", "version", "data"}, pgx.CopyFromRows(blobs.rows)); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := conn.Exec(b.Context(), "ANALYZE keycaddy.connections, keycaddy.blobs"); err != nil {
		b.Fatal(err)
	}
}
