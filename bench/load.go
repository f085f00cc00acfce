package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// measurement is what one target did in one go.
type measurement struct {
	perSecond float64
	cpu       time.Duration // of the proxy, for each call
	p50, p99  time.Duration
	memory    int // of the process, in bytes
}

// ticksPerSecond is what Linux counts processor time in (USER_HZ).
const ticksPerSecond = 100

// measure lets the clients call for so long, and until at least so many calls
// were made.
func measure(t *target, s scenario, during time.Duration, least int) (measurement, error) {
	before, _, err := t.used()
	if err != nil {
		return measurement{}, err
	}
	var (
		next    atomic.Int64
		mu      sync.Mutex
		all     []time.Duration
		failure error
		clients sync.WaitGroup
	)
	began := time.Now()
	until := began.Add(during)
	for range s.clients {
		clients.Go(func() {
			took, err := client(t.address(s), s, &next, int64(least), until)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			failure = errors.Join(failure, err)
		})
	}
	clients.Wait()
	elapsed := time.Since(began)
	after, memory, err := t.used()
	if err = errors.Join(failure, err); err != nil {
		return measurement{}, err
	}
	slices.Sort(all)
	return measurement{
		perSecond: float64(len(all)) / elapsed.Seconds(),
		cpu:       time.Duration(after-before) * time.Second / ticksPerSecond / time.Duration(len(all)),
		p50:       all[len(all)/2],
		p99:       all[len(all)*99/100],
		memory:    memory,
	}, nil
}

// client sends one call after another over one connection.
func client(address string, s scenario, next *atomic.Int64, least int64, until time.Time) ([]time.Duration, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	head := []byte("GET /proxy/" + s.path + " HTTP/1.1\r\nHost: " + address + "\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: identity\r\n" +
		"Authorization: Bearer " + apiKey + "\r\nProvider-Config-Key: " + s.integration + "\r\nConnection-Id: " + connectionID(0) + "\r\n\r\n")
	id := head[len(head)-4-len(connectionID(0)) : len(head)-4]
	in := bufio.NewReaderSize(conn, 64<<10)
	var took []time.Duration
	for {
		began := time.Now()
		if began.After(until) && next.Load() >= least {
			return took, nil
		}
		copy(id, connectionID(int(next.Add(1))%s.connections))
		if _, err := conn.Write(head); err != nil {
			return took, err
		}
		if err := answer(in); err != nil {
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
