package demo_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keycaddy/keycaddy/connect/demo"
)

func TestMintedFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, demo.Options{})
		mint := func(grace time.Duration) (*demo.Family, demo.Tokens) {
			f, got, err := v.Mint(demo.DefaultClientID, "ada", "read", grace)
			if err != nil {
				t.Fatal(err)
			}
			return f, got
		}
		strict, first := mint(0)
		lenient, other := mint(time.Minute)
		if !v.opens(first.Access) || !v.opens(other.Access) {
			t.Fatal("a minted access token isn't good")
		}
		if n := strict.EndAccess(); n != 1 || v.opens(first.Access) || !v.opens(other.Access) {
			t.Errorf("%d ended, or those of the other family", n)
		}
		second := v.refresh(first.Refresh)
		if second.status != 200 || !v.opens(second.Access) || strict.Stats() != (demo.FamilyStats{Refreshes: 1}) {
			t.Errorf("got %+v, %+v", second, strict.Stats())
		}
		unavailable := func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			w.Write([]byte("{}"))
			return true
		}
		strict.Disturb(unavailable, nil)
		if got := v.refresh(second.Refresh); got.status != 503 || strict.Stats().Refreshes != 1 {
			t.Errorf("disturbed: got %+v", got)
		}
		if got := v.refresh(other.Refresh); got.status != 200 {
			t.Errorf("the other family is disturbed too: %+v", got)
		}
		time.Sleep(time.Second)
		if got := v.refresh(other.Refresh); got.status != 200 || lenient.Stats().Reused != 0 {
			t.Errorf("within its grace: got %+v", got)
		}
		strict.Disturb(nil, nil)
		if got := v.refresh(first.Refresh); got.Error != "invalid_grant" || strict.Stats() != (demo.FamilyStats{Refreshes: 1, Reused: 1, Revoked: true}) {
			t.Errorf("a reuse: got %+v, %+v", got, strict.Stats())
		}
		if lenient.Stats().Revoked {
			t.Error("the other family was revoked with it")
		}
	})
}
