package catalog

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Account says how to find out whose account a grant is for, so that connecting
// again with another one is noticed. Its templates may refer, besides what
// others may, to claim.<name> of the ID token and to answer.<path> of Request.
type Account struct {
	// Issuer is what iss of the ID token has to be (OpenID Connect Core 1.0
	// section 3.1.3.7). Without it ID tokens aren't looked at. Where each
	// customer has an issuer of its own, it may refer to a claim: {claim.tid}.
	Issuer Value `yaml:"issuer"`

	// Request is asked only if what is known before doesn't tell: the token
	// answer, the ID token, the connection's fields.
	Request *Call `yaml:"request"`

	// ID is what the vendor knows the account by, and never gives to another.
	// Alternatives have to come to the same value: which of them is there may
	// depend on the scopes.
	ID Value `yaml:"id,required"`

	// Label is what its user knows it by, such as an e-mail address. It is shown,
	// and nothing depends on it.
	Label Value `yaml:"label"`
}

// account checks the block, and keeps its own namespaces in it.
func (d *decoder) account(n *yaml.Node, a *Account) {
	refs := slices.Concat(a.ID.Refs(), a.Label.Refs())
	for _, r := range refs {
		switch {
		case r.Namespace == "claim" && a.Issuer.IsZero():
			d.fail(n, "account: %s needs issuer, which the ID token is checked against", r)
		case r.Namespace == "answer" && a.Request == nil:
			d.fail(n, "account: %s needs request, whose answer it is in", r)
		}
	}
	for _, r := range a.Issuer.Refs() {
		if r.Namespace == "answer" {
			d.fail(n, "account: issuer can't be made of an answer that comes after it")
		}
	}
	if len(a.ID.Refs()) == 0 {
		d.fail(n, "account: id refers to nothing; all accounts would be one")
	}
}

// ofAccount tells whether a reference is one that only templates of the account
// block may have, and whether the path is one of those.
func ofAccount(r Ref, path string) (own, allowed bool) {
	if r.Namespace != "claim" && r.Namespace != "answer" {
		return false, false
	}
	return true, strings.HasPrefix(path, "account.id") || strings.HasPrefix(path, "account.label") || strings.HasPrefix(path, "account.issuer")
}
