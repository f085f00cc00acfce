package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// measurement is what one target did in one round.
type measurement struct {
	elapsed, cpu time.Duration // cpu is the proxy's
	took         []time.Duration
	memory       int // of the process, in bytes
}

func (m *measurement) add(more measurement) {
	m.elapsed += more.elapsed
	m.cpu += more.cpu
	m.took = append(m.took, more.took...)
	m.memory = more.memory
}

// ticksPerSecond is what Linux counts processor time in (USER_HZ).
const ticksPerSecond = 100

// load is a scenario's clients, all of one target.
type load struct {
	target   *target
	scenario scenario
	clients  []*client
	next     atomic.Int64 // which of the connections is called next
}

// client sends one call after another over one connection.
type client struct {
	net.Conn
	in       *bufio.Reader
	head, id []byte // id is a part of head
}

func newLoad(t *target, s scenario) (*load, error) {
	l := &load{target: t, scenario: s}
	address := t.address(s)
	for range s.clients {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			l.close()
			return nil, err
		}
		head := []byte("GET /proxy/" + s.path + " HTTP/1.1\r\nHost: " + address + "\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: identity\r\n" +
			"Authorization: Bearer " + apiKey + "\r\nProvider-Config-Key: " + s.integration + "\r\nConnection-Id: " + connectionID(0) + "\r\n\r\n")
		l.clients = append(l.clients, &client{conn, bufio.NewReaderSize(conn, 64<<10), head, head[len(head)-4-len(connectionID(0)) : len(head)-4]})
	}
	return l, nil
}

func (l *load) close() {
	for _, c := range l.clients {
		c.Close()
	}
}

// measure lets the clients call for so long, and until at least so many calls
// were made since the load began.
func (l *load) measure(during time.Duration, least int64) (measurement, error) {
	before, _, err := l.target.used()
	if err != nil {
		return measurement{}, err
	}
	var (
		mu      sync.Mutex
		m       measurement
		failure error
		clients sync.WaitGroup
	)
	began := time.Now()
	until := began.Add(during)
	for _, c := range l.clients {
		clients.Go(func() {
			took, err := l.call(c, until, least)
			mu.Lock()
			defer mu.Unlock()
			m.took = append(m.took, took...)
			failure = errors.Join(failure, err)
		})
	}
	clients.Wait()
	m.elapsed = time.Since(began)
	after, memory, err := l.target.used()
	m.cpu, m.memory = time.Duration(after-before)*time.Second/ticksPerSecond, memory
	return m, errors.Join(failure, err)
}

func (l *load) call(c *client, until time.Time, least int64) ([]time.Duration, error) {
	var took []time.Duration
	for {
		began := time.Now()
		if began.After(until) && l.next.Load() >= least {
			return took, nil
		}
		copy(c.id, connectionID(int(l.next.Add(1))%l.scenario.connections))
		if _, err := c.Write(c.head); err != nil {
			return took, err
		}
		if err := answer(c.in); err != nil {
			return took, err
		}
		took = append(took, time.Since(began))
	}
}

// answer reads an answer, which has to be a good one.
func answer(in *bufio.Reader) error {
	status, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200")) {
		rest, _ := in.Peek(in.Buffered())
		return fmt.Errorf("got %s%s", status, rest)
	}
	length := -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return chunked(in)
	}
	_, err = in.Discard(length)
	return err
}

// chunked reads a body in chunks, without trailers.
func chunked(in *bufio.Reader) error {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 64)
		if err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, in, size+2); err != nil {
			return err
		}
		if size == 0 {
			return nil
		}
	}
}
