package hashicorp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
	"github.com/hashicorp/vault/api/auth/kubernetes"
)

// A Login is a way to get a token: [Token], [AppRole] or [Kubernetes]. What it
// reads from files it reads again at each login.
type Login interface {
	method() string
	check() error
	login(ctx context.Context, client *api.Client, timeout time.Duration) (grant, error)
}

// grant is a token with what is known of it.
type grant struct {
	token     string
	lease     time.Duration // 0: it doesn't end
	renewable bool
}

// Token is a token that somebody else has got. Whoever gives it by value has to
// restart keycaddy when its life is over (Vault's max TTL); best is a periodic
// token, which has no such end. A file may be written anew by Vault Agent.
type Token struct {
	Value Secret
	File  string // instead of Value
}

func (Token) method() string { return "token" }

func (t Token) check() error {
	if (t.Value == "") == (t.File == "") {
		return errors.New("give either a token or a file")
	}
	return nil
}

func (t Token) login(ctx context.Context, client *api.Client, timeout time.Duration) (grant, error) {
	token := string(t.Value)
	if t.File != "" {
		var err error
		if token, err = readSecret(t.method(), t.File); err != nil {
			return grant{}, err
		}
	}
	a, err := send(ctx, withToken(client, token), request{method: http.MethodGet, path: "auth/token/lookup-self"}, timeout)
	if err != nil {
		return grant{}, err
	}
	var body struct {
		Data struct {
			TTL       int64
			Renewable bool
		}
	}
	switch {
	case a.status == http.StatusForbidden && !a.says("invalid token"):
		// The token has no right to look at itself, which policy "default"
		// would give. What it may do will show.
		return grant{token: token}, nil
	case a.status == http.StatusForbidden:
		return grant{}, t.gone()
	case a.status != http.StatusOK:
		return grant{}, a.err()
	case json.Unmarshal(a.body, &body) != nil:
		return grant{}, &StatusError{Status: a.status, Reason: "looking up the token: no answer of Vault's"}
	}
	return grant{token: token, lease: time.Duration(body.Data.TTL) * time.Second, renewable: body.Data.Renewable}, nil
}

func (t Token) gone() error {
	if t.File != "" {
		return &LoginError{Method: t.method(), Reason: "the token in " + t.File + " is unknown, expired or revoked, or of another namespace: write a new one to the file"}
	}
	return &LoginError{Method: t.method(), Reason: "the token is unknown, expired or revoked, or of another namespace: give a new one, best a periodic one"}
}

// AppRole logs in with a role id and a secret id.
type AppRole struct {
	RoleID       string
	SecretID     Secret
	SecretIDFile string // instead of SecretID
	Mount        string // default: approle
}

func (AppRole) method() string { return "AppRole" }

func (l AppRole) check() error {
	if l.RoleID == "" {
		return errors.New("role_id is missing")
	}
	if (l.SecretID == "") == (l.SecretIDFile == "") {
		return errors.New("give either a secret_id or a secret_id_file")
	}
	return nil
}

func (l AppRole) login(ctx context.Context, client *api.Client, timeout time.Duration) (grant, error) {
	id := string(l.SecretID)
	if l.SecretIDFile != "" {
		var err error
		if id, err = readSecret(l.method(), l.SecretIDFile); err != nil {
			return grant{}, err
		}
	}
	mount := cmp.Or(strings.Trim(l.Mount, "/"), "approle")
	auth, err := approle.NewAppRoleAuth(l.RoleID, &approle.SecretID{FromString: id}, approle.WithMountPath(mount))
	if err != nil {
		return grant{}, &LoginError{Method: l.method(), Reason: err.Error()}
	}
	return authenticate(ctx, client, timeout, l, auth, mount,
		"the role id is wrong, or the secret id is: consumed (secret_id_num_uses), expired (secret_id_ttl), destroyed, or bound to other addresses; issue a new one with `vault write -f auth/"+mount+"/role/<role>/secret-id`")
}

// Kubernetes logs in with the token of the pod's service account.
type Kubernetes struct {
	Role      string
	TokenFile string // default: where Kubernetes mounts it
	Mount     string // default: kubernetes
}

const serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

func (Kubernetes) method() string { return "Kubernetes" }

func (l Kubernetes) check() error {
	if l.Role == "" {
		return errors.New("role is missing")
	}
	return nil
}

func (l Kubernetes) login(ctx context.Context, client *api.Client, timeout time.Duration) (grant, error) {
	jwt, err := readSecret(l.method(), cmp.Or(l.TokenFile, serviceAccountToken))
	if err != nil {
		return grant{}, err
	}
	mount := cmp.Or(strings.Trim(l.Mount, "/"), "kubernetes")
	auth, err := kubernetes.NewKubernetesAuth(l.Role, kubernetes.WithServiceAccountToken(jwt), kubernetes.WithMountPath(mount))
	if err != nil {
		return grant{}, &LoginError{Method: l.method(), Reason: err.Error()}
	}
	return authenticate(ctx, client, timeout, l, auth, mount,
		"Vault knows no role "+l.Role+", or the service account, its namespace or its token's audience are not those that the role is bound to")
}

// authenticate logs in. A refusal becomes a LoginError with the advice.
func authenticate(ctx context.Context, client *api.Client, timeout time.Duration, l Login, auth api.AuthMethod, mount, advice string) (grant, error) {
	secret, err := auth.Login(ctx, client)
	a, refused := refusal(err)
	switch {
	case refused:
		switch {
		case a.status == http.StatusForbidden, a.status == http.StatusNotFound:
			// Vault says no more to somebody that it doesn't know.
			return grant{}, &LoginError{Method: l.method(), Reason: fmt.Sprintf("%s (no auth method is mounted at auth/%s, or the namespace is another one, or %s)", a.errors(), mount, advice)}
		case a.status == http.StatusBadRequest, a.status == http.StatusUnauthorized, a.status == http.StatusInternalServerError && a.says("invalid"):
			return grant{}, &LoginError{Method: l.method(), Reason: fmt.Sprintf("%s (%s)", a.errors(), advice)}
		}
		return grant{}, a.err()
	case err != nil:
		return grant{}, failed(err, timeout)
	case secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "":
		return grant{}, &LoginError{Method: l.method(), Reason: "Vault's answer has no token"}
	}
	return grant{
		token:     secret.Auth.ClientToken,
		lease:     time.Duration(secret.Auth.LeaseDuration) * time.Second,
		renewable: secret.Auth.Renewable,
	}, nil
}

// readSecret reads a small file, without the white space around what it holds.
func readSecret(method, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", &LoginError{Method: method, Reason: err.Error()}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", &LoginError{Method: method, Reason: err.Error()}
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", &LoginError{Method: method, Reason: path + " is empty"}
	}
	return secret, nil
}

// withToken is the client with a token. The API client checks its own token
// only, so what HTTP can't send is taken out here.
func withToken(client *api.Client, token string) *api.Client {
	token = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, token)
	return client.WithRequestCallbacks(func(r *api.Request) { r.ClientToken = token })
}
