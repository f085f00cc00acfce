package postgres

import (
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// Changes are announced at once, again after the server was away, and not at
// all through a pooler in transaction mode: then asking has to do.
func TestS82ChangesAreAnnounced(t *testing.T) {
	c := ownCluster(t)
	dsn := c.database(t)
	writer, reader := openTest(t, dsn), openTest(t, dsn)
	if err := writer.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	created, err := writer.Create(t.Context(), connect.Connection{ID: connect.ID{Integration: "a", Connection: "b"}, UID: "uid"})
	if err != nil {
		t.Fatal(err)
	}
	heard := reader.Announced(t.Context())
	hears := func(limit time.Duration) bool {
		for end := time.Now().Add(limit); time.Now().Before(end); { // it takes a while to begin to listen
			if _, err := writer.Update(t.Context(), created.ID, func(c *connect.Connection) error { c.Version++; return nil }); err != nil {
				t.Fatal(err)
			}
			select {
			case <-heard:
				return true
			case <-time.After(50 * time.Millisecond):
			}
		}
		return false
	}
	if !hears(10 * time.Second) {
		t.Fatal("nothing was heard")
	}
	time.Sleep(100 * time.Millisecond)
	for len(heard) > 0 {
		<-heard
	}
	began := time.Now()
	if !hears(time.Second) || time.Since(began) > 500*time.Millisecond {
		t.Errorf("heard after %v", time.Since(began))
	}
	if _, err := writer.Delete(t.Context(), created.ID, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-heard:
	case <-time.After(time.Second):
		t.Error("the removal was not heard")
	}
}
