package connect

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// keptField is where a flow's config holds what has to be kept until the
// callback and is secret: what the visitor has entered, OAuth 1's request token,
// a client that was just registered. No field of an entry has a dot in its name.
//
// It is sealed with a key that only the browser can make, as the PKCE verifier
// is: of the state, which goes through the address, and the key in its cookie.
// A store that is read has neither.
const keptField = "keycaddy.kept"

// kept is what is sealed.
type kept struct {
	// Scheme is what the scheme's Depart has returned.
	Scheme string `json:"scheme,omitempty"`
	// Fields are the secrets that the visitor has entered.
	Fields map[string]string `json:"fields,omitempty"`
}

// depart lets the scheme ask the provider what it has to, if it is one that
// does, and keeps the answer with the flow, along with the secrets that were
// entered. It returns the flow as the scheme knows it.
func (f *Flow) depart(ctx context.Context, r scheme.Redirector, state, binding string, fields map[string]scheme.Secret, defaults SessionDefaults) (scheme.Flow, error) {
	flow := schemeFlow(f, state, binding, defaults)
	flow.Fields = fields
	if d, ok := r.(scheme.Departer); ok {
		var err error
		if flow.Kept, err = d.Depart(ctx, flow); err != nil {
			return scheme.Flow{}, err
		}
	}
	if flow.Kept == "" && len(fields) == 0 {
		return flow, nil
	}
	k := kept{Scheme: flow.Kept.Reveal(), Fields: make(map[string]string, len(fields))}
	for name, v := range fields {
		k.Fields[name] = v.Reveal()
	}
	plain, err := json.Marshal(k)
	if err != nil {
		return scheme.Flow{}, fmt.Errorf("sealing what a flow keeps: %w", err)
	}
	aead, err := keptAEAD(state, binding)
	if err != nil {
		return scheme.Flow{}, err
	}
	f.Config = maps.Clone(f.Config)
	if f.Config == nil {
		f.Config = make(map[string]string)
	}
	f.Config[keptField] = base64.StdEncoding.EncodeToString(aead.Seal(nil, nil, plain, []byte(f.ID)))
	return flow, nil
}

// kept returns what depart has kept, and the config without it. There is nothing
// for another browser.
func (f *Flow) kept(state, binding string) (kept, map[string]string) {
	text, ok := f.Config[keptField]
	if !ok {
		return kept{}, f.Config
	}
	config := maps.Clone(f.Config)
	delete(config, keptField)
	sealed, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return kept{}, config
	}
	aead, err := keptAEAD(state, binding)
	if err != nil {
		return kept{}, config
	}
	plain, err := aead.Open(nil, nil, sealed, []byte(f.ID))
	if err != nil {
		return kept{}, config
	}
	var k kept
	if json.Unmarshal(plain, &k) != nil {
		return kept{}, config
	}
	return k, config
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
