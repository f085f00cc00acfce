package hashicorp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/keycaddy/keycaddy/vault"
)

// Probe finds out whether Vault can do what keycaddy will ask of it, and returns
// an error that says what to mend if it can't. It writes, reads and deletes an
// entry of its own, <mount>/<prefix>/probe/<random>, in the ways that
// connections' secrets are; with [Config.ReadOnly] it only reads.
func (v *Vault) Probe(ctx context.Context) error {
	if err := v.probe(ctx); err != nil {
		if v.config.Namespace != "" {
			return fmt.Errorf("vault at %s, namespace %s: %w", v.config.Address, v.config.Namespace, err)
		}
		return fmt.Errorf("vault at %s: %w", v.config.Address, err)
	}
	return nil
}

func (v *Vault) probe(ctx context.Context) error {
	if err := v.checkEngine(ctx); err != nil {
		return v.initialised(ctx, err)
	}
	name := "probe/" + strings.ToLower(rand.Text())
	if v.config.ReadOnly {
		return v.probeReading(ctx, name)
	}
	first, second := []byte("first"), []byte("second")
	version, err := v.Write(ctx, name, first, 0)
	if err != nil {
		return v.mount(err)
	}
	err = func() error {
		if _, err := v.Write(ctx, name, second, version); err != nil {
			return err
		}
		e, err := v.Read(ctx, name)
		if err != nil {
			return err
		}
		if !bytes.Equal(e.Value, second) || e.Version != version+1 {
			return errors.New("reads something else than was written")
		}
		return v.probeSeal(ctx, name)
	}()
	return errors.Join(err, v.Delete(ctx, name))
}

// checkEngine asks what is mounted, as Vault's own command does before it
// touches a KV engine. Any policy on a path in a mount allows that; a refusal
// means that there is none, or no mount.
func (v *Vault) checkEngine(ctx context.Context) error {
	path := "sys/internal/ui/mounts/" + v.config.Mount
	a, _, err := v.call(ctx, request{method: http.MethodGet, path: path, place: path, capability: "read"})
	var refused *PermissionError
	if errors.As(err, &refused) {
		return fmt.Errorf("vault: no secrets engine is mounted at %s/%s, or the policies of keycaddy's token grant nothing in it (it needs %q on %q and more, see docs/vault.md): %w",
			v.config.Mount, v.elsewhere(), "read", v.config.Mount+"/data/"+v.config.Prefix+"/*", vault.ErrUnavailable)
	}
	if err != nil {
		return err
	}
	var body struct {
		Data struct {
			Type    string
			Options struct{ Version string }
		}
	}
	if a.status != http.StatusOK || json.Unmarshal(a.body, &body) != nil {
		return nil // an older Vault; the probe will show
	}
	if body.Data.Type != "kv" && body.Data.Type != "generic" {
		return fmt.Errorf("vault: the engine at %s/ is of type %s, not kv: name another mount: %w", v.config.Mount, body.Data.Type, vault.ErrUnavailable)
	}
	if body.Data.Options.Version != "2" {
		return v.notVersion2(a)
	}
	return nil
}

// initialised says so if Vault isn't: it calls that sealed.
func (v *Vault) initialised(ctx context.Context, err error) error {
	var e *StatusError
	if !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, v.config.Timeout)
	defer cancel()
	a, failed := send(ctx, v.keeper.base, request{method: http.MethodGet, path: "sys/init"}, v.config.Timeout)
	var body struct{ Initialized *bool }
	if failed != nil || json.Unmarshal(a.body, &body) != nil || body.Initialized == nil || *body.Initialized {
		return err
	}
	return (&answer{status: http.StatusNotImplemented}).err()
}

func (v *Vault) probeReading(ctx context.Context, name string) error {
	if _, err := v.Read(ctx, name); err != nil && !errors.Is(err, vault.ErrNotFound) {
		return v.mount(err)
	}
	return v.probeSeal(ctx, name)
}

// probeSeal makes sure that the Transit key binds what it seals to its name.
func (v *Vault) probeSeal(ctx context.Context, name string) error {
	if v.config.TransitKey == "" {
		return nil
	}
	if v.config.ReadOnly {
		// Nothing may be sealed here; what nothing can open shows whether
		// opening is allowed.
		_, err := v.open(ctx, name, sealedBy+"1:"+plain(make([]byte, 64)), 1)
		if errors.Is(err, vault.ErrCorrupt) {
			return nil
		}
		return err
	}
	sealed, err := v.seal(ctx, name, []byte("sealed"), 1)
	if err != nil {
		return err
	}
	if _, err := v.open(ctx, name+"x", sealed, 1); !errors.Is(err, vault.ErrCorrupt) {
		if err != nil {
			return err
		}
		return fmt.Errorf("vault: Transit key %s doesn't bind values to their names: use one of type aes256-gcm96", v.config.TransitKey)
	}
	return nil
}

// mount adds the namespace to an error of a mount that isn't there.
func (v *Vault) mount(err error) error {
	var e *StatusError
	if errors.As(err, &e) && e.Status == http.StatusNotFound {
		return fmt.Errorf("no KV engine at %s/%s: %w", v.config.Mount, v.elsewhere(), err)
	}
	return err
}

func (v *Vault) elsewhere() string {
	if v.config.Namespace == "" {
		return ""
	}
	return " in namespace " + v.config.Namespace + " (is the namespace the right one?)"
}
