package hashicorp

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/keycaddy/keycaddy/vault"
)

func sealedVault(t *testing.T) (*server, *Vault) {
	t.Helper()
	s := startServer(t)
	c := s.config()
	c.TransitKey = "keycaddy"
	return s, open(t, c)
}

// text is what rests in KV, and put replaces it as somebody could who has KV.
func (s *server) text(t *testing.T, name string) string {
	t.Helper()
	got := s.do(t, "GET", "secret/data/keycaddy/"+name, nil)
	return got["data"].(map[string]any)["data"].(map[string]any)["value"].(string)
}

func (s *server) put(t *testing.T, name, text string) {
	t.Helper()
	s.do(t, "POST", "secret/data/keycaddy/"+name, map[string]any{"data": map[string]string{"value": text}})
}

func TestS54DumpOfKVHasNoUsableSecret(t *testing.T) {
	s, v := sealedVault(t)
	const token = "gho_16C7e42F292c6912E7710c838347Ae178B4a"
	mustWrite(t, v, "connections/github/a", token, 0)
	mustWrite(t, v, "connections/github/a", token+"2", 1)
	reader := s.policy(t, "reader", `path "secret/*" { capabilities = ["read", "list"] }`)
	for _, path := range []string{"data/keycaddy/connections/github/a", "data/keycaddy/connections/github/a?version=1", "metadata/keycaddy/connections/github/a"} {
		status, got := s.as(t, reader, "GET", "secret/"+path, nil)
		if status != 200 {
			t.Fatalf("%s: %d %v", path, status, got)
		}
		dump, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{token, base64.StdEncoding.EncodeToString([]byte(token))[:40]} {
			if strings.Contains(string(dump), secret) {
				t.Errorf("%s shows the secret: %s", path, dump)
			}
		}
	}
	if !strings.HasPrefix(s.text(t, "connections/github/a"), "vault:v1:") {
		t.Error("what rests in KV is no ciphertext of Transit")
	}
	if status, _ := s.as(t, reader, "POST", "transit/decrypt/keycaddy", map[string]string{"ciphertext": s.text(t, "connections/github/a")}); status != 403 {
		t.Errorf("who may read KV may decrypt, too: %d", status)
	}
}

func TestS54SwappedCiphertextsAreRefused(t *testing.T) {
	s, v := sealedVault(t)
	mustWrite(t, v, "connections/github/a", "token of a", 0)
	mustWrite(t, v, "connections/github/b", "token of b", 0)
	mustWrite(t, v, "connections/github/b", "newer token of b", 1)
	a, b := s.text(t, "connections/github/a"), s.text(t, "connections/github/b")
	s.put(t, "connections/github/a", b) // version 2, as b's is
	s.put(t, "connections/github/b", a)
	expectCorrupt(t, v, "connections/github/a", "another name, version or key")
	expectCorrupt(t, v, "connections/github/b", "another name, version or key")
	s.put(t, "connections/github/b", b) // its own, but a former one
	expectCorrupt(t, v, "connections/github/b", "another name, version or key")
	s.put(t, "connections/github/b", "dG9rZW4gb2YgYg==")
	expectCorrupt(t, v, "connections/github/b", "it is not sealed")
	s.put(t, "connections/github/b", a[:len(a)-8]+"AAAAAAA=")
	expectCorrupt(t, v, "connections/github/b", "it was changed")
	s.put(t, "connections/github/b", "vault:v1:")
	expectCorrupt(t, v, "connections/github/b", "it was changed")
	// Not healed by anything but a user who connects again.
	expectConflict(t, v, "connections/github/b", 0)
	mustWrite(t, v, "connections/github/b", "again", 7)
	expectValue(t, v, "connections/github/b", "again", 8)
}

func TestS55TransitKeyIsRotated(t *testing.T) {
	s, v := sealedVault(t)
	mustWrite(t, v, "old", "old value", 0)
	mustWrite(t, v, "both", "first", 0)
	s.do(t, "POST", "transit/keys/keycaddy/rotate", nil)
	expectValue(t, v, "old", "old value", 1)
	mustWrite(t, v, "both", "second", 1)
	if text := s.text(t, "both"); keyVersion(text) != "2" {
		t.Errorf("after the rotation a write is sealed with version %s", keyVersion(text))
	}
	for name, want := range map[string]bool{"old": true, "both": false} {
		if done, err := v.Rewrap(t.Context(), name); err != nil || done != want {
			t.Errorf("Rewrap %s: %v, %v; want %v", name, done, err, want)
		}
	}
	mustWrite(t, v, "forgotten", "x", 0)
	s.do(t, "POST", "transit/keys/keycaddy/rotate", nil)
	if done, err := v.Rewrap(t.Context(), "old"); err != nil || !done {
		t.Errorf("Rewrap again: %v, %v", done, err)
	}
	s.do(t, "POST", "transit/keys/keycaddy/config", map[string]int{"min_decryption_version": 3})
	expectValue(t, v, "old", "old value", 3)
	expectCorrupt(t, v, "forgotten", "version 2 of the Transit key has been retired")
	// The drill went wrong: the key's old version is brought back.
	s.do(t, "POST", "transit/keys/keycaddy/config", map[string]int{"min_decryption_version": 1})
	expectValue(t, v, "forgotten", "x", 1)
	if _, err := v.Rewrap(t.Context(), "nothing"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("Rewrap of nothing: %v", err)
	}
}

func TestS54OtherKeyOpensNothing(t *testing.T) {
	s, v := sealedVault(t)
	mustWrite(t, v, "a", "token", 0)
	s.do(t, "POST", "transit/keys/other", nil)
	c := s.config()
	c.TransitKey = "other"
	expectCorrupt(t, open(t, c), "a", "another name, version or key")
	c.TransitKey = ""
	expectCorrupt(t, open(t, c), "a", "no Transit key is configured")
	// A key that isn't there is the operator's mistake, not the secret's.
	c.TransitKey = "missing"
	if _, err := open(t, c).Read(t.Context(), "a"); !errors.Is(err, vault.ErrUnavailable) || errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("missing key: got %v, want ErrUnavailable", err)
	}
}

func TestPlaceIsDifferentForDifferentNamesAndVersions(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range []string{"a", "a/b", "aa", "a\x00", "a\x00\x00\x00\x00\x00\x00\x00\x01"} {
		for _, version := range []vault.Version{1, 2, 1 << 8, 1 << 56} {
			seen[string(place(name, version))] = true
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d different places, want 20", len(seen))
	}
}
