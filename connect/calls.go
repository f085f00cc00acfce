package connect

import (
	"strings"
	"sync"
)

// Call is a call that is under way with a connection's credential. It is cut
// off when the connection is removed or disabled (S82).
type Call struct {
	// Cut ends the call. It is called at most once, by another goroutine, and
	// must not wait.
	Cut func()
	// By is who has made it, whose end is the call's end too.
	By *Caller

	in         *calls
	next, prev *Call
}

// calls are the calls of one connection.
type calls struct {
	mu    sync.Mutex
	first *Call
	ended string // the UID of the connection that has ended
}

// Attach adds a call that begins with b, and reports true; Detach has to
// follow. It reports false if the connection has ended meanwhile: then the call
// must not be made.
func (b *Bound) Attach(c *Call) bool {
	l := b.calls
	if l == nil { // it is of no refresher
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == b.UID {
		return false
	}
	c.in, c.next, c.prev = l, l.first, nil
	if l.first != nil {
		l.first.prev = c
	}
	l.first = c
	return true
}

// Detach removes a call that has ended. Doing so again does nothing.
func (c *Call) Detach() {
	if c.in == nil {
		return
	}
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.remove(c)
}

func (l *calls) remove(c *Call) {
	switch {
	case c.prev != nil:
		c.prev.next = c.next
	case l.first == c:
		l.first = c.next
	default:
		return // it was removed before
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.next, c.prev = nil, nil
}

// cut ends all calls of the connection with the UID, and those to come.
func (l *calls) cut(uid string) {
	uid = strings.Clone(uid) // what it may be a part of has the credential in it
	for {
		l.mu.Lock()
		l.ended = uid
		c := l.first
		if c != nil {
			l.remove(c)
		}
		l.mu.Unlock()
		if c == nil {
			return
		}
		c.Cut()
	}
}

// cutBy ends the calls of a caller.
func (l *calls) cutBy(c *Caller) {
	var theirs []*Call
	l.mu.Lock()
	for call := l.first; call != nil; call = call.next {
		if call.By != nil && call.By.usage == c.usage {
			theirs = append(theirs, call)
		}
	}
	for _, call := range theirs {
		l.remove(call)
	}
	l.mu.Unlock()
	for _, call := range theirs {
		call.Cut()
	}
}

// EndCaller cuts off the calls of a caller whose key was revoked.
func (r *Refresher) EndCaller(c *Caller) {
	r.entries.all().Range(func(_ ID, e *entry) bool {
		e.calls.cutBy(c)
		return true
	})
}

// reopen lets a connection be called that has ended before and is back.
func (l *calls) reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = ""
}
