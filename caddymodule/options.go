package caddymodule

import (
	"encoding/json"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() { httpcaddyfile.RegisterGlobalOption("keycaddy", parseApp) }

// parseApp sets up the app from the global option. Syntax:
//
//	keycaddy {
//	    public_url <origin>
//	    store      <name> ...
//	    vault      <name> ...
//	    app_name   <name>
//	    proofs     app|opener|person...
//	    return_url <address>...
//	    app_origin <origin>...
//	    look { ... }
//	    own_callbacks
//	    embedder   <origin>...
//	    api_key    <uuid>...
//	    api_key    <uuid> {
//	        name        <name>
//	        scopes      <scope>...
//	        integration <key>...
//	        connection  <id>...
//	        end_user    <id>...
//	        tag         <name> <value>
//	        call        [<method>[,<method>...]] <path>
//	        rate        <calls>/<time>
//	        expires     <time>
//	    }
//	    caller <name> {
//	        jwt {
//	            issuer       <text>
//	            audience     <text>
//	            jwks_url     <url>
//	            jwks_file    <file>
//	            end_user     <claim>
//	            connections  <claim>
//	            integrations <claim>
//	        }
//	        certificate {
//	            ca    <file>...
//	            names <name>...
//	        }
//	        scopes ... and limits, as api_key has them
//	    }
//	    catalog    <folder>
//	    catalog nango <file>
//	    webhook        <url> { ... }
//	    webhook_secret <secret>...
//	    environment    <name>
//	    logs { ... }
//	    in_memory      <connections>
//	    egress {
//	        allow <range>...
//	    }
//	    integration <key> {
//	        provider      <id>
//	        display_name  <name>
//	        client_id     <id>
//	        client_secret <secret>
//	        scopes        <scope>...
//	        authorization_param <name> <value>
//	        field         <name> <value>
//	        proofs        app|opener|person...
//	        return_url    <address>...
//	        app_origin    <origin>...
//	        own_callback
//	        allow_account_change
//	        look { ... }
//	    }
//	}
func parseApp(d *caddyfile.Dispenser, existing any) (any, error) {
	app := &App{Integrations: make(map[string]*Integration)}
	if existing != nil {
		return nil, d.Err("the global option keycaddy is given twice")
	}
	d.Next()
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	for d.NextBlock(0) {
		if err := app.parseOption(d); err != nil {
			return nil, err
		}
	}
	return httpcaddyfile.App{Name: "keycaddy", Value: caddyconfig.JSON(app, nil)}, nil
}

func (a *App) parseOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "public_url":
		return oneArg(d, &a.PublicURL)
	case "app_name":
		return oneArg(d, &a.AppName)
	case "proofs", "return_url", "app_origin":
		return a.Trust.parseOption(d)
	case "look":
		return parseLook(d, &a.Look)
	case "own_callbacks":
		return single(d, &a.OwnCallbacks)
	case "in_memory":
		return number(d, &a.InMemory)
	case "embedder":
		origins := d.RemainingArgs()
		if len(origins) == 0 {
			return d.ArgErr()
		}
		a.Embedders = append(a.Embedders, origins...)
		return nil
	case "catalog":
		return a.parseCatalog(d)
	case "api_key":
		return a.parseAPIKey(d)
	case "caller":
		return a.parseCaller(d)
	case "store":
		return parseGuest(d, &a.StoreRaw, "keycaddy.stores.", "store")
	case "vault":
		return parseGuest(d, &a.VaultRaw, "keycaddy.vaults.", "vault")
	case "egress":
		return a.Egress.parse(d)
	case "webhook":
		return a.parseWebhook(d)
	case "webhook_secret":
		return someArgs(d, &a.WebhookSecrets)
	case "logs":
		return a.parseLogs(d)
	case "environment":
		return oneArg(d, &a.Environment)
	case "integration":
		return a.parseIntegration(d)
	}
	return d.Errf("unrecognized option %s", d.Val())
}

// parseCatalog reads "catalog <folder>" or "catalog nango <file>".
func (a *App) parseCatalog(d *caddyfile.Dispenser) error {
	switch args := d.RemainingArgs(); {
	case len(args) == 2 && args[0] == "nango" && a.CatalogNango == "":
		a.CatalogNango = args[1]
	case len(args) == 2 && args[0] == "nango":
		return d.Err("catalog nango is given twice")
	case len(args) == 1 && a.Catalog == "":
		a.Catalog = args[0]
	case len(args) == 1:
		return d.Err("catalog is given twice")
	default:
		return d.ArgErr()
	}
	return nil
}

func parseGuest(d *caddyfile.Dispenser, raw *json.RawMessage, namespace, key string) error {
	if *raw != nil {
		return d.Errf("%s is given twice", key)
	}
	if !d.NextArg() {
		return d.ArgErr()
	}
	name := d.Val()
	module, err := caddyfile.UnmarshalModule(d, namespace+name)
	if err != nil {
		return err
	}
	*raw = caddyconfig.JSONModuleObject(module, key, name, nil)
	return nil
}

func (e *Egress) parse(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if d.Val() != "allow" {
			return d.Errf("unrecognized egress option %s", d.Val())
		}
		ranges := d.RemainingArgs()
		if len(ranges) == 0 {
			return d.ArgErr()
		}
		e.Allow = append(e.Allow, ranges...)
	}
	return nil
}

func (a *App) parseIntegration(d *caddyfile.Dispenser) error {
	var key string
	if err := oneArg(d, &key); err != nil {
		return err
	}
	if _, ok := a.Integrations[key]; ok {
		return d.Errf("integration %s is given twice", key)
	}
	in := new(Integration)
	a.Integrations[key] = in
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := in.parseOption(d); err != nil {
			return err
		}
	}
	return nil
}

func (in *Integration) parseOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "provider":
		return oneArg(d, &in.Provider)
	case "display_name":
		return oneArg(d, &in.DisplayName)
	case "client_id":
		return oneArg(d, &in.ClientID)
	case "client_secret":
		return oneArg(d, &in.ClientSecret)
	case "scopes":
		scopes := d.RemainingArgs()
		if len(scopes) == 0 {
			return d.ArgErr()
		}
		in.Scopes = append(in.Scopes, scopes...)
		return nil
	case "token_rate":
		return oneArg(d, &in.TokenRate)
	case "outage_grace":
		var text string
		if in.OutageGrace != nil {
			return d.Err("outage_grace is given twice")
		}
		if err := oneArg(d, &text); err != nil {
			return err
		}
		grace, err := caddy.ParseDuration(text)
		if err != nil || grace < 0 {
			return d.Errf("outage_grace: %q is not a duration such as 30m", text)
		}
		in.OutageGrace = (*caddy.Duration)(&grace)
		return nil
	case "authorization_param":
		return pair(d, &in.AuthorizationParams)
	case "field":
		return pair(d, &in.Fields)
	case "proofs", "return_url", "app_origin":
		return in.Trust.parseOption(d)
	case "look":
		return parseLook(d, &in.Look)
	case "own_callback":
		return single(d, &in.OwnCallback)
	case "allow_account_change":
		return single(d, &in.AllowAccountChange)
	}
	return d.Errf("unrecognized integration option %s", d.Val())
}

func (t *Trust) parseOption(d *caddyfile.Dispenser) error {
	into := map[string]*[]string{"proofs": &t.Proofs, "return_url": &t.ReturnURLs, "app_origin": &t.AppOrigins}[d.Val()]
	values := d.RemainingArgs()
	if len(values) == 0 {
		return d.ArgErr()
	}
	*into = append(*into, values...)
	return nil
}

func parseLook(d *caddyfile.Dispenser, look **Look) error {
	if *look != nil {
		return d.Err("look is given twice")
	}
	*look = new(Look)
	return (*look).parse(d)
}

// single reads an option that has no value and is given once.
func single(d *caddyfile.Dispenser, into *bool) error {
	if *into {
		return d.Errf("%s is given twice", d.Val())
	}
	*into = true
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// oneArg reads an option that has one value and is given once.
func oneArg(d *caddyfile.Dispenser, into *string) error {
	name := d.Val()
	if *into != "" {
		return d.Errf("%s is given twice", name)
	}
	if !d.NextArg() {
		return d.ArgErr()
	}
	*into = d.Val()
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// number reads an option's number.
func number(d *caddyfile.Dispenser, to *int) error {
	name, text := d.Val(), ""
	if err := oneArg(d, &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return d.Errf("%s: %q is not a number", name, text)
	}
	*to = n
	return nil
}

func pair(d *caddyfile.Dispenser, into *map[string]string) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.ArgErr()
	}
	if *into == nil {
		*into = make(map[string]string)
	}
	if _, ok := (*into)[args[0]]; ok {
		return d.Errf("%s is given twice", args[0])
	}
	(*into)[args[0]] = args[1]
	return nil
}
