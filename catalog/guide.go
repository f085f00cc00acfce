package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Guide tells a person how to come by what is asked of them. What the entry
// doesn't say is made of its data, so that every entry has one.
type Guide struct {
	Steps  []string // sentences, in order
	Fields []FieldGuide
	Links  []Link // the vendor's own pages, the most useful first
}

// FieldGuide says where one value is found.
type FieldGuide struct {
	Name, Title string
	Where       string // a sentence
	Shape       string // how the value looks, as a sentence; may be empty
	Example     string // made up or masked; may be empty
	URL         string // the vendor's page about it; may be empty
}

// Text is all there is to say in words.
func (g FieldGuide) Text() string {
	if strings.Contains(g.Where, "begins with") {
		return g.Where
	}
	return strings.TrimSpace(g.Where + " " + g.Shape)
}

// Link leads to a page of the vendor.
type Link struct{ Text, URL string }

// Guide is for the person who connects an account.
func (p *Provider) Guide() Guide {
	g := Guide{Steps: p.UserSteps, Fields: p.fieldGuides(p.ConnFields, false)}
	g.Fields = append(g.Fields, p.fieldGuides(p.CredFields, true)...)
	if len(g.Steps) == 0 {
		g.Steps = p.userSteps(g.Fields)
	}
	if p.Authorize == nil { // with OAuth the console is the operator's
		g.Links = appendLink(g.Links, "Where it is made", p.Docs.Console)
	}
	g.Links = appendLink(g.Links, "How to sign in to the API", p.Docs.Auth)
	g.Links = appendLink(g.Links, "Documentation", p.Docs.Page())
	return g
}

// SetupGuide is for the operator who sets up an integration. It is empty where
// there is nothing to set up.
func (p *Provider) SetupGuide() Guide {
	var g Guide
	for i := range p.AppFields {
		g.Fields = append(g.Fields, p.fieldGuide(&p.AppFields[i], true))
	}
	if g.Steps = p.SetupSteps; len(g.Steps) == 0 {
		g.Steps = p.setupSteps()
	}
	if len(g.Steps)+len(g.Fields) == 0 {
		return Guide{}
	}
	g.Links = appendLink(g.Links, "Where an app is registered", p.Docs.Console)
	g.Links = appendLink(g.Links, "How apps sign in", p.Docs.Auth)
	g.Links = appendLink(g.Links, "Scopes", p.Docs.Scopes)
	g.Links = appendLink(g.Links, "Documentation", p.Docs.Page())
	return g
}

func appendLink(links []Link, text, url string) []Link {
	if url == "" || slices.ContainsFunc(links, func(l Link) bool { return l.URL == url }) {
		return links
	}
	return append(links, Link{text, url})
}

// ShortName is the display name without what stands in brackets after it.
func (p *Provider) ShortName() string {
	name, _, _ := strings.Cut(p.DisplayName, " (")
	return name
}

// registers tells whether the operator has to register an app with the vendor.
func (p *Provider) registers() bool {
	return p.Authorize != nil && (p.Registration == nil || p.Registration.Mode == "manual")
}

func (p *Provider) userSteps(fields []FieldGuide) []string {
	name := p.ShortName()
	var titles []string
	for _, f := range fields {
		titles = append(titles, f.Title)
	}
	if p.Authorize != nil {
		last := fmt.Sprintf("Sign in at %s, and agree to what is asked there.", cmp.Or(p.VendorDomain, name))
		if len(titles) == 0 {
			return []string{last}
		}
		return []string{fmt.Sprintf("Enter what says which %s account is yours: %s.", name, list(titles)), last}
	}
	if len(titles) == 0 {
		return []string{fmt.Sprintf("There is nothing to enter: %s is open to everybody.", name)}
	}
	sign := fmt.Sprintf("Sign in to %s.", name)
	if p.Docs.Console != "" {
		sign = fmt.Sprintf("Sign in to %s at %s.", name, p.Docs.Console)
	}
	return []string{sign, fmt.Sprintf("Find or make there: %s.", list(titles)), "Copy each value whole, and enter it here."}
}

func (p *Provider) setupSteps() []string {
	if !p.registers() {
		return nil
	}
	at := ""
	if p.Docs.Console != "" {
		at = " at " + p.Docs.Console
	}
	return []string{
		fmt.Sprintf("Register an OAuth app with %s%s.", p.ShortName(), at),
		"Give it the redirect URL <public_url>/oauth/callback.",
		"Put its client ID and client secret into the integration as client_id and client_secret.",
	}
}

// list joins words: a, b and c.
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
