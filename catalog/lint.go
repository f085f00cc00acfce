package catalog

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Problem is one rule that an entry does not meet. Entries with problems work;
// those shipped have none.
type Problem struct {
	Provider string
	Rule     string // one of the Rule constants
	Text     string
}

func (p Problem) String() string { return fmt.Sprintf("%s: %s (%s)", p.Provider, p.Text, p.Rule) }

// Rules of [Lint]. RuleVerify is advice only: an entry with a key should say how
// to try it, but some vendors have no request that is cheap enough.
const (
	RuleHTTPS   = "https"
	RuleDocs    = "docs"
	RuleExample = "example"
	RuleSecret  = "secret"
	RuleLabel   = "label"
	RuleURL     = "url"
	RuleVerify  = "verify"
)

var (
	secretName   = regexp.MustCompile(`(^|_)(password|secret|api_key|private_key|pat)$`)
	categoryForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
)

// Lint returns what an entry should have besides being readable. Every shipped
// entry passes. Those of the categories demo and private may point to wherever
// the operator says, by http too, and need no vendor's documentation.
func Lint(p *Provider) []Problem {
	l := linter{p: p}
	l.labels()
	l.links()
	l.urls()
	for _, list := range [][]Field{p.AppFields, p.ConnFields, p.CredFields} {
		for i := range list {
			l.field(&list[i])
		}
	}
	if (p.Mode == ModeAPIKey || p.Mode == ModeBasic) && p.Verify == nil {
		l.add(RuleVerify, "verify is missing; name a cheap request that proves the key works")
	}
	return l.out
}

type linter struct {
	p   *Provider
	out []Problem
}

func (l *linter) add(rule, format string, args ...any) {
	l.out = append(l.out, Problem{l.p.ID, rule, fmt.Sprintf(format, args...)})
}

func (l *linter) labels() {
	if len(l.p.ID) > 64 {
		l.add(RuleLabel, "id is longer than 64 characters")
	}
	if name := l.p.DisplayName; strings.TrimSpace(name) != name || name == "" || len(name) > 80 {
		l.add(RuleLabel, "display_name must be 1 to 80 characters without spaces around them")
	}
	if len(l.p.Categories) == 0 {
		l.add(RuleLabel, "categories is empty")
	}
	for _, c := range l.p.Categories {
		if !categoryForm.MatchString(c) {
			l.add(RuleLabel, "category %q: lower-case letters, digits and single hyphens", c)
		}
	}
}

func (l *linter) links() {
	d := l.p.Docs
	links := []string{d.Reference, d.Auth, d.Scopes, d.RateLimits, d.Console}
	if !slices.ContainsFunc(links, func(s string) bool { return s != "" }) && l.p.Mode != ModeNone && !l.ours() {
		l.add(RuleDocs, "docs has no link")
	}
	for _, list := range [][]Field{l.p.AppFields, l.p.ConnFields, l.p.CredFields} {
		for _, f := range list {
			links = append(links, f.Docs)
		}
	}
	for _, s := range links {
		if u, err := url.Parse(s); s != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
			l.add(RuleHTTPS, "documentation link %q must begin with https://", s)
		}
	}
}

func (l *linter) urls() {
	p := l.p
	var urls []URL
	if p.Authorize != nil {
		urls = append(urls, p.Authorize.URL, p.Authorize.RequestTokenURL)
	}
	if p.Token != nil {
		urls = append(urls, p.Token.URL)
		if p.Token.URL.IsZero() && p.Token.Method != "" && (p.Mode == ModeClientCredentials || p.Mode == ModeTwoStep) {
			l.add(RuleURL, "token.url is missing")
		}
	}
	for _, s := range p.TokenSteps {
		urls = append(urls, s.URL)
	}
	for _, a := range p.TokenAlt {
		urls = append(urls, a.URL)
	}
	for _, v := range p.Derive {
		if v.Request != nil {
			urls = append(urls, v.Request.URL)
		}
	}
	if p.Refresh != nil {
		urls = append(urls, p.Refresh.URL)
	}
	if p.Revoke != nil {
		urls = append(urls, p.Revoke.URL)
	}
	if p.Introspect != nil {
		urls = append(urls, p.Introspect.URL)
	}
	if p.Registration != nil {
		urls = append(urls, p.Registration.URL)
	}
	if p.Request != nil {
		urls = append(urls, p.Request.BaseURL)
	}
	if p.Verify != nil {
		urls = append(urls, p.Verify.BaseURL)
	}
	for _, u := range urls {
		for _, t := range u.alts {
			if t.scheme == "http" {
				l.add(RuleHTTPS, "%s must begin with https://", t.src)
			}
			// A URL of the operator's own is as safe as the operator makes it.
			if t.base != nil && t.base.ref.Namespace == "app" && !httpsOnly(t.base.field) && !l.ours() {
				l.add(RuleHTTPS, "%s leaves the scheme to the operator; give the field a regex that begins with ^https://", t.src)
			}
		}
	}
}

// ours tells whether the API is the operator's own.
func (l *linter) ours() bool {
	return slices.Contains(l.p.Categories, "demo") || slices.Contains(l.p.Categories, "private")
}

func httpsOnly(f *Field) bool {
	return f != nil && f.Regexp != nil && strings.HasPrefix(f.Regexp.String(), "^https://")
}

func (l *linter) field(f *Field) {
	if f.Secret && f.Example != "" && !strings.Contains(f.Example, "*") && len(f.Example) > 24 {
		l.add(RuleExample, "field %s: the example of a secret must be masked with *", f.Name)
	}
	if secretName.MatchString(f.Name) && !f.Secret {
		l.add(RuleSecret, "field %s must be marked secret", f.Name)
	}
	// A masked example can't match.
	if f.Example != "" && !strings.Contains(f.Example, "*") {
		if err := f.Check(f.Example); err != nil {
			l.add(RuleExample, "field %s: its own example %q is refused", f.Name, f.Example)
		}
	}
	if f.Default != "" && f.Check(f.Default) != nil {
		l.add(RuleExample, "field %s: its own default %q is refused", f.Name, f.Default)
	}
	if t := f.Title(); strings.TrimSpace(t) != t || len(t) > 60 || strings.HasSuffix(t, ".") {
		l.add(RuleLabel, "field %s: a label is a few words without a full stop", f.Name)
	}
	if h := f.Help; h != "" && (len(h) > 200 || !strings.HasSuffix(h, ".")) {
		l.add(RuleLabel, "field %s: help is one sentence of up to 200 characters", f.Name)
	}
}
