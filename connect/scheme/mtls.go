package scheme

import (
	"net/http"
)

// clientFor returns the client for a grant's requests to its provider.
func (b base) clientFor(Grant) *http.Client { return b.client }
