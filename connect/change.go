package connect

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"

	"go.uber.org/zap"
)

// MaxMetadata bounds a connection's metadata, in bytes of JSON.
const MaxMetadata = 64 << 10

// ErrMetadataTooLarge says that metadata is, or would become, larger than that.
var ErrMetadataTooLarge = errors.New("connect: metadata is larger than 64 KiB")

// Changes are what an app changes of a connection; what is nil stays.
type Changes struct {
	// EndUser takes the place of the end user and, with Tags, of all tags.
	EndUser *EndUser
	Tags    map[string]string
	// WebhookURL is where its events go; empty: to the configured endpoints.
	WebhookURL *string
}

// Change changes what is known of a connection. ErrNotFound if there is none.
func (c *Connector) Change(ctx context.Context, id ID, ch Changes) (Connection, error) {
	conn, err := c.Store.Update(ctx, id, func(row *Connection) error {
		if ch.EndUser != nil {
			row.EndUser = ch.EndUser
		}
		if ch.Tags != nil {
			row.Tags = ch.Tags
		}
		if ch.WebhookURL != nil {
			row.WebhookURL = *ch.WebhookURL
		}
		return nil
	})
	if err != nil {
		return Connection{}, err
	}
	c.Refresher.Forget(id)
	c.Logger.Info("connection changed", connectionFields(id)...)
	return conn, nil
}

// SetMetadata sets the metadata of all these connections, or of none if one of
// them is missing. With merge, what it doesn't name stays, at the first level.
// Errors: *MissingError.
func (c *Connector) SetMetadata(ctx context.Context, ids []ID, metadata json.RawMessage, merge bool) error {
	var fresh map[string]json.RawMessage
	if err := json.Unmarshal(metadata, &fresh); err != nil {
		return err
	}
	if len(metadata) > MaxMetadata {
		return ErrMetadataTooLarge
	}
	_, err := c.Store.UpdateAll(ctx, ids, func(row *Connection) error {
		next := fresh
		if merge && row.Metadata != nil {
			next = nil
			if err := json.Unmarshal(row.Metadata, &next); err != nil {
				return err
			}
			maps.Copy(next, fresh)
		}
		var err error
		if row.Metadata, err = json.Marshal(next); err == nil && len(row.Metadata) > MaxMetadata {
			err = ErrMetadataTooLarge
		}
		return err
	})
	if err == nil {
		c.Logger.Info("metadata set", zap.String("integration", ids[0].Integration), zap.Int("connections", len(ids)))
	}
	return err
}

// sameFacts tells whether two states of a connection, as stores return them, say
// the same of whose it is and where its calls go.
func sameFacts(a, b *Connection) bool {
	return reflect.DeepEqual(a.EndUser, b.EndUser) && maps.Equal(a.Tags, b.Tags) && maps.Equal(a.Config, b.Config)
}
