package hashicorp

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"

	"github.com/keycaddy/keycaddy/vault"
)

// Read implements vault.Vault. If the newest version was deleted or destroyed
// by hand, or by the engine's delete_version_after, the error wraps
// vault.ErrCorrupt rather than ErrNotFound: something rests there that can't be
// opened, and `vault kv undelete` may bring it back. (What `vault kv metadata
// delete` removed has left no trace: ErrNotFound.)
func (v *Vault) Read(ctx context.Context, name string) (vault.Entry, error) {
	e, _, err := v.read(ctx, name)
	if err != nil {
		return vault.Entry{}, fmt.Errorf("reading secret: %w", err)
	}
	return e, nil
}

// Write implements vault.Vault. If an answer of Vault got lost, it finds out
// whether the write had its effect.
func (v *Vault) Write(ctx context.Context, name string, value []byte, after vault.Version) (vault.Version, error) {
	version, err := v.write(ctx, name, value, after)
	if err != nil {
		return 0, fmt.Errorf("writing secret: %w", err)
	}
	return version, nil
}

// Delete implements vault.Vault. It removes the entry's metadata and all of its
// versions for good.
func (v *Vault) Delete(ctx context.Context, name string) error {
	if err := v.delete(ctx, name); err != nil {
		return fmt.Errorf("deleting secret: %w", err)
	}
	return nil
}

// Rewrap seals the secret again, as a new version with the same value, if it
// isn't sealed with the Transit key's newest version, and tells whether that
// was needed. Without a Transit key it never is. Like Read and Write it fails
// with ErrNotFound, ErrCorrupt or ErrConflict; after the last the way out is to
// call it again.
func (v *Vault) Rewrap(ctx context.Context, name string) (bool, error) {
	e, was, err := v.read(ctx, name)
	if err != nil || v.config.TransitKey == "" {
		return false, wrapUnlessNil("rewrapping secret", err)
	}
	sealed, err := v.seal(ctx, name, e.Value, e.Version+1)
	if err != nil || keyVersion(sealed) == keyVersion(was) {
		return false, wrapUnlessNil("rewrapping secret", err)
	}
	if _, err := v.put(ctx, name, sealed, e.Version); err != nil {
		return false, fmt.Errorf("rewrapping secret: %w", err)
	}
	return true, nil
}

func wrapUnlessNil(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// newest is the part of KV's answer to a read that matters.
type newest struct {
	Data struct {
		Data     map[string]json.RawMessage
		Metadata *struct {
			Version   vault.Version
			Destroyed bool
		}
	}
}

// read returns the entry, and the text that rests in Vault for it.
func (v *Vault) read(ctx context.Context, name string) (vault.Entry, string, error) {
	if err := vault.CheckName(name); err != nil {
		return vault.Entry{}, "", err
	}
	text, version, err := v.get(ctx, name)
	if err != nil {
		return vault.Entry{}, "", err
	}
	value, err := v.open(ctx, name, text, version)
	if err != nil {
		return vault.Entry{}, "", err
	}
	return vault.Entry{Value: value, Version: version}, text, nil
}

// get returns the text of the newest version.
func (v *Vault) get(ctx context.Context, name string) (string, vault.Version, error) {
	r := v.data(http.MethodGet, name, "read")
	a, _, err := v.call(ctx, r)
	if err != nil {
		return "", 0, err
	}
	var body newest
	switch {
	case a.status == http.StatusBadRequest:
		return "", 0, a.err()
	case a.status == http.StatusNotFound && json.Unmarshal(a.body, &body) == nil && body.Data.Metadata != nil && body.Data.Metadata.Version > 0:
		done := "deleted"
		if body.Data.Metadata.Destroyed {
			done = "destroyed"
		}
		return "", 0, fmt.Errorf("%w: its newest version, %d, was %s in Vault", vault.ErrCorrupt, body.Data.Metadata.Version, done)
	case a.status == http.StatusNotFound:
		return "", 0, vault.ErrNotFound
	case json.Unmarshal(a.body, &body) != nil || body.Data.Metadata == nil:
		return "", 0, v.notVersion2(a)
	}
	var text string
	raw, ok := body.Data.Data["value"]
	if !ok || json.Unmarshal(raw, &text) != nil {
		return "", 0, fmt.Errorf("%w: it has no field %q with a text, so keycaddy has not written it", vault.ErrCorrupt, "value")
	}
	return text, body.Data.Metadata.Version, nil
}

func (v *Vault) write(ctx context.Context, name string, value []byte, after vault.Version) (vault.Version, error) {
	if err := vault.CheckName(name); err != nil {
		return 0, err
	}
	if err := vault.CheckValue(value); err != nil {
		return 0, err
	}
	if v.config.ReadOnly {
		return 0, ErrReadOnly
	}
	if after >= math.MaxInt64 { // nobody has read that one
		return 0, vault.ErrConflict
	}
	text, err := v.seal(ctx, name, value, after+1)
	if err != nil {
		return 0, err
	}
	return v.put(ctx, name, text, after)
}

// put writes the text as version after+1.
func (v *Vault) put(ctx context.Context, name, text string, after vault.Version) (vault.Version, error) {
	capability := "update"
	if after == 0 {
		capability = "create"
	}
	r := v.data(http.MethodPut, name, capability)
	r.body = map[string]any{"options": map[string]any{"cas": after}, "data": map[string]string{"value": text}}
	a, unsure, err := v.call(ctx, r)
	switch {
	case err != nil:
		return 0, err
	case a.status == http.StatusBadRequest && a.says("check-and-set parameter did not match"):
		if unsure && v.holds(ctx, name, text, after+1) {
			return after + 1, nil
		}
		return 0, vault.ErrConflict
	case a.status >= 300:
		return 0, a.err()
	}
	var body struct {
		Data struct{ Version vault.Version }
	}
	if json.Unmarshal(a.body, &body) != nil || body.Data.Version == 0 {
		return 0, v.notVersion2(a)
	}
	if body.Data.Version != after+1 {
		return 0, &StatusError{Status: a.status, Reason: fmt.Sprintf("version %d was written after version %d", body.Data.Version, after)}
	}
	return body.Data.Version, nil
}

// holds tells whether the version holds the text: whether an attempt to write
// it went through of which no good answer came back.
func (v *Vault) holds(ctx context.Context, name, text string, version vault.Version) bool {
	got, newest, err := v.get(ctx, name)
	return err == nil && newest == version && got == text
}

func (v *Vault) delete(ctx context.Context, name string) error {
	if err := vault.CheckName(name); err != nil {
		return err
	}
	if v.config.ReadOnly {
		return ErrReadOnly
	}
	a, _, err := v.call(ctx, v.at("metadata", http.MethodDelete, name, "delete"))
	if err != nil {
		return err
	}
	if a.status >= 300 && a.status != http.StatusNotFound {
		return a.err()
	}
	return nil
}

func (v *Vault) data(method, name, capability string) request {
	return v.at("data", method, name, capability)
}

// at is a request for the part of the KV engine (data or metadata) that belongs
// to the name. Names need no escaping: see vault.CheckName.
func (v *Vault) at(part, method, name, capability string) request {
	base := v.config.Mount + "/" + part + "/" + v.config.Prefix + "/"
	place := base + "*"
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		place = base + name[:i+1] + "*"
	}
	return request{method: method, path: base + name, capability: capability, place: place}
}

// notVersion2 is for answers that an engine of version 2 doesn't give.
func (v *Vault) notVersion2(a *answer) error {
	return &StatusError{Status: a.status, Reason: fmt.Sprintf("the secrets engine at %s/ is no KV engine of version 2, which keeps versions: run `vault kv enable-versioning %s`, or name another mount", v.config.Mount, v.config.Mount)}
}

// plain is the text of a value that isn't sealed.
func plain(value []byte) string { return base64.StdEncoding.EncodeToString(value) }
