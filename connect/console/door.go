package console

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/api"
	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/vault"
)

// SessionTTL is how long an operator stays signed in.
const SessionTTL = 8 * time.Hour

// keyName is where the key rests that sessions are sealed with, so that a
// session of one node is one of all.
const keyName = "console/session-key"

// Doors lets those in who have an API key. Being signed in is a sealed cookie
// that names the key by its digest: it ends with the key.
type Doors struct {
	Keys  *connect.Keyring
	Vault vault.Vault

	mu   sync.Mutex
	aead cipher.AEAD
}

// session is what the cookie says.
type session struct {
	Key   connect.Digest `json:"key"`
	Until time.Time      `json:"until"`
}

// admit returns the request as one of whom its cookie names, or nil if it names
// nobody who may come in.
func (d *Doors) admit(r *http.Request) (*http.Request, string, error) {
	c, err := r.Cookie(cookieName(true))
	if err != nil {
		if c, err = r.Cookie(cookieName(false)); err != nil {
			return nil, "", nil
		}
	}
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return nil, "", nil
	}
	aead, err := d.sealer(r.Context())
	if err != nil {
		return nil, "", err
	}
	plain, err := aead.Open(nil, nil, sealed, []byte(keyName))
	if err != nil {
		return nil, "", nil
	}
	var s session
	if err := json.Unmarshal(plain, &s); err != nil || time.Now().After(s.Until) {
		return nil, "", nil
	}
	caller, err := d.Keys.Known(s.Key, time.Now())
	if err != nil {
		return nil, "", nil
	}
	return api.As(r, caller), caller.Name, nil
}

// sealer reads the key, or makes it if no node has yet. A vault that is away now
// is asked again later.
func (d *Doors) sealer(ctx context.Context) (cipher.AEAD, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.aead != nil {
		return d.aead, nil
	}
	var fresh [32]byte
	_, _ = rand.Read(fresh[:]) // it never fails
	e, err := d.Vault.Read(ctx, keyName)
	if errors.Is(err, vault.ErrNotFound) {
		if _, err = d.Vault.Write(ctx, keyName, fresh[:], 0); err == nil {
			e.Value = fresh[:]
		} else if errors.Is(err, vault.ErrConflict) { // another node was first
			e, err = d.Vault.Read(ctx, keyName)
		}
	}
	if errors.Is(err, vault.ErrUnavailable) {
		return nil, &Refusal{Status: http.StatusServiceUnavailable, Message: "The vault can't be reached, which signing in needs. Try again in a moment."}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the key of the console's sessions: %w", err)
	}
	block, err := aes.NewCipher(e.Value)
	if err != nil {
		return nil, fmt.Errorf("using the key of the console's sessions: %w", err)
	}
	d.aead, err = cipher.NewGCMWithRandomNonce(block)
	return d.aead, err
}

// seal makes a cookie's value of a session.
func (d *Doors) seal(ctx context.Context, s session) (string, error) {
	aead, err := d.sealer(ctx)
	if err != nil {
		return "", err
	}
	plain, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(aead.Seal(nil, nil, plain, []byte(keyName))), nil
}

func cookieName(secure bool) string {
	if secure {
		return "__Host-keycaddy_console"
	}
	return "keycaddy_console"
}

func (c *Console) cookie(value string, age time.Duration) *http.Cookie {
	return &http.Cookie{
		Name: cookieName(c.Secure), Value: value, Path: "/", MaxAge: int(age.Seconds()),
		HttpOnly: true, Secure: c.Secure, SameSite: http.SameSiteStrictMode,
	}
}

type loginBody struct{ Wrong string }

func (c *Console) showLogin(w http.ResponseWriter, r *http.Request) {
	v := &visit{Console: c, w: w, r: r}
	if err := v.show("login", "Sign in", loginBody{}); err != nil {
		c.refuse(v, err)
	}
}

// login takes an API key. What it may is seen on each page; one that is limited
// to some connections or calls can't be used.
func (c *Console) login(w http.ResponseWriter, r *http.Request) {
	v := &visit{Console: c, w: w, r: r}
	key := v.entered("key")
	caller, err := c.Doors.Keys.Check("Bearer "+key, time.Now())
	wrong := ""
	var limits policy.Limits
	if err == nil {
		limits = caller.Rules.Limits()
	}
	switch {
	case err != nil:
		wrong = "That is no API key of this server. Keys are UUIDs, such as the first start has shown, or as you have set in the configuration."
	case limits.Narrow():
		wrong = "That key is limited to some connections or calls, and the console shows all of them."
	}
	if wrong != "" {
		c.Logger.Warn("somebody was not let in to the console", zap.String("remote_addr", r.RemoteAddr))
		if err := c.render(v, http.StatusUnauthorized, "login", "Sign in", loginBody{wrong}); err != nil {
			c.refuse(v, err)
		}
		return
	}
	value, err := c.Doors.seal(r.Context(), session{Key: connect.DigestOf(key), Until: time.Now().Add(SessionTTL)})
	if err != nil {
		c.refuse(v, err)
		return
	}
	c.Logger.Info("an operator has come in to the console", zap.String("caller", caller.Name), zap.String("remote_addr", r.RemoteAddr))
	http.SetCookie(w, c.cookie(value, SessionTTL))
	http.Redirect(w, r, c.Path+"/", http.StatusSeeOther)
}

func (c *Console) logout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, c.cookie("", -time.Second))
	http.Redirect(w, r, c.Path+"/login", http.StatusSeeOther)
}
