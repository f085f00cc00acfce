// Package policy says what a caller may do: which operations (scopes), and with
// which connections, methods and paths (limits). It decides from what it is
// given and asks nobody.
//
// It may import the standard library only.
package policy
