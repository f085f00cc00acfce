package connect

import (
	"context"
	"strings"
	"time"
	"unicode"
)

// LogKind says what a log is of.
type LogKind string

// The kinds of logs.
const (
	// LogConnect is one attempt to connect: its id is the flow's.
	LogConnect LogKind = "connect"
	// LogRefresh is one renewal for which the provider was asked.
	LogRefresh LogKind = "refresh"
	// LogCall is one call through the proxy.
	LogCall LogKind = "call"
	// LogFetch is one credential that was given to an app.
	LogFetch LogKind = "fetch"
)

// LogKinds are all kinds.
var LogKinds = []LogKind{LogConnect, LogRefresh, LogCall, LogFetch}

// LogStatus says how it went.
type LogStatus string

// The statuses of a log. A visitor who goes away leaves one that runs.
const (
	LogRunning LogStatus = "running"
	LogSuccess LogStatus = "success"
	LogFailure LogStatus = "failure"
)

// LogStatuses are all statuses.
var LogStatuses = []LogStatus{LogRunning, LogSuccess, LogFailure}

// DefaultLogsKept is how long logs are kept unless the operator says.
const DefaultLogsKept = 15 * 24 * time.Hour

const (
	// maxLogText bounds what is kept of a text, in characters, and maxLogSteps
	// how many steps one write brings.
	maxLogText, maxLogSteps = 500, 64
)

// Log is one thing that keycaddy has done, step by step. Nothing in it is
// secret; what others have said is cleaned and cut.
type Log struct {
	// Serial is the store's own number, rising with the first write of the ID.
	Serial int64
	ID     string
	Kind   LogKind
	Status LogStatus

	Integration, Connection, Provider string
	// EndUser is the app's user that it was for, Caller the API key that it was
	// done with.
	EndUser, Caller string
	// Code says what went wrong; Message says it in keycaddy's words, Detail in
	// the provider's.
	Code, Message, Detail string

	// Of a call. Path is without the query.
	Method, Path string
	Answer       int // the status that the caller got; 0: none
	Retries      int
	Replayed     bool

	Started time.Time
	// Changed is when it was last written, by the store's clock.
	Changed time.Time
	// Took is how long it took; 0: it isn't over, or nobody has measured.
	Took  time.Duration
	Steps []LogStep
}

// LogStep is one step of it.
type LogStep struct {
	At   time.Time `json:"at"`
	Name string    `json:"name"`
	// Message says more in keycaddy's words, Detail in the provider's.
	Message string `json:"message,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// LogQuery selects logs; zero fields select everything.
type LogQuery struct {
	Kind        LogKind
	Status      LogStatus
	Integration string
	Connection  string
	// Text is a part, in upper or lower case, of ids, codes, messages, paths,
	// callers and end users.
	Text string
	// Since and Until bound when it started; ChangedSince selects what was
	// written after.
	Since, Until, ChangedSince time.Time
	// Before selects those with a smaller serial; Limit is how many, 100 if 0.
	Before int64
	Limit  int
}

// LogStore is the part of a Store that keeps logs.
type LogStore interface {
	// WriteLogs adds logs, and to those whose ID is there already what is new:
	// fields that aren't empty, and steps. Writing the same again changes
	// nothing.
	WriteLogs(ctx context.Context, logs []Log) error
	// Logs returns what q selects, newest first, without steps.
	Logs(ctx context.Context, q LogQuery) ([]Log, error)
	// Log returns one with its steps, in their order, or ErrNotFound.
	Log(ctx context.Context, id string) (Log, error)
	// SweepLogs removes logs that started before, at most limit of them, and
	// returns how many.
	SweepLogs(ctx context.Context, before time.Time, limit int) (int, error)
}

// SearchText is what LogQuery.Text looks in, in lower case as Go has it.
func (l *Log) SearchText() string {
	return strings.ToLower(strings.Join([]string{
		l.ID, l.Integration, l.Connection, l.EndUser, l.Caller, l.Code, l.Message, l.Detail, l.Path,
	}, "\x1f"))
}

// tidy makes a log fit to be kept.
func (l *Log) tidy() {
	for _, s := range []*string{&l.Integration, &l.Connection, &l.Provider, &l.EndUser, &l.Caller, &l.Code, &l.Message, &l.Detail, &l.Method, &l.Path} {
		*s = printable(*s)
	}
	if len(l.Steps) > maxLogSteps {
		l.Steps = l.Steps[:maxLogSteps]
	}
	for i := range l.Steps {
		s := &l.Steps[i]
		s.At = s.At.UTC().Truncate(time.Microsecond)
		if i > 0 && !s.At.After(l.Steps[i-1].At) { // steps are told apart by when they were
			s.At = l.Steps[i-1].At.Add(time.Microsecond)
		}
		s.Message, s.Detail = printable(s.Message), printable(s.Detail)
	}
	l.Started = l.Started.UTC().Truncate(time.Microsecond)
	l.Took = l.Took.Truncate(time.Microsecond)
}

// printable is a text on one line, without what would do something to a
// terminal, and not too long.
func printable(s string) string {
	n := 0
	return strings.Map(func(r rune) rune {
		switch n++; {
		case n > maxLogText, !unicode.IsPrint(r) && !unicode.IsSpace(r):
			return -1
		case unicode.IsSpace(r):
			return ' '
		}
		return r
	}, s)
}
