package hashicorp

import (
	"fmt"
	"io"
)

// Secret is text that is "[secret]" printed or marshalled in whatever way. Only
// a conversion to string reveals it.
type Secret string

const hidden = "[secret]"

func (s Secret) String() string { return hidden }

// GoString keeps the secret out of %#v.
func (s Secret) GoString() string { return hidden }

// Format keeps the secret out of every other verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// MarshalText keeps the secret out of logs and configuration files.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
