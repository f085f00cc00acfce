package simulator

import (
	"testing"

	"github.com/keycaddy/keycaddy/catalog"
)

// Whoever can't make up a value for a field can't tell a user what to type.
func TestEveryEntryCanBeFilledIn(t *testing.T) {
	cat, err := catalog.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range cat.IDs() {
		p, err := cat.Provider(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, fill := range []Fill{Everything, Required} {
			a, err := NewAccount(p, "https://app.example/oauth/callback", fill)
			if err != nil {
				t.Error(err)
				continue
			}
			for name, v := range a.Answers(p) {
				f, ok := p.Field("conn", name)
				if !ok {
					f, _ = p.Field("cred", name)
				}
				if err := f.Check(v); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
		}
	}
}
