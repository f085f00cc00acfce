package connect

import (
	"fmt"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// packed is what is held of a connection beside what calls need of it: its row
// and the rest of its credential, in CBOR (RFC 8949). There may be a million, and
// each as it is used elsewhere would take three times as much. Times are exact to
// the microsecond, as stores have them.
type packed string

type packedForm struct {
	_          struct{} `cbor:",toarray"`
	Row        Connection
	Credential cbor.RawMessage
}

// pack leaves out of the row what a Bound has of its own.
func pack(c Connection, cred *scheme.Credential) ([]byte, error) {
	rest, err := cred.Compact()
	if err != nil {
		return nil, err
	}
	c.ID, c.UID, c.Provider, c.Status = ID{}, "", "", ""
	p, err := scheme.Packing.Marshal(packedForm{Row: c, Credential: rest})
	if err != nil {
		return nil, fmt.Errorf("packing connection: %w", err)
	}
	return p, nil
}

// join puts strings that are held together into one, since garbage collection
// looks at each.
func join(texts ...*string) {
	size := 0
	for _, t := range texts {
		size += len(*t)
	}
	var all strings.Builder
	all.Grow(size)
	for _, t := range texts {
		all.WriteString(*t)
	}
	rest := all.String()
	for _, t := range texts {
		*t, rest = rest[:len(*t)], rest[len(*t):]
	}
}

func (b *Bound) unpack() (packedForm, error) {
	var f packedForm
	if err := cbor.Unmarshal([]byte(b.packed), &f); err != nil {
		return f, fmt.Errorf("unpacking connection %s: not the packed format", b.ID)
	}
	return f, nil
}

// Connection is the connection as it was when the credential was bound.
func (b *Bound) Connection() (Connection, error) {
	f, err := b.unpack()
	if err != nil {
		return Connection{}, err
	}
	c := f.Row
	c.ID, c.UID, c.Provider, c.Status = b.ID, b.UID, b.Provider, StatusActive
	times := []*time.Time{&c.Expires, &c.Due, &c.Created, &c.Updated}
	if c.Trouble != nil {
		times = append(times, &c.Trouble.Since, &c.Trouble.Told)
	}
	for _, t := range times {
		*t = scheme.ToMicrosecond(*t)
	}
	return c, nil
}

// credential is what was bound: with it a renewal can do without the vault.
func (b *Bound) credential() (scheme.Credential, error) {
	f, err := b.unpack()
	if err != nil {
		return scheme.Credential{}, err
	}
	cred, err := scheme.ReadCompact(f.Credential, b.token)
	if err != nil {
		return scheme.Credential{}, fmt.Errorf("connection %s: %w", b.ID, err)
	}
	return cred, nil
}
