package hashicorp

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/keycaddy/keycaddy/vault"
)

// sealedBy is how every ciphertext of Transit begins; the key's version and a
// colon follow. Base64 has no colon, so that nothing else begins like that.
const sealedBy = "vault:v"

// seal makes the text that rests in Vault: the value in Base64, or what Transit
// makes of it with the key's newest version.
func (v *Vault) seal(ctx context.Context, name string, value []byte, version vault.Version) (string, error) {
	if v.config.TransitKey == "" {
		return plain(value), nil
	}
	a, err := v.transit(ctx, "encrypt", "plaintext", plain(value), place(name, version))
	if err != nil {
		return "", err
	}
	var body struct{ Data struct{ Ciphertext string } }
	if a.status >= 300 {
		return "", v.transitError(a)
	}
	if json.Unmarshal(a.body, &body) != nil || !strings.HasPrefix(body.Data.Ciphertext, sealedBy) {
		return "", &StatusError{Status: a.status, Reason: "encrypting: no ciphertext in the answer"}
	}
	return body.Data.Ciphertext, nil
}

// open is the opposite of seal. A value that isn't sealed is refused if there
// is a Transit key: else whoever can write to the KV engine could put one there.
func (v *Vault) open(ctx context.Context, name, text string, version vault.Version) ([]byte, error) {
	sealed := strings.HasPrefix(text, sealedBy)
	switch {
	case v.config.TransitKey == "" && sealed:
		return nil, fmt.Errorf("%w: it is sealed with Vault's Transit, and no Transit key is configured", vault.ErrCorrupt)
	case v.config.TransitKey == "":
		value, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("%w: its value is not Base64", vault.ErrCorrupt)
		}
		return value, nil
	case !sealed:
		return nil, fmt.Errorf("%w: it is not sealed, though a Transit key is configured", vault.ErrCorrupt)
	}
	a, err := v.transit(ctx, "decrypt", "ciphertext", text, place(name, version))
	if err != nil {
		return nil, err
	}
	switch {
	case a.says("disallowed by policy"):
		return nil, fmt.Errorf("%w: version %s of the Transit key has been retired (min_decryption_version)", vault.ErrCorrupt, keyVersion(text))
	case a.status == http.StatusBadRequest && !a.says("not found") && !a.says("associated"):
		return nil, fmt.Errorf("%w: it was changed, or belongs to another name, version or key", vault.ErrCorrupt)
	case a.status >= 300:
		return nil, v.transitError(a)
	}
	var body struct{ Data struct{ Plaintext *string } }
	if json.Unmarshal(a.body, &body) != nil || body.Data.Plaintext == nil {
		return nil, &StatusError{Status: a.status, Reason: "decrypting: no plaintext in the answer"}
	}
	value, err := base64.StdEncoding.DecodeString(*body.Data.Plaintext)
	if err != nil {
		return nil, fmt.Errorf("%w: what was sealed is not Base64", vault.ErrCorrupt)
	}
	return value, nil
}

// transit calls the Transit engine. The place goes along twice: as associated
// data, which every key for authenticated encryption binds, and as the context
// that a key with derivation demands.
func (v *Vault) transit(ctx context.Context, verb, field, text string, place []byte) (*answer, error) {
	bound := base64.StdEncoding.EncodeToString(place)
	path := v.config.TransitMount + "/" + verb + "/" + v.config.TransitKey
	a, _, err := v.call(ctx, request{
		method: http.MethodPut, path: path, place: path, capability: "update",
		body: map[string]string{field: text, "associated_data": bound, "context": bound},
	})
	return a, err
}

func (v *Vault) transitError(a *answer) error {
	err := a.err()
	if e, ok := err.(*StatusError); ok && (a.status == http.StatusBadRequest || a.status == http.StatusNotFound) {
		e.Reason = fmt.Sprintf("Transit key %s at %s/ can't be used (make it with `vault write -f %s/keys/%s type=aes256-gcm96`): %s",
			v.config.TransitKey, v.config.TransitMount, v.config.TransitMount, v.config.TransitKey, a.errors())
	}
	return err
}

// place is where a value belongs, for the cipher to bind. (The length keeps
// different names and versions from making the same bytes.)
func place(name string, version vault.Version) []byte {
	const format = "keycaddy hashicorp 1\x00"
	p := make([]byte, 0, len(format)+4+len(name)+8)
	p = append(p, format...)
	p = binary.BigEndian.AppendUint32(p, uint32(len(name)))
	p = append(p, name...)
	return binary.BigEndian.AppendUint64(p, uint64(version))
}

// keyVersion is the version of the Transit key that a text is sealed with.
func keyVersion(text string) string {
	version, _, _ := strings.Cut(strings.TrimPrefix(text, sealedBy), ":")
	return version
}
