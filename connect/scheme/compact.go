package scheme

import (
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Packing is CBOR (RFC 8949) with times to the microsecond: what is held in memory
// is packed in it.
var Packing = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Time: cbor.TimeUnixMicro}.EncMode()
	if err != nil {
		panic(err) // the options are right or wrong for good
	}
	return mode
}()

// Compact is the credential in a form that takes little memory, in clear, without
// its access token. It is for this process alone: other versions of keycaddy
// can't read it.
func (c *Credential) Compact() ([]byte, error) {
	s := c.stored()
	s.AccessToken = ""
	data, err := Packing.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("packing credential: %w", err)
	}
	return data, nil
}

// ReadCompact reads what Compact wrote; the access token is put back.
func ReadCompact(data []byte, accessToken Secret) (Credential, error) {
	var s stored
	if err := cbor.Unmarshal(data, &s); err != nil {
		return Credential{}, fmt.Errorf("unpacking credential: not the packed format")
	}
	c := s.credential()
	c.AccessToken = accessToken
	c.Issued, c.Expires = ToMicrosecond(c.Issued), ToMicrosecond(c.Expires)
	for name, t := range c.Extra {
		t.Expires = ToMicrosecond(t.Expires)
		c.Extra[name] = t
	}
	return c, nil
}

// ToMicrosecond is a time as it was before it was compact, in UTC: there it is a
// number of seconds with a fraction, which is exact to the microsecond and not
// beyond.
func ToMicrosecond(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.Round(time.Microsecond).UTC()
}

// Shared returns a secret as the binding has it, if it does, so that it isn't held
// twice.
func (b *Binding) Shared(s Secret) Secret {
	if value, ok := b.carried(string(s)); ok {
		return Secret(value)
	}
	if i := slices.Index(b.parts, string(s)); i >= 0 {
		return Secret(b.parts[i])
	}
	return s
}

// Texts are the binding's strings that are of its connection alone, to be put
// into one with others.
func (b *Binding) Texts() []*string {
	var texts []*string
	for i := range b.headers {
		if b.headers[i].secret {
			texts = append(texts, &b.value(i)[0])
		}
	}
	for i := range b.query {
		texts = append(texts, &b.query[i].escaped)
	}
	for i := range b.parts {
		texts = append(texts, &b.parts[i])
	}
	return texts
}

// Common is what bindings of one integration have in common, mostly.
type Common struct {
	base    *url.URL
	headers []header
}

// Share lets the binding hold what it has in common with another, and not copies of
// that. It returns what the next one may share.
func (b *Binding) Share(with *Common) *Common {
	sameBase := b.Base != nil && with != nil && with.base != nil && *b.Base == *with.base
	if sameBase {
		b.Base = with.base
	}
	sameHeaders := with != nil && slices.Equal(b.headers, with.headers)
	if sameHeaders {
		b.headers = with.headers
	}
	if sameBase && sameHeaders {
		return with
	}
	return &Common{b.Base, b.headers}
}
