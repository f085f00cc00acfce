// Command caddy is Caddy with its standard modules and keycaddy, as
// `./xcaddy.sh` builds it: with the very versions that go.sum names.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/keycaddy/keycaddy/caddymodule"
)

func main() {
	pace()
	caddycmd.Main()
}
