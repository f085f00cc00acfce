// Package torture breaks things while credentials are renewed, and looks whether
// a refresh token is lost or spent twice. It starts a strict provider, a Vault,
// a PostgreSQL and some nodes, which are real processes of the same program; a
// fault is a real one: SIGKILL, SIGSTOP, a seal, a full disk. What it runs and
// how it judges is told in docs/torture.md.
//
// A node has an [Agent] in it, which stops a renewal at a step until the harness
// says how it goes on, and tells which step each has come to. [Run] is the
// harness.
//
// It may import connect, connect/demo, connect/scheme, connect/postgres,
// connect/sqlite, vault, vault/hashicorp, vault/sealed and the standard library;
// it knows nothing of Caddy.
package torture
