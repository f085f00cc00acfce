// Package simulator plays vendors. Given nothing but a provider's entry it
// behaves as the vendor would: an authorization page that sends the browser
// back, a token endpoint that takes exactly what the entry says it takes, look-
// ups, and an API that lets nobody in without the credential in its place.
//
// It exists to prove entries and client against each other, so it shares no
// code with the client: it reads the entry's data as written, has its own
// reading of the template language, and checks signatures with code and
// libraries that sign nothing. What is written down about a vendor is demanded;
// what isn't is refused, so that a parameter too many shows as well as one
// missing. Every refusal is recorded as a fault that says what was wrong.
//
// A [Vendor] is an [net/http.Handler] and opens no sockets. It may import
// catalog, the standard library and libraries that verify.
package simulator
