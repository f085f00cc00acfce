// Package caddymodule is keycaddy as a Caddy module: configuration, life cycle,
// Caddyfile, command line. What keycaddy does is in the packages that this one
// puts together; none of those knows Caddy.
//
// Modules:
//
//   - keycaddy: the app, with the global option of the same name
//   - http.handlers.keycaddy_proxy, directive keycaddy_proxy: calls to providers
//   - http.handlers.keycaddy_connect, directive keycaddy_connect: the pages
//   - http.handlers.keycaddy_api, directive keycaddy_api: the REST API
//   - http.handlers.keycaddy_demo, directive keycaddy_demo: the demo provider
//   - keycaddy.stores.sqlite, keycaddy.stores.postgres: a [StoreOpener] each
//   - keycaddy.vaults.sealed, keycaddy.vaults.hashicorp: a [VaultOpener] each
//   - admin.api.keycaddy: the API on Caddy's admin endpoint, for `caddy keycaddy`
//
// The directive keycaddy is the pages, the API and the proxy at their standard
// paths.
//
// Placeholders, in handlers that run after the proxy has found the connection:
//
//	Placeholder | Description
//	------------|---------------
//	`{http.keycaddy.integration}` | The integration's key
//	`{http.keycaddy.connection}` | The connection's id
//	`{http.keycaddy.provider}` | The provider's id
//	`{http.keycaddy.caller}` | The name of the API key
//	`{http.keycaddy.replayed}` | true if the call was sent a second time
//	`{http.keycaddy.error}` | The code of keycaddy's own error, if it is one
//
// It may import everything; nothing may import it.
package caddymodule
