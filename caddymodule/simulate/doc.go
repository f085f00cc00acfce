// Package simulate runs the catalog against vendors that are played: for each
// entry an account is connected as the pages do it, called through the proxy,
// renewed after its token has been refused and after its time has come, and
// disconnected, with store, vault, connector, refresher and proxy as they are
// in the server. Whatever the vendor refuses on the way is a failure, with the
// vendor's own words on it.
//
// Nothing listens and nothing is dialled: requests are handed to the played
// vendor by a transport, so that a thousand entries take seconds.
//
// It may import catalog, catalog/simulator, connect and its sub-packages, proxy,
// vault, vault/sealed, zap and the standard library; it knows nothing of Caddy.
package simulate
