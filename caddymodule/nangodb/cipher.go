package nangodb

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
)

// ErrKey says that something is encrypted and can't be read with the key.
var ErrKey = errors.New("it can't be decrypted with this NANGO_ENCRYPTION_KEY")

// cipherKey is Nango's AES-256-GCM; nil if there is no key.
type cipherKey struct{ aead cipher.AEAD }

func parseKey(text string) (*cipherKey, error) {
	if text == "" {
		return nil, nil
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != 32 {
		return nil, errors.New("NANGO_ENCRYPTION_KEY has to be 32 bytes in base64, as Nango has it")
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &cipherKey{aead}, err
}

// open decrypts a text with its nonce and tag, all in base64.
func (k *cipherKey) open(text, iv, tag string) ([]byte, error) {
	if k == nil {
		return nil, fmt.Errorf("%w: none was given", ErrKey)
	}
	var parts [3][]byte
	for i, s := range []string{text, iv, tag} {
		p, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, ErrKey
		}
		parts[i] = p
	}
	if len(parts[1]) != k.aead.NonceSize() {
		return nil, ErrKey
	}
	plain, err := k.aead.Open(nil, parts[1], append(parts[0], parts[2]...), nil)
	if err != nil {
		return nil, ErrKey
	}
	return plain, nil
}

// seal encrypts as Nango does.
func (k *cipherKey) seal(plain []byte) (text, iv, tag string) {
	nonce := make([]byte, k.aead.NonceSize())
	rand.Read(nonce) // never fails: crypto/rand crashes the program instead
	sealed := k.aead.Seal(nil, nonce, plain, nil)
	at := len(sealed) - k.aead.Overhead()
	b := base64.StdEncoding.EncodeToString
	return b(sealed[:at]), b(nonce), b(sealed[at:])
}
