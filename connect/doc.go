// Package connect is how a connection is made and kept alive.
//
// A connection is one account of one end user at one provider. The [Connector]
// makes it, through sessions that an app opens and flows that lead through a
// browser; the [Refresher] has a working credential for every connection, and
// renews it so that no refresh token is lost or spent twice; the [Store] is
// what must be remembered, apart from secrets, which rest in a vault.
//
// The package may import catalog, vault, connect/scheme, zap, libraries of CBOR
// and of concurrent maps, and the standard library. Stores, pages and the API
// are in packages below it, which import it.
package connect
