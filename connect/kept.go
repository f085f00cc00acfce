package connect

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// keptField is where a flow's config holds what its scheme has to keep until
// the callback: OAuth 1's request token, a client that was just registered. No
// field of an entry has a dot in its name.
//
// It is sealed with a key that only the browser can make, as the PKCE verifier
// is: of the state, which goes through the address, and the key in its cookie.
// A store that is read has neither.
const keptField = "keycaddy.kept"

// depart lets the scheme ask the provider what it has to, and keeps the answer
// with the flow.
func (f *Flow) depart(ctx context.Context, d scheme.Departer, state, binding string, defaults SessionDefaults) error {
	kept, err := d.Depart(ctx, schemeFlow(f, state, binding, defaults))
	if err != nil || kept == "" {
		return err
	}
	aead, err := keptAEAD(state, binding)
	if err != nil {
		return err
	}
	sealed := aead.Seal(nil, nil, []byte(kept.Reveal()), []byte(f.ID))
	f.Config = maps.Clone(f.Config)
	if f.Config == nil {
		f.Config = make(map[string]string)
	}
	f.Config[keptField] = base64.StdEncoding.EncodeToString(sealed)
	return nil
}

// kept returns what depart has kept, and the config without it.
func (f *Flow) kept(state, binding string) (scheme.Secret, map[string]string) {
	text, ok := f.Config[keptField]
	if !ok {
		return "", f.Config
	}
	config := maps.Clone(f.Config)
	delete(config, keptField)
	sealed, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", config
	}
	aead, err := keptAEAD(state, binding)
	if err != nil {
		return "", config
	}
	plain, err := aead.Open(nil, nil, sealed, []byte(f.ID))
	if err != nil { // another browser's: the scheme finds nothing
		return "", config
	}
	return scheme.Secret(plain), config
}

func keptAEAD(state, binding string) (cipher.AEAD, error) {
	mac := hmac.New(sha256.New, []byte(binding))
	mac.Write([]byte("kept by a flow\x00" + state))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		return nil, fmt.Errorf("sealing what a flow keeps: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("sealing what a flow keeps: %w", err)
	}
	return aead, nil
}
