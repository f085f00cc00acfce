// Package e2e holds tests that start real processes: Caddy with keycaddy as
// ./xcaddy.sh builds it, an OAuth server (oidc-provider from npm, in oidc/),
// and headless Chromium. All of them listen on loopback only.
//
// Every Caddy runs with its log at DEBUG and a canary in every secret; whatever
// it prints, answers or writes is searched for canaries when it ends.
package e2e
