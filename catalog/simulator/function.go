package simulator

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// call evaluates a function of the template language whose arguments are known.
func call(name string, args []string) (string, error) {
	all := strings.Join(args, "")
	switch name {
	case "base64":
		return base64.StdEncoding.EncodeToString([]byte(all)), nil
	case "sha256_hex":
		return fmt.Sprintf("%x", sha256.Sum256([]byte(all))), nil
	case "sha256_base64":
		sum := sha256.Sum256([]byte(all))
		return base64.StdEncoding.EncodeToString(sum[:]), nil
	case "upper":
		return strings.ToUpper(all), nil
	case "urlencode":
		return url.QueryEscape(all), nil
	}
	if len(args) == 0 {
		return "", fmt.Errorf("%s without arguments", name)
	}
	first, rest := args[0], strings.Join(args[1:], "")
	switch name {
	case "hmac_sha1_hex":
		mac := hmac.New(sha1.New, []byte(first))
		mac.Write([]byte(rest))
		return hex.EncodeToString(mac.Sum(nil)), nil
	case "hmac_sha256_hex":
		mac := hmac.New(sha256.New, []byte(first))
		mac.Write([]byte(rest))
		return hex.EncodeToString(mac.Sum(nil)), nil
	case "ed25519_sign_base64":
		key, err := privateKey(first)
		if err != nil {
			return "", err
		}
		k, ok := key.(ed25519.PrivateKey)
		if !ok {
			return "", errors.New("not an Ed25519 key")
		}
		return base64.StdEncoding.EncodeToString(ed25519.Sign(k, []byte(rest))), nil
	case "key_fingerprint":
		key, err := privateKey(first)
		if err != nil {
			return "", err
		}
		der, err := x509.MarshalPKIXPublicKey(publicOf(key))
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(der)
		return "SHA256:" + base64.StdEncoding.EncodeToString(sum[:]), nil
	case "left":
		n, err := strconv.Atoi(rest)
		if err != nil {
			return "", err
		}
		runes := []rune(first)
		return string(runes[:min(n, len(runes))]), nil
	case "replace":
		if len(args) != 3 {
			return "", errors.New("replace takes three arguments")
		}
		return strings.Join(strings.Split(first, args[1]), args[2]), nil
	case "host_of":
		u, err := url.Parse(first)
		if err != nil {
			return "", err
		}
		return u.Hostname(), nil
	case "jwt_claim":
		claims, err := unverifiedClaims(first)
		if err != nil {
			return "", err
		}
		if v, ok := claims[rest]; ok {
			return fmt.Sprint(v), nil
		}
		return "", errAbsent
	case "json":
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(first); err != nil {
			return "", err
		}
		return strings.TrimRight(b.String(), "\n"), nil
	}
	return "", fmt.Errorf("unknown function %s", name)
}

func unverifiedClaims(token string) (map[string]any, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("not a JWT")
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	claims := map[string]any{}
	return claims, json.Unmarshal(data, &claims)
}

// privateKey reads a key in PEM, PKCS #8 or PKCS #1.
func privateKey(text string) (any, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("not a key in PEM")
	}
	if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	return x509.ParsePKCS1PrivateKey(block.Bytes)
}
