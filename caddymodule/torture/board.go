//go:build unix

package torture

import (
	"encoding/json"
	"slices"
	"sync"
)

// board is what the nodes have told, over all of their lives.
type board struct {
	mu       sync.Mutex
	steps    map[place]string // the last step
	held     map[place]string // the step that it is held at
	died     map[place]string // the step that it was at when its node was killed
	reported map[string][]string
	felt     map[string][]string
}

// place is one connection in one node.
type place struct {
	node       *node
	connection string
}

func newBoard() *board {
	return &board{steps: map[place]string{}, held: map[place]string{}, died: map[place]string{}, reported: map[string][]string{}, felt: map[string][]string{}}
}

func (b *board) note(words []string, n *node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := place{n, words[2]}
	switch words[0] {
	case "at":
		b.steps[p] = words[1]
	case "held":
		b.held[p] = words[1]
	}
}

func (b *board) heldAt(p place) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held[p]
}

// die notes where the renewals of a node were when it was killed.
func (b *board) die(n *node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for p, step := range b.steps {
		if p.node == n {
			// Not over where it was in a life before: that may be what counts.
			if step != "released" && !onTheWay(b.died[p]) {
				b.died[p] = step
			}
			delete(b.steps, p)
		}
	}
}

// onTheWay tells whether a renewal at this step has its answer on the wire, or in
// memory only.
func onTheWay(step string) bool { return step == "asking" || step == "answered" }

// diedAt returns the step that a renewal was at when its node was killed, and
// forgets it.
func (b *board) diedAt(p place) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	step := b.died[p]
	delete(b.died, p)
	return step
}

// reports are the causes that connections were reported lost with.
func (b *board) reports(connection string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reported[connection]
}

// needsUser is the message of the one event that reports a lost connection.
const needsUser = "connection needs its user again"

// log reads a line of a node's log.
func (b *board) log(line []byte) {
	var event struct{ Msg, Connection, Cause string }
	if json.Unmarshal(line, &event) != nil {
		return // not an event
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch event.Msg {
	case needsUser:
		b.reported[event.Connection] = append(b.reported[event.Connection], event.Cause)
	case notSpooled, notWritten:
		b.felt[event.Connection] = append(b.felt[event.Connection], event.Msg)
	}
}

// hasFelt tells whether a node has logged the message about a connection.
func (b *board) hasFelt(connection, msg string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Contains(b.felt[connection], msg)
}
