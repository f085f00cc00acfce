package hashicorp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/vault"
)

const everything = `path "secret/*" { capabilities = ["create", "read", "update", "delete"] }`

func TestS113TokenIsRenewedAtTwoThirds(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startServer(t)
	f := startFront(t, s, false)
	s.policy(t, "all", everything)
	c := s.config()
	c.Address = f.URL
	c.Login = Token{Value: Secret(s.newToken(t, map[string]any{"policies": []string{"all"}, "period": "4s"}))}
	v := open(t, c)
	mustWrite(t, v, "a", "one", 0)
	time.Sleep(9 * time.Second) // with no call: a token has to live through a quiet night
	expectValue(t, v, "a", "one", 1)
	if n := f.calls("PUT auth/token/renew-self"); n < 2 || n > 5 {
		t.Errorf("renewed %d times in 9 s of a 4 s lease", n)
	}
	if n := f.calls("GET auth/token/lookup-self"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	v.Close()
	time.Sleep(500 * time.Millisecond)
	n := f.calls("PUT auth/token/renew-self")
	time.Sleep(3 * time.Second)
	if more := f.calls("PUT auth/token/renew-self") - n; more > 0 {
		t.Errorf("renewed %d times after Close", more)
	}
}

func TestS113AppRoleLogsInAgainBeforeTheMaxTTL(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startServer(t)
	f := startFront(t, s, false)
	s.policy(t, "all", everything)
	c := s.config()
	c.Address = f.URL
	for name, options := range map[string]map[string]any{
		"renewable":     {"token_policies": "all", "token_ttl": "2s", "token_max_ttl": "4s"},
		"not renewable": {"token_policies": "all", "token_ttl": "3s", "token_type": "batch"},
	} {
		c.Login = s.role(t, strings.ReplaceAll(name, " ", "-"), options)
		v := open(t, c)
		before, began := f.calls("PUT auth/approle/login"), time.Now()
		logins := 0
		for ; logins < 3; logins = f.calls("PUT auth/approle/login") - before {
			if time.Since(began) > time.Minute {
				t.Fatalf("%s: %d logins in a minute", name, logins)
			}
			if _, err := v.Read(t.Context(), "nothing"); !errors.Is(err, vault.ErrNotFound) {
				t.Fatalf("%s: %v", name, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if took := time.Since(began); took < 9*time.Second*3/8 { // no more than 8 in 9 s
			t.Errorf("%s: %d logins in %v", name, logins, took)
		}
		v.Close()
	}
}

// Everybody comes at once with a token that has just been revoked: one of them
// logs in, and no call fails.
func TestS113RevokedTokenCostsOneLogin(t *testing.T) {
	s := startServer(t)
	f := startFront(t, s, false)
	s.policy(t, "all", everything)
	c := s.config()
	c.Address, c.Login = f.URL, s.role(t, "node", map[string]any{"token_policies": "all", "token_ttl": "1h"})
	v := open(t, c)
	mustWrite(t, v, "a", "one", 0)
	for round := range 3 {
		s.do(t, "PUT", "sys/leases/revoke-prefix/auth/approle", nil)
		var done sync.WaitGroup
		for range 50 {
			done.Go(func() {
				if _, err := v.Read(t.Context(), "a"); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		done.Wait()
	}
	if n := f.calls("PUT auth/approle/login"); n != 4 {
		t.Errorf("%d logins, want 4: the first, and one for each revocation", n)
	}
	if n := f.calls("GET auth/token/lookup-self"); n != 0 {
		t.Errorf("%d looks at a token that Vault has called invalid", n)
	}
}

func TestS113FirstLoginIsMadeOnce(t *testing.T) {
	s := startServer(t)
	f := startFront(t, s, false)
	s.policy(t, "all", everything)
	c := s.config()
	c.Address, c.Login = f.URL, s.role(t, "node", map[string]any{"token_policies": "all", "secret_id_num_uses": 1})
	v := open(t, c)
	var done sync.WaitGroup
	for n := range 50 {
		done.Go(func() {
			if _, err := v.Write(t.Context(), fmt.Sprint("a/", n), []byte("x"), 0); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if n := f.calls("PUT auth/approle/login"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

func TestS113ConsumedSecretIDIsSaidAndANewOneFromTheFileIsTaken(t *testing.T) {
	s := startServer(t)
	f := startFront(t, s, false)
	s.policy(t, "all", everything)
	login := s.role(t, "node", map[string]any{"token_policies": "all", "secret_id_num_uses": 1})
	file := filepath.Join(t.TempDir(), "secret-id")
	write := func(id string) {
		if err := os.WriteFile(file, []byte(id+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(login.SecretID))
	login.SecretID, login.SecretIDFile = "", file
	c := s.config()
	c.Address, c.Login = f.URL, login
	v := open(t, c)
	mustWrite(t, v, "a", "one", 0)
	s.do(t, "PUT", "sys/leases/revoke-prefix/auth/approle", nil)

	var refused *LoginError
	_, err := v.Read(t.Context(), "a")
	if !errors.Is(err, vault.ErrUnavailable) || !errors.As(err, &refused) {
		t.Fatalf("got %v, want a LoginError", err)
	}
	for _, part := range []string{"AppRole login failed", "invalid role or secret ID", "consumed (secret_id_num_uses)", "vault write -f auth/approle/role/"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	before := f.calls("PUT auth/approle/login")
	for range 100 {
		v.Read(t.Context(), "a")
	}
	if n := f.calls("PUT auth/approle/login") - before; n > 2 {
		t.Errorf("a login that fails was tried %d times at once", n)
	}
	write(s.secretID(t, "node"))
	within(t, 10*time.Second, "the new secret id is used", func() bool {
		_, err := v.Read(t.Context(), "a")
		return err == nil
	})
}

func TestS113TokenFileIsReadAgain(t *testing.T) {
	s := startServer(t)
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := s.config()
	c.Login = Token{File: file}
	if _, err := open(t, c).Read(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
	write("")
	if _, err := open(t, c).Read(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("empty file: %v", err)
	}
	first := s.policy(t, "all", everything)
	write(first)
	v := open(t, c)
	mustWrite(t, v, "a", "one", 0)
	s.do(t, "POST", "auth/token/revoke", map[string]string{"token": first})
	write(s.policy(t, "all", everything))
	expectValue(t, v, "a", "one", 1)
	write("hvs.wrong")
	s.do(t, "PUT", "sys/leases/revoke-prefix/auth/token", nil)
	if _, err := v.Read(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "hvs.") {
		t.Errorf("wrong token in the file: %v", err)
	}
}

// A token without policy default can't look at itself.
func TestS113TokenWithoutDefaultPolicy(t *testing.T) {
	s := startServer(t)
	s.policy(t, "all", everything)
	c := s.config()
	c.Login = Token{Value: Secret(s.newToken(t, map[string]any{"policies": []string{"all"}, "no_default_policy": true}))}
	v := open(t, c)
	mustWrite(t, v, "a", "one", 0)
	expectValue(t, v, "a", "one", 1)
}

func TestS113LoginMountMissing(t *testing.T) {
	s := startServer(t)
	c := s.config()
	c.Login = AppRole{RoleID: "x", SecretID: "y", Mount: "elsewhere"}
	expectProbe(t, c, "no auth method is mounted at auth/elsewhere")
	c.Login = AppRole{RoleID: "x", SecretID: "y"}
	expectProbe(t, c, "AppRole login failed", "the role id is wrong")
}

func TestS113KubernetesTokenIsReadAtEachLogin(t *testing.T) {
	s := startServer(t)
	s.policy(t, "all", everything)
	api := startKubernetes(t)
	s.do(t, "POST", "sys/auth/k8s", map[string]string{"type": "kubernetes"})
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	s.do(t, "POST", "auth/k8s/config", map[string]any{
		"kubernetes_host": api.URL, "kubernetes_ca_cert": string(ca), "token_reviewer_jwt": api.token("default", "reviewer"), "disable_local_ca_jwt": true,
	})
	s.do(t, "POST", "auth/k8s/role/keycaddy", map[string]any{
		"bound_service_account_names": "keycaddy", "bound_service_account_namespaces": "default", "token_policies": "all", "token_ttl": "1h",
		"audience": "vault",
	})
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := s.config()
	c.Login = Kubernetes{Role: "keycaddy", TokenFile: file, Mount: "k8s"}
	write(api.token("default", "keycaddy"))
	v := open(t, c)
	if err := v.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Kubernetes has put a new token there, and takes the old one no more.
	write(api.token("default", "keycaddy"))
	api.forget(string(old))
	s.do(t, "PUT", "sys/leases/revoke-prefix/auth/k8s", nil)
	if err := v.Probe(t.Context()); err != nil {
		t.Errorf("after the token was rotated: %v", err)
	}
	write(api.token("default", "somebody-else"))
	expectProbe(t, c, "Kubernetes login failed", "the role is bound to")
	write(api.token("default", "keycaddy"))
	c.Login = Kubernetes{Role: "unknown", TokenFile: file, Mount: "k8s"}
	expectProbe(t, c, "Kubernetes login failed", "Vault knows no role unknown")
	c.Login = Kubernetes{Role: "keycaddy"}
	expectProbe(t, c, "Kubernetes login failed", serviceAccountToken)
}

// kubernetesAPI answers what Vault asks Kubernetes: whose token this is.
type kubernetesAPI struct {
	*httptest.Server
	key *ecdsa.PrivateKey

	mu     sync.Mutex
	tokens map[string]string // user names
}

func startKubernetes(t *testing.T) *kubernetesAPI {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := &kubernetesAPI{key: key, tokens: map[string]string{}}
	k.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct{ Spec struct{ Token string } }
		if r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || json.NewDecoder(r.Body).Decode(&review) != nil {
			http.NotFound(w, r)
			return
		}
		k.mu.Lock()
		user, ok := k.tokens[review.Spec.Token]
		k.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
			"status": map[string]any{"authenticated": ok, "user": map[string]any{"username": user, "uid": "1"}, "audiences": []string{"vault"}},
		})
	}))
	t.Cleanup(k.Close)
	return k
}

// token makes a service account's token, a JWT signed with ES256.
func (k *kubernetesAPI) token(namespace, name string) string {
	user := "system:serviceaccount:" + namespace + ":" + name
	claims, err := json.Marshal(map[string]any{
		"iss": "https://kubernetes.default.svc", "sub": user, "aud": []string{"vault"}, "jti": rand.Text(),
		"iat": time.Now().Unix(), "nbf": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": namespace, "serviceaccount": map[string]string{"name": name, "uid": "1"}},
	})
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, k.key, sum[:])
	if err != nil {
		panic(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	token := signed + "." + encode(signature)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tokens[token] = user
	return token
}

func (k *kubernetesAPI) forget(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.tokens, token)
}
