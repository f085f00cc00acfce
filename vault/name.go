package vault

import (
	"errors"
	"fmt"
)

var (
	// ErrName says that a name isn't one that a Vault accepts. The same call
	// can't ever succeed.
	ErrName = errors.New("vault: bad name")

	// ErrTooLarge says that a value is longer than MaxValue. Nothing was
	// written.
	ErrTooLarge = errors.New("vault: value is too large")
)

// CheckName returns nil if name is one that every Vault accepts, or an error
// wrapping ErrName that says what is wrong with it. Every Vault calls it first
// in each method, so that no name can climb out of the vault's own folder,
// table or mount.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrName)
	case len(name) > MaxName:
		return fmt.Errorf("%w: %d bytes, but %d is the most", ErrName, len(name), MaxName)
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			if !nameByte(name[i]) {
				return fmt.Errorf("%w: %q has the character %q; letters, digits and . _ ~ - are allowed", ErrName, name, name[i])
			}
			continue
		}
		switch name[start:i] {
		case "":
			return fmt.Errorf("%w: %q has an empty segment", ErrName, name)
		case ".", "..":
			return fmt.Errorf("%w: %q has the segment %q", ErrName, name, name[start:i])
		}
		start = i + 1
	}
	return nil
}

// CheckValue returns nil if value is one that every Vault accepts, or an error
// wrapping ErrTooLarge.
func CheckValue(value []byte) error {
	if len(value) > MaxValue {
		return fmt.Errorf("%w: %d bytes, but %d is the most", ErrTooLarge, len(value), MaxValue)
	}
	return nil
}

func nameByte(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		return true
	}
	return b == '.' || b == '_' || b == '~' || b == '-'
}
