package simulate

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// accountKnown checks that the connection knows whose account it is, as far as
// the vendor tells.
func (r *run) accountKnown(conn connect.Connection) error {
	want, got := r.vendor.AccountID(), ""
	if conn.Account != nil {
		got = conn.Account.ID
	}
	if got != want {
		return fmt.Errorf("the connection is of the account %q; at the vendor it is %q", got, want)
	}
	return nil
}

// revokes tells whether the vendor has to be told of grants that aren't used any
// more.
func (r *run) revokes() bool {
	in, err := r.setup.Integration(r.provider.ID)
	if err != nil {
		return false
	}
	revoker, ok := in.Scheme.(scheme.Revoker)
	return ok && revoker.Revokes()
}

// anotherAccount connects again: with the same account, which has to be taken,
// and with another one, which has to be refused and must change nothing.
func (r *run) anotherAccount() error {
	if r.vendor.AccountID() == "" {
		return nil
	}
	conn, err := r.signIn()
	if err != nil {
		return fmt.Errorf("connecting the same account again: %w", err)
	}
	if conn == nil {
		return nil
	}
	if err := errors.Join(r.fieldsFilled(*conn), r.accountKnown(*conn)); err != nil {
		return err
	}
	back := r.vendor.Switch()
	if back == nil {
		return nil
	}
	_, err = r.signIn()
	back()
	if !errors.Is(err, connect.ErrOtherAccount) {
		return fmt.Errorf("another account was not refused: %v", err)
	}
	if r.revokes() {
		if r.revoked++; r.vendor.Counts().Revoked != r.revoked {
			return errors.New("the vendor was not told that the refused grant isn't used")
		}
	}
	row, err := r.store.Connection(r.ctx, r.id)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(row.Account, conn.Account) || row.Version != conn.Version || !reflect.DeepEqual(row.Config, conn.Config) {
		return errors.New("a grant that was refused has changed the connection")
	}
	return r.arrive()
}
