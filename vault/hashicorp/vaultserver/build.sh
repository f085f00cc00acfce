#!/usr/bin/env bash
# Builds the Vault server of keycaddy's tests and prints its path.
#
#   build.sh            in the repository's .cache, unless it is there already
#   build.sh <folder>   in the folder
#
# Needs Go and its module proxy, many minutes of two cores the first time, and
# seconds from Go's build cache later. After a change of version in go.mod, run
# it with TIDY=1, which writes go.mod and go.sum anew.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's,^\tgithub.com/hashicorp/vault \(v[0-9.]*\)$,\1,p' "$here/go.mod")
cache=$(cd "$here/../../.." && pwd)/.cache
if [ $# = 0 ]; then
	# The sum of the recipe: whoever changes that gets another server.
	sum=$(cd "$here" && cat build.sh main.go go.mod go.sum | sha256sum | cut -c1-12)
	set -- "$cache/vault-server-$version-$sum"
	if [ -x "$1/vaultserver" ]; then
		echo "$1/vaultserver"
		exit
	fi
	echo "Building a Vault server for the tests; the first time takes many minutes." >&2
fi
to=$(mkdir -p "$1" && cd "$1" && pwd)
work=$(mktemp -d "$to/build.XXXXXX")
trap 'rm -rf "$work"' EXIT

cp "$here"/{main.go,go.mod,go.sum} "$work"
source=$(cd "$work" && GOFLAGS= go mod download -json "github.com/hashicorp/vault@$version" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
mkdir "$work/vault"
(cd "$source" && tar cf - --exclude=./ui/app --exclude=./website --exclude=./changelog .) | tar xf - -C "$work/vault" --no-same-permissions
chmod -R u+w "$work/vault"

# Vault is developed together with its sdk, in one repository. A module gets the
# sdk as published, and with that one the release doesn't compile in three
# places. change FILE BEFORE AFTER mends one, or fails if the line is gone.
change() {
	grep -qF -- "$2" "$work/vault/$1" || {
		echo "$1 of Vault $version has no: $2" >&2
		exit 1
	}
	BEFORE=$2 AFTER=$3 awk '{
		at = index($0, ENVIRON["BEFORE"])
		if (at) $0 = substr($0, 1, at - 1) ENVIRON["AFTER"] substr($0, at + length(ENVIRON["BEFORE"]))
		print
	}' "$work/vault/$1" >"$work/changed"
	mv "$work/changed" "$work/vault/$1"
}
change vault/identity_store.go 'ActivationFunc: iStore.activateDeduplication,' \
	'ActivationFunc: func(ctx context.Context, req *logical.Request, _ string) error { return iStore.activateDeduplication(ctx, req) },'
change vault/logical_system_activation_flags.go 'ActivationFunc(ctx, nil)' 'ActivationFunc(ctx, nil, "")'
change builtin/logical/transit/path_restore.go 'restoredKeyName, err := b.lm.RestorePolicy(' \
	'restoredKeyName, err := keyName, b.lm.RestorePolicy('

cd "$work"
if [ "${TIDY:-}" ]; then
	GOFLAGS= go mod tidy
	cp go.mod go.sum "$here"
fi
CGO_ENABLED=0 GOFLAGS= go build -buildvcs=false -trimpath -ldflags '-s -w' -o "$work/vaultserver" .
mv "$work/vaultserver" "$to/vaultserver"
for old in "$cache"/vault-server-*; do
	case $to in
	"$old") ;;
	"$cache"/vault-server-*) rm -rf "$old" ;; # of another recipe
	esac
done
echo "$to/vaultserver"
