package connect

import "sync"

// DefaultInMemory is how many connections are held in memory at the most. Each
// takes a little less than a kilobyte, and more with a long token.
const DefaultInMemory = 1_000_000

// memory has the connections whose credentials are held, for those to make room
// that were not called lately: the second-chance algorithm, also known as CLOCK.
// Calls don't come here, only what is bound anew does.
type memory struct {
	mu   sync.Mutex
	ring []*entry
	hand int
}

// add takes e, which was bound, and lets go of another's credential for it if
// there are too many. That one's calls and renewals go on, and its next call reads
// it again from store and vault.
func (m *memory) add(e *entry, limit int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.kept {
		return
	}
	e.kept = true
	e.called.Store(false) // its first call is no sign of others to come
	if len(m.ring) < limit {
		m.ring = append(m.ring, e)
		return
	}
	for n := len(m.ring); n > limit; n = len(m.ring) { // there were more by an older configuration
		m.ring[n-1].letGo()
		m.ring[n-1] = nil
		m.ring = m.ring[:n-1]
	}
	for {
		m.hand = (m.hand + 1) % len(m.ring)
		if old := m.ring[m.hand]; !old.called.Swap(false) {
			old.letGo()
			m.ring[m.hand] = e
			return
		}
	}
}

// letGo takes no lock of the entry's, whose holder may be waiting for memory's.
// What has just been bound may go with it, and is read again.
func (e *entry) letGo() {
	e.kept = false
	e.bound.Store(nil)
}
