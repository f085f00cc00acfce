package caddymodule

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/uuid"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/proxy"
)

// Logs says what is kept of what keycaddy does, to be looked up by the API and
// by `caddy keycaddy logs`. Attempts to connect and renewals are always kept,
// step by step.
type Logs struct {
	// How long logs are kept. Default: `15d`
	Keep caddy.Duration `json:"keep,omitempty"`

	// Which calls through the proxy are kept: `none`; `failed`, those answered
	// with 400 or more, up to 20 in a second; a share such as `1%`, of all calls
	// beside those; `all`. Default: failed
	Calls string `json:"calls,omitempty"`
}

// minLogsKept is the shortest time that logs can be kept for.
const minLogsKept = time.Minute

// callLogs is which calls are logged.
type callLogs struct {
	failed bool    // those that failed
	share  float64 // of all, from 0 to 1
}

// make checks what is said of logs; nil says nothing.
func (l *Logs) make() (kept time.Duration, calls callLogs, err error) {
	if l == nil {
		l = new(Logs)
	}
	switch kept = time.Duration(l.Keep); {
	case kept == 0:
		kept = connect.DefaultLogsKept
	case kept < minLogsKept:
		return 0, calls, fmt.Errorf("logs: keep: %v is less than a minute", kept)
	}
	switch l.Calls {
	case "", "failed":
		return kept, callLogs{failed: true}, nil
	case "none":
		return kept, callLogs{}, nil
	case "all":
		return kept, callLogs{share: 1}, nil
	}
	number, ok := strings.CutSuffix(l.Calls, "%")
	share, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(share >= 0 && share <= 100) {
		return 0, calls, fmt.Errorf("logs: calls: %q is none of none, failed, all, or a share such as 1%%", l.Calls)
	}
	return kept, callLogs{failed: true, share: share / 100}, nil
}

// parseLogs reads what is kept. Syntax:
//
//	logs {
//	    keep  <duration>
//	    calls none|failed|all|<share>%
//	}
func (a *App) parseLogs(d *caddyfile.Dispenser) error {
	if a.Logs != nil {
		return d.Err("logs is given twice")
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	a.Logs = new(Logs)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch d.Val() {
		case "keep":
			var raw string
			if a.Logs.Keep != 0 {
				return d.Err("keep is given twice")
			}
			if err := oneArg(d, &raw); err != nil {
				return err
			}
			kept, err := caddy.ParseDuration(raw)
			if err != nil {
				return d.Errf("keep: %q is not a duration such as 15d", raw)
			}
			a.Logs.Keep = caddy.Duration(kept)
		case "calls":
			if err := oneArg(d, &a.Logs.Calls); err != nil {
				return err
			}
		default:
			return d.Errf("unrecognized logs option %s", d.Val())
		}
	}
	return nil
}

// wants tells whether a call is logged. It takes no lock, and for most calls
// draws a number at most.
func (c callLogs) wants(j *connect.Journal, failed bool, now time.Time) bool {
	return c.share > 0 && rand.Float64() < c.share || c.failed && failed && j.Failed(now)
}

// logCall has a call logged that has ended, if it is one of those. Prefix is what
// comes before the provider's path; call is nil if the call was refused before it
// was clear whom it is for.
func (run *running) logCall(r *http.Request, prefix string, call *proxy.Call, began time.Time, aborted bool, err error) {
	failed := aborted || err != nil || call.Status >= 400
	now := time.Now()
	var unknown *connect.AuthError
	if errors.As(err, &unknown) || !run.calls.wants(run.runtime.journal, failed, now) {
		return
	}
	l := connect.Log{
		ID: strings.ReplaceAll(uuid.NewString(), "-", ""), Kind: connect.LogCall, Status: connect.LogSuccess,
		Method: r.Method, Path: strings.TrimPrefix(r.URL.EscapedPath(), prefix), Started: began, Took: now.Sub(began),
	}
	if call != nil {
		l.Integration, l.Connection, l.Caller = call.ID.Integration, call.ID.Connection, call.Caller.Name
		l.Provider, l.EndUser = call.Auth.Provider, call.Auth.User
		l.Answer, l.Retries, l.Replayed = call.Status, call.Retries, call.Replayed
	} else {
		l.Integration, l.Connection = r.Header.Get(proxy.HeaderIntegration), r.Header.Get(proxy.HeaderConnection)
	}
	if failed {
		l.Status = connect.LogFailure
	}
	switch {
	case aborted:
		l.Code, l.Message = "aborted", "The answer broke off."
	case err != nil:
		p := problem.Of(err)
		l.Answer, l.Code, l.Message = p.Status, p.Code, p.Message
	}
	run.runtime.journal.Call(l)
}
