package caddymodule

import (
	"errors"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

func init() { caddy.RegisterModule(Admin{}) }

// adminPath is where the API is on Caddy's admin endpoint.
const adminPath = "/keycaddy"

// Admin is the REST API on Caddy's admin endpoint, below /keycaddy/. It asks
// for no key: whoever reaches that endpoint can change all of the
// configuration. The commands of `caddy keycaddy` use it.
type Admin struct {
	app     *App
	logger  *zap.Logger
	handler func() http.Handler
}

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.keycaddy", New: func() caddy.Module { return new(Admin) }}
}

// Provision finds the app, if there is one in the configuration.
func (a *Admin) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	app, err := ctx.AppIfConfigured("keycaddy")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil
	}
	if err != nil {
		return err
	}
	a.app = app.(*App)
	a.handler = sync.OnceValue(func() http.Handler {
		return http.StripPrefix(adminPath, a.app.api(a.logger, true))
	})
	return nil
}

// Routes implements caddy.AdminRouter.
func (a *Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: adminPath + "/", Handler: caddy.AdminHandlerFunc(a.serve)}}
}

func (a *Admin) serve(w http.ResponseWriter, r *http.Request) error {
	if a.app == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("the running configuration has no keycaddy")}
	}
	if _, err := a.app.wait(r.Context()); err != nil {
		return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: err}
	}
	a.handler().ServeHTTP(w, r)
	return nil
}

// Interface guards
var (
	_ caddy.AdminRouter = (*Admin)(nil)
	_ caddy.Provisioner = (*Admin)(nil)
)
