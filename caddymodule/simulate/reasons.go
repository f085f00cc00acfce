package simulate

// Reasons are the entries that are not run, and why. An entry that can't do
// what it is there for says so itself; what is listed here has nothing to run.
var Reasons = map[string]string{
	"sentry-oauth":    "is installed from the vendor's side, which then posts a code to a webhook: there is no page to send a browser to",
	"unauthenticated": "stands for no vendor: it has neither a credential nor an address",
}
