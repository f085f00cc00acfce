package api

import (
	"net/http"

	"github.com/keycaddy/keycaddy/connect/policy"
	"github.com/keycaddy/keycaddy/connect/problem"
)

// routes are all calls, as the document has them. Those of older SDKs have
// another path and are the same.
func (a *API) routes() map[string]handler {
	all := map[string]handler{
		"GET /health":                a.health,
		"GET /health/ready":          a.health,
		"GET /health/live":           a.live,
		"GET /openapi.json":          a.getDocument,
		"GET /docs":                  a.getDocumentation,
		"GET /environment-variables": a.limited(policy.AnyKey, a.listEnvironmentVariables),

		"GET /providers":                      a.limited(policy.AnyKey, a.listProviders),
		"GET /providers/{provider}":           a.appOrSession(policy.AnyKey, a.getProvider),
		"GET /providers/{provider}/templates": a.limited(policy.AnyKey, a.listTemplates),
		"GET /images/template-logos/{file}":   a.logo,

		"GET /integrations":              a.appOrSession(policy.IntegrationsList, a.listIntegrations),
		"GET /config/{key}":              a.limited(policy.IntegrationsRead, a.getIntegration), // of older SDKs
		"POST /integrations":             a.app(policy.IntegrationsCreate, a.createIntegration),
		"POST /integrations/quickstart":  a.app(policy.IntegrationsCreate, a.createQuickstart),
		"GET /integrations/{key}":        a.limited(policy.IntegrationsRead, a.getIntegration),
		"PATCH /integrations/{key}":      a.app(policy.IntegrationsUpdate, a.updateIntegration),
		"POST /integrations/{key}/check": a.app(policy.IntegrationsUpdate, a.checkClient),
		"DELETE /integrations/{key}":     a.app(policy.IntegrationsDelete, a.deleteIntegration),

		"POST /connect/sessions":           a.limited(policy.ConnectSessionsWrite, a.createSession),
		"POST /connect/sessions/reconnect": a.limited(policy.ConnectSessionsWrite, a.createReconnectSession),
		"POST /connect/sessions/confirm":   a.app(policy.ConnectSessionsWrite, a.confirmSession),
		"GET /connect/session":             a.getSession,
		"DELETE /connect/session":          a.deleteSession,
		"POST /connect/telemetry":          a.telemetry,

		"POST /api-auth/api-key/{key}":     a.enter("API_KEY"),
		"POST /api-auth/basic/{key}":       a.enter("BASIC"),
		"POST /oauth2/auth/{key}":          a.enter("OAUTH2_CC"),
		"POST /auth/tba/{key}":             a.enter("TBA"),
		"POST /auth/signature/{key}":       a.enter("SIGNATURE"),
		"POST /auth/aws-sigv4/{key}":       a.enter("AWS_SIGV4"),
		"POST /auth/two-step/{key}":        a.enter("TWO_STEP"),
		"POST /auth/bill/{key}":            a.enter("TWO_STEP"),
		"POST /auth/jwt/{key}":             a.enter("JWT"),
		"POST /auth/unauthenticated/{key}": a.enter("NONE"),

		"GET /connections":            a.limited(policy.ConnectionsList, a.listConnections),
		"POST /connections":           a.limited(policy.ConnectionsCreate, a.importConnection),
		"GET /connections/{id}":       a.limited(policy.ConnectionsRead, a.getConnection),
		"PATCH /connections/{id}":     a.limited(policy.ConnectionsUpdate, a.updateConnection),
		"DELETE /connections/{id}":    a.limited(policy.ConnectionsDelete, a.deleteConnection),
		"POST /connections/metadata":  a.limited(policy.ConnectionsUpdate, a.setMetadata),
		"PATCH /connections/metadata": a.limited(policy.ConnectionsUpdate, a.updateMetadata),
		"POST /connections/refresh":   a.limited(policy.ConnectionsUpdate, a.refreshConnection),
		"POST /explain":               a.limited(policy.Explain, a.explain),

		"GET /keys":                a.app(policy.KeysList, a.listKeys),
		"POST /keys":               a.app(policy.KeysCreate, a.createKey),
		"PATCH /keys/{name}":       a.app(policy.KeysUpdate, a.updateKey),
		"DELETE /keys/{name}":      a.app(policy.KeysDelete, a.revokeKey),
		"POST /keys/{name}/rotate": a.app(policy.KeysUpdate, a.rotateKey),

		"GET /logs":                a.app(policy.LogsRead, a.listLogs),
		"GET /logs/{log}":          a.app(policy.LogsRead, a.getLog),
		"GET /statistics":          a.app(policy.LogsRead, a.getStatistics),
		"GET /webhooks":            a.app(policy.WebhooksRead, a.listEndpoints),
		"GET /webhooks/deliveries": a.app(policy.WebhooksRead, a.listDeliveries),
		"POST /webhooks/redeliver": a.app(policy.WebhooksRedeliver, a.redeliver),

		"POST /connection":                a.limited(policy.ConnectionsCreate, a.importFlat),
		"POST /connection/{id}/metadata":  a.limited(policy.ConnectionsUpdate, a.setMetadataOfOne),
		"PATCH /connection/{id}/metadata": a.limited(policy.ConnectionsUpdate, a.updateMetadataOfOne),
	}
	for alias, route := range aliases {
		all[alias] = all[route]
	}
	return all
}

// aliases are the paths of older SDKs. (GET, PATCH and DELETE of /connection/{id}
// are found by connectionPath.)
var aliases = map[string]string{
	"GET /ready":                 "GET /health",
	"GET /connection":            "GET /connections",
	"POST /connection/metadata":  "POST /connections/metadata",
	"PATCH /connection/metadata": "PATCH /connections/metadata",
}

// outOfScope are the parts of Nango's API that keycaddy hasn't got: syncs,
// actions, and what customers' own code in it is for.
var outOfScope = []string{
	"/sync", "/sync/", "/syncs", "/syncs/", "/records", "/records/", "/action/", "/v1/", "/scripts/", "/functions/", "/flow/", "/flows/",
	"/integrations/{key}/functions", "/integrations/{key}/functions/", "/mcp", "/environment/",
}

// outOfScopeForBrowsers are calls of pages, which have no API key.
var outOfScopeForBrowsers = []string{"/auth/oauth-outbound/", "/app-auth/"}

func notHere(http.ResponseWriter, *http.Request) error {
	return &problem.Problem{Status: http.StatusNotImplemented, Code: "not_implemented", Message: "keycaddy connects and calls providers; it has no syncs, records, actions, functions or flows.", Action: "fix_request"}
}
