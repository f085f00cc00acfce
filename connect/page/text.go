package page

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/keycaddy/keycaddy/catalog"
	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/scheme"
)

// messages are all texts of the pages in one language; see english.
type messages struct {
	Lang, Dir string

	StepsLabel, StepChoose, StepConnect, StepDone, StepIsDone string

	ErrorTitle, ChooseTitle, ChooseLead, For string

	FormTitle, AgainTitle, Lead, AgainLead, Redirected                   string
	Continue, Connect, Leaving, Checking, Saving                         string
	Required, Optional, Pick, Show, Hide, Example                        string
	Around, When, FieldDocs, ConsoleLink, DocsLink, NewWindow            string
	GuideTitle, BackLink, SafeOAuth, SafeChecked, SafeStored, Unexpected string
	DoneTitle, DoneText, FailedTitle, TryAgain, Details, Close           string
	TheySaid, CodeLabel, NoSession                                       string
	ConfirmTitle, ConfirmLead, WhoGets, WhoGetsApp, WhoUnknown           string
	NotYou, NotYouKey, Yes, No, AskingApp, AppOnly                       string
	ChooseLeadApp, LeadApp, AgainLeadApp, OpenWindow                     string
	OpenedWindow, ScopesTitle, ScopesText                                string
	DoesNotFit, Spaces, TooLong, Unseen, OneOf, More                     string
	Search, SearchHint, Category, AllCategories, NoMatch, Waits          string
	Missing, FieldsTitle, FieldsTitles, FieldsText                       string
	PresetTitle, PresetText                                              string
	RefusedKey, RefusedDetails, RefusedText                              string
	Advice401, Advice403, Advice404, AdviceOther                         string
	UnreachableTitle, UnreachableText, TimeoutText, UpstreamText         string
	BusyText, AddressTitle, AddressText, NonsenseTitle                   string
	NonsenseText, OperatorTitle, OperatorText                            string

	NotFound, LinkExpired, NotOffered, NothingToChoose, ConnectionGone notice
	FlowExpired, OtherBrowser, ForeignForm, TooLarge, WrongHost        notice
	Unavailable, Broken                                                notice

	Failures                                   map[string]failure // by code
	FailureUpstream, FailureBusy, FailureOther failure
	Next                                       map[helper]string
}

// notice says what happened and what can be done.
type notice struct{ Title, Text, Next string }

// failure says why an authorization failed, and who can help.
type failure struct {
	Text string
	By   helper
}

type helper int

const (
	byVisitor helper = iota
	byTime
	byApp
	byOperator
)

// Operator tells whether nothing helps but the people who run the app.
func (f *failure) Operator() bool { return f.By == byOperator }

// failures are the texts of a language; who can help is the same in all.
func failures(texts map[string]string) map[string]failure {
	out := make(map[string]failure, len(texts))
	for code, text := range texts {
		out[code] = failure{text, english.Failures[code].By}
	}
	return out
}

// codeUnfinished is the code of a flow that hasn't come back yet.
const codeUnfinished = "unfinished"

func (m *messages) formTitle(name string, again bool) string {
	if again {
		return plain(m.AgainTitle, name)
	}
	return plain(m.FormTitle, name)
}

func (m *messages) doneTitle(name string) string   { return plain(m.DoneTitle, name) }
func (m *messages) failedTitle(name string) string { return plain(m.FailedTitle, name) }
func (m *messages) example(s string) string        { return plain(m.Example, s) }
func (m *messages) when(field, value string) string {
	return plain(m.When, field, value)
}
func (m *messages) consoleLink(name string) string { return plain(m.ConsoleLink, name) }
func (m *messages) docsLink(name string) string    { return plain(m.DocsLink, name) }

// failure is the text for a code; the code itself may be a provider's own word.
func (m *messages) failure(code, name string) failure {
	f, ok := m.Failures[code]
	if !ok {
		switch status := statusOf(code); {
		case status == http.StatusTooManyRequests:
			f = m.FailureBusy
		case status >= 500:
			f = m.FailureUpstream
		default:
			f = m.FailureOther
		}
	}
	f.Text = plain(f.Text, name)
	return f
}

// plain fills a text that may not mention the name.
func plain(text string, args ...any) string {
	if !strings.Contains(text, "%") {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// statusOf reads a code such as http_503; 0 if it is another.
func statusOf(code string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(code, "http_"))
	if err != nil || !strings.HasPrefix(code, "http_") {
		return 0
	}
	return n
}

// answerError is what is wrong with an answer, as a sentence. What the field's
// own rules say has a code, and so a text in every language; the rest is told as
// it comes.
func (m *messages) answerError(f *catalog.Field, answer, msg string) string {
	if msg == "" {
		return ""
	}
	var known *catalog.FieldError
	if errors.As(f.Check(answer), &known) {
		return m.fieldError(f, known)
	}
	if answer != strings.TrimSpace(answer) {
		return m.Spaces
	}
	if m.Lang != english.Lang {
		return m.DoesNotFit
	}
	msg = strings.TrimPrefix(msg, f.Name+": ")
	if first, _ := utf8.DecodeRuneInString(msg); unicode.IsLower(first) {
		msg = f.Title() + " " + msg
	}
	if last, _ := utf8.DecodeLastRuneInString(msg); !unicode.IsPunct(last) {
		msg += "."
	}
	return msg
}

// fieldError is the text for a code.
func (m *messages) fieldError(f *catalog.Field, e *catalog.FieldError) string {
	text := m.DoesNotFit
	switch e.Code {
	case catalog.CodeRequired:
		text = m.Missing
	case catalog.CodeTooLong:
		text = m.TooLong
	case catalog.CodeCharacter:
		text = m.Unseen
	case catalog.CodeEnum:
		text = m.OneOf
	}
	if f.Example != "" && text == m.DoesNotFit {
		text += " " + m.example(f.Example)
	}
	return text
}

func (m *messages) fieldsAlert(n int) notice {
	title := m.FieldsTitle
	if n > 1 {
		title = plain(m.FieldsTitles, n)
	}
	return notice{Title: title, Text: m.FieldsText}
}

func (m *messages) presetAlert(in *connect.Integration, names []string) notice {
	slices.Sort(names)
	return notice{Title: m.PresetTitle, Text: plain(m.PresetText, in.DisplayName, strings.Join(names, ", "))}
}

func (m *messages) refusedAlert(in *connect.Integration, status int) notice {
	advice := m.AdviceOther
	switch status {
	case http.StatusUnauthorized:
		advice = m.Advice401
	case http.StatusForbidden:
		advice = m.Advice403
	case http.StatusNotFound:
		advice = m.Advice404
	}
	return m.refusal(in, strconv.Itoa(status), advice)
}

func (m *messages) refusal(in *connect.Integration, answer, advice string) notice {
	title := m.RefusedDetails
	if in.Provider.Mode == catalog.ModeAPIKey {
		title = m.RefusedKey
	}
	name := in.DisplayName
	return notice{Title: plain(title, name), Text: plain(m.RefusedText, name, answer, advice)}
}

func (m *messages) unreachableAlert(in *connect.Integration) notice {
	return notice{Title: plain(m.UnreachableTitle, in.DisplayName), Text: plain(m.UnreachableText, in.DisplayName)}
}

func (m *messages) notYetAlert(in *connect.Integration) notice {
	return m.operatorAlert(in, "unsupported")
}

func (m *messages) operatorAlert(in *connect.Integration, code string) notice {
	return notice{Title: plain(m.OperatorTitle, in.DisplayName), Text: plain(m.OperatorText, in.DisplayName, code)}
}

// accountAlert says that it is another account than before.
func (m *messages) accountAlert(in *connect.Integration, err error) notice {
	code := "other_account"
	if errors.Is(err, connect.ErrAccountUnknown) {
		code = "account_unknown"
	}
	return notice{Title: m.failedTitle(in.DisplayName), Text: m.failure(code, in.DisplayName).Text}
}

// ownClientCodes are refusals of what the visitor has entered, where that is a
// client's id and secret.
var ownClientCodes = []string{
	"invalid_client", "unauthorized_client", "invalid_client_id", "bad_client_secret", "incorrect_client_credentials",
}

// tokenAlert says what came of asking the provider while connecting, and the
// status of the page.
func (m *messages) tokenAlert(in *connect.Integration, e *scheme.TokenError) (notice, int) {
	name, status := in.DisplayName, statusOf(e.Code)
	n := m.unreachableAlert(in)
	switch {
	case e.Code == "refused_address":
		return notice{Title: m.AddressTitle, Text: m.AddressText}, http.StatusUnprocessableEntity
	case slices.Contains(ownClientCodes, e.Code), e.Class == scheme.Revoked:
		return m.refusal(in, e.Code, m.Advice401), http.StatusUnprocessableEntity
	case e.Class == scheme.Misconfigured:
		return m.operatorAlert(in, e.Code), http.StatusBadGateway
	case e.Code == "timeout":
		n.Text = plain(m.TimeoutText, name)
	case status == http.StatusTooManyRequests:
		n.Text = plain(m.BusyText, name)
	case status >= 500, status == http.StatusRequestTimeout:
		n.Text = plain(m.UpstreamText, name, strconv.Itoa(status))
	case status >= 400:
		return m.refusedAlert(in, status), http.StatusUnprocessableEntity
	case e.Code != "unreachable":
		n = notice{Title: plain(m.NonsenseTitle, name), Text: plain(m.NonsenseText, name, e.Code)}
	}
	return n, http.StatusBadGateway
}
