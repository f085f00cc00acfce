#!/usr/bin/env bash
# Builds Caddy with keycaddy, runs it, tests it, or measures it.
#
#   ./xcaddy.sh          build ./bin/caddy
#   ./xcaddy.sh run      build it and run it on Caddyfile.example
#   ./xcaddy.sh test     install what the tests need, and run all of them
#   ./xcaddy.sh bench    compare it with reverse_proxy and nginx: bench/results.md
#
# Needs Go; `test` and `bench` also need Debian, and root only where a package
# is missing.
set -euo pipefail
cd "$(dirname "$0")"

# One set of flags for all, so that what is compiled once serves everything.
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -trimpath"

say() { printf '\n== %s\n' "$*"; }

build() {
	mkdir -p bin
	if [ ! -x bin/caddy ]; then echo "Building ./bin/caddy; the first time takes a few minutes." >&2; fi
	go build -ldflags '-s -w' -o bin/caddy ./caddymodule/caddy
}

# have installs a Debian package unless its command is there.
have() {
	PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null && return
	say "installing $2"
	if [ "$(id -u)" != 0 ]; then
		echo "The tests need $1. Install it: sudo apt-get install $2" >&2
		exit 1
	fi
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >/dev/null
}

check() {
	say "formatting, vet, staticcheck"
	unformatted=$(gofmt -l .)
	if [ -n "$unformatted" ]; then
		echo "gofmt these: $unformatted" >&2
		exit 1
	fi
	go vet ./...
	go tool staticcheck ./...
	go mod verify >/dev/null
	bin/caddy fmt --diff Caddyfile.example >/dev/null
	bin/caddy adapt --config Caddyfile.example >/dev/null
}

vulnerabilities() {
	say "known vulnerabilities"
	# The database is a service on the internet: without it nothing is known,
	# which is said and is no failure of the code.
	if ! go tool govulncheck ./... >.cache/govulncheck 2>&1; then
		if grep -q 'fetching vulnerabilities' .cache/govulncheck; then
			echo "NOT CHECKED: the vulnerability database can't be reached from here"
			return
		fi
		cat .cache/govulncheck >&2
		exit 1
	fi
}

tests() {
	have chromium chromium
	have nginx nginx-light
	have npm npm # which brings its own Node.js; the tests' is among their packages
	have gcc gcc
	have pg_ctlcluster postgresql
	have promtool prometheus
	have pgbouncer pgbouncer
	mkdir -p .cache
	for packages in e2e/oidc e2e/sdk; do
		if [ ! $packages/node_modules/.package-lock.json -nt $packages/package-lock.json ]; then
			(cd $packages && npm ci --no-audit --no-fund --silent)
		fi
	done
	say "a Vault server for the tests"
	vault/hashicorp/vaultserver/build.sh
	say "building"
	build
	check
	vulnerabilities
	say "every entry of the catalog, against its played vendor"
	bin/caddy keycaddy catalog simulate --all
	say "tests"
	# SQLite is C, translated: watching its memory for races finds nothing of ours,
	# and makes it five times slower.
	export CGO_ENABLED=1 GOFLAGS="$GOFLAGS -gcflags=modernc.org/sqlite/lib=-race=false"
	failed=
	# e2e watches the Caddys that it starts for races, and not itself: the library
	# that drives Chromium has one when it joins a window. It has the machine to
	# itself. -count=1: what it starts is not part of what go test compares.
	go test -count=1 -timeout 20m "$@" ./e2e || failed=yes
	# The longest come first.
	go test -race -count=1 -timeout 20m "$@" ./connect ./caddymodule/... $(go list ./... | grep -v '/e2e$') || failed=yes
	[ -z "$failed" ]
}

bench() {
	have nginx nginx-light
	have taskset util-linux
	build
	mkdir -p .cache
	go build -o .cache/bench ./bench
	go build -ldflags '-s -w' -o .cache/stock github.com/caddyserver/caddy/v2/cmd/caddy
	PATH="$PATH:/usr/sbin" .cache/bench -o bench/results.md "$@"
}

case "${1:-build}" in
build) build ;;
run)
	build
	exec bin/caddy run --config Caddyfile.example
	;;
test) shift && tests "$@" ;;
bench) shift && bench "$@" ;;
*)
	sed -n '2,9s/^# \{0,1\}//p' "$0"
	exit 2
	;;
esac
