package catalog

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Problem is one rule that an entry does not meet.
type Problem struct {
	File string
	Line int    // 0: the file as a whole
	Rule string // one of the Rule constants
	Text string // what is wrong and what to do
}

func (p Problem) String() string {
	return (&ParseError{p.File, p.Line, p.Text + " (" + p.Rule + ")"}).Error()
}

// Advice reports whether the entry is fit for use all the same.
func (p Problem) Advice() bool { return p.Rule == RuleVerify }

// Rules of [Lint]. RuleVerify is advice only: an entry with a key should say how
// to try it, but some vendors have no request that is cheap enough.
const (
	RuleRead       = "read"       // the file is understood as a whole
	RuleHTTPS      = "https"      // credentials travel encrypted
	RuleDocs       = "docs"       // the vendor's pages are named
	RuleExample    = "example"    // examples and defaults pass their own field's rules
	RuleSecret     = "secret"     // secrets are marked, and stored where secrets are
	RuleLabel      = "label"      // names and texts have the form of all others
	RuleURL        = "url"        // every request has an address
	RuleUnused     = "unused"     // nobody is asked for what goes nowhere
	RuleCredential = "credential" // requests carry the credential
	RuleCallback   = "callback"   // what a browser brings can't choose a host
	RuleVerify     = "verify"     // there is a request that tries the credential
)

var (
	secretName   = regexp.MustCompile(`(^|_)(password|secret|api_key|private_key|pat)$`)
	categoryForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
)

// Lint returns what an entry should have besides being readable, in the order of
// its file. Every shipped entry passes. Those of the categories demo and private
// may point to wherever the operator says, by http too, and need no vendor's
// documentation.
func Lint(p *Provider) []Problem {
	l := linter{p: p, lines: linesOf(p.data), holes: holesOf(p)}
	l.labels()
	l.links()
	l.urls()
	l.fields("app", p.AppFields)
	l.fields("conn", p.ConnFields)
	l.fields("cred", p.CredFields)
	l.credential()
	l.callback()
	if (p.Mode == ModeAPIKey || p.Mode == ModeBasic) && p.Verify == nil {
		l.add("auth_scheme", RuleVerify, "verify is missing; name a cheap request that proves the key works")
	}
	slices.SortStableFunc(l.out, func(a, b Problem) int { return a.Line - b.Line })
	return l.out
}

type linter struct {
	p     *Provider
	lines func(path string) int
	holes []hole
	out   []Problem
}

// add notes what is wrong with the value at a path such as token.url.
func (l *linter) add(path, rule, format string, args ...any) {
	l.out = append(l.out, Problem{l.p.file, l.lines(path), rule, fmt.Sprintf(format, args...)})
}

func (l *linter) labels() {
	if len(l.p.ID) > 64 {
		l.add("id", RuleLabel, "id is longer than 64 characters; shorten it")
	}
	if name := l.p.DisplayName; strings.TrimSpace(name) != name || name == "" || len(name) > 80 {
		l.add("display_name", RuleLabel, "display_name must be 1 to 80 characters without spaces around them")
	}
	if len(l.p.Categories) == 0 {
		l.add("categories", RuleLabel, "categories is empty; name one, such as crm")
	}
	for i, c := range l.p.Categories {
		if !categoryForm.MatchString(c) {
			l.add(fmt.Sprintf("categories[%d]", i), RuleLabel, "category %q: lower-case letters, digits and single hyphens", c)
		}
	}
	l.steps("guide", l.p.UserSteps)
	l.steps("setup", l.p.SetupSteps)
}

// steps checks what a guide says.
func (l *linter) steps(path string, steps []string) {
	if len(steps) > 8 {
		l.add(path, RuleLabel, "%s has more than 8 steps; nobody follows that many", path)
	}
	for i, s := range steps {
		if len(s) > 240 || !strings.HasSuffix(s, ".") || strings.Contains(s, "\n") {
			l.add(fmt.Sprintf("%s[%d]", path, i), RuleLabel, "a step is a sentence or two of up to 240 characters")
		}
	}
}

func (l *linter) links() {
	d := l.p.Docs
	links := map[string]string{"docs.reference": d.Reference, "docs.auth": d.Auth, "docs.scopes": d.Scopes, "docs.rate_limits": d.RateLimits, "docs.console": d.Console}
	any := d.Host != ""
	for path, link := range links {
		any = any || link != ""
		l.link(path, link)
	}
	if !any && l.p.Mode != ModeNone && !l.ours() {
		l.add("docs", RuleDocs, "docs has no link; name the vendor's page about its API as docs.reference, or at least its site as docs.host")
	}
}

func (l *linter) link(path, link string) {
	if u, err := url.Parse(link); link != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		l.add(path, RuleHTTPS, "the link %q must begin with https://", link)
	}
}

func (l *linter) urls() {
	p := l.p
	for _, u := range p.urls() {
		for _, t := range u.url.alts {
			if t.scheme == "http" {
				l.add(u.path, RuleHTTPS, "%s must begin with https://", t.src)
			}
			// A URL of the operator's own is as safe as the operator makes it.
			if t.base != nil && t.base.ref.Namespace == "app" && !httpsOnly(t.base.field) && !l.ours() {
				l.add(u.path, RuleHTTPS, "%s leaves the scheme to the operator; give the field a regex that begins with ^https://", t.src)
			}
		}
	}
	if t := p.Token; t != nil && t.URL.IsZero() && (p.Mode == ModeClientCredentials || p.Mode == ModeTwoStep) {
		l.add("token", RuleURL, "token.url is missing; name the address that gives out tokens")
	}
}

// placedURL is a URL of an entry, and where it stands.
type placedURL struct {
	path string
	url  *URL
}

func (p *Provider) urls() []placedURL {
	var out []placedURL
	add := func(path string, u *URL) {
		if !u.IsZero() {
			out = append(out, placedURL{path, u})
		}
	}
	if a := p.Authorize; a != nil {
		add("authorize.url", &a.URL)
		add("authorize.request_token_url", &a.RequestTokenURL)
	}
	if p.Token != nil {
		add("token.url", &p.Token.URL)
	}
	for i := range p.TokenSteps {
		add(fmt.Sprintf("token_steps[%d].url", i), &p.TokenSteps[i].URL)
	}
	for name, alt := range p.TokenAlt {
		add("token_alt."+name+".url", &alt.URL)
	}
	if p.Refresh != nil {
		add("refresh.url", &p.Refresh.URL)
	}
	if p.Revoke != nil {
		add("revoke.url", &p.Revoke.URL)
	}
	if p.Introspect != nil {
		add("introspect.url", &p.Introspect.URL)
	}
	if p.Registration != nil {
		add("registration.url", &p.Registration.URL)
	}
	if p.Request != nil {
		add("request.base_url", &p.Request.BaseURL)
	}
	if p.Verify != nil {
		add("verify.base_url", &p.Verify.BaseURL)
	}
	if p.Account != nil && p.Account.Request != nil {
		add("account.request.url", &p.Account.Request.URL)
	}
	for i, d := range p.Derive {
		if d.Request != nil {
			add(fmt.Sprintf("derive[%d].request.url", i), &d.Request.URL)
		}
	}
	return out
}

// ours tells whether the API is the operator's own.
func (l *linter) ours() bool {
	return slices.Contains(l.p.Categories, "demo") || slices.Contains(l.p.Categories, "private")
}

func httpsOnly(f *Field) bool {
	return f != nil && f.Regexp != nil && strings.HasPrefix(f.Regexp.String(), "^https://")
}
