package connect

import (
	"context"
	"errors"
	"time"
)

// ErrInUse says that an integration has connections, so that it can't have
// another key.
var ErrInUse = errors.New("connect: integration has connections")

// StoredIntegration is an integration that was made through the API, as the
// store keeps it. Its client and the operator's values for it rest in the vault,
// under VaultName.
type StoredIntegration struct {
	// UID tells it from any other that had the same key before or will have it
	// later: 32 hex digits.
	UID string
	// Key is what apps call it by; it may change.
	Key             string
	Provider        string
	DisplayName     string // empty: the provider's
	ForwardWebhooks bool
	// Sealed says that there is something in the vault.
	Sealed bool
	// Removing says that it is on its way out, with its connections: nobody can
	// connect it any more.
	Removing         bool
	Created, Updated time.Time
}

// VaultName is where its secrets rest in the vault.
func (i *StoredIntegration) VaultName() string { return "integrations/" + i.UID }

// IntegrationStore keeps the integrations that were made through the API.
type IntegrationStore interface {
	// PutIntegration adds an integration, Created and Updated set to the
	// present where they are zero. ErrExists if its key or UID is taken.
	PutIntegration(ctx context.Context, i StoredIntegration) (StoredIntegration, error)
	// UpdateIntegration reads the integration with the key, lets change edit it,
	// and writes it back as one atomic step, setting Updated; UID and Created
	// stay. Change must not call the store; its error ends it. ErrNotFound;
	// ErrExists if the new key is taken; ErrInUse if the key was changed and
	// there are connections under the old one.
	UpdateIntegration(ctx context.Context, key string, change func(*StoredIntegration) error) (StoredIntegration, error)
	// DeleteIntegration removes the integration with the UID; removing none is
	// no error.
	DeleteIntegration(ctx context.Context, uid string) error
	// StoredIntegrations returns all, by key, with the revision that they are
	// of, or of one before it.
	StoredIntegrations(ctx context.Context) ([]StoredIntegration, int64, error)
	// IntegrationsRevision rises with every change of any of them.
	IntegrationsRevision(ctx context.Context) (int64, error)
}

// Bulk changes many connections at once.
type Bulk interface {
	// UpdateAll is Update for connections with these ids, all different and 1000
	// at most, as one atomic step: if one of them is gone, or change fails for
	// one, nothing is written. The error for one that is gone is a
	// *MissingError. The connections come back in the order of the ids.
	UpdateAll(ctx context.Context, ids []ID, change func(*Connection) error) ([]Connection, error)
}

// MissingError names the connection that isn't there. It is an ErrNotFound.
type MissingError struct{ ID ID }

func (e *MissingError) Error() string { return "connection " + e.ID.String() + " does not exist" }

// Is implements the contract of errors.Is.
func (e *MissingError) Is(target error) bool { return target == ErrNotFound }
