package spool

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, folder string) *Spool {
	t.Helper()
	s, err := Open(folder)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func items(t *testing.T, s *Spool) []string {
	t.Helper()
	all, err := s.Items()
	must(t, err)
	var out []string
	for _, item := range all {
		out = append(out, string(item))
	}
	slices.Sort(out)
	return out
}

func TestItemsAreThereAfterARestart(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "new", "spool")
	s := open(t, folder)
	must(t, s.Put("../a", []byte("first")))
	must(t, s.Put("../a", []byte("second")))
	must(t, s.Put("b", bytes.Repeat([]byte{0}, 1<<20)))
	must(t, s.Remove("b"))
	must(t, s.Remove("b"))
	node := s.Node()
	must(t, s.Close())
	again := open(t, folder)
	if got := items(t, again); !slices.Equal(got, []string{"second"}) || again.Node() != node || node == "" {
		t.Errorf("%q of node %q, which was %q", got, again.Node(), node)
	}
	err := filepath.Walk(folder, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	must(t, err)
}

func TestProcessesHaveSlotsOfTheirOwn(t *testing.T) {
	folder := t.TempDir()
	a, b := open(t, folder), open(t, folder)
	if a.Node() == b.Node() {
		t.Fatal("two processes have one name")
	}
	must(t, a.Put("x", []byte("of a")))
	must(t, b.Put("x", []byte("of b")))
	left, err := b.Left()
	if err != nil || len(left) != 0 {
		t.Fatalf("a process that lives has left %v, %v", left, err)
	}
	must(t, a.Close())
	left, err = b.Left()
	must(t, err)
	if len(left) != 1 || left[0].Node() != a.Node() || !slices.Equal(items(t, left[0]), []string{"of a"}) {
		t.Fatalf("left: %v", left)
	}
	// While it is looked after, it is not given to a process that starts.
	if c := open(t, folder); c.Node() == a.Node() {
		t.Error("the slot was given to another")
	}
	must(t, left[0].Clear())
	must(t, left[0].Close())
	left, err = b.Left()
	if err != nil || len(left) != 0 {
		t.Errorf("there is still %v, %v", left, err)
	}
	if got := items(t, b); !slices.Equal(got, []string{"of b"}) {
		t.Errorf("%q", got)
	}
}

// A folder that can't be written is told, and nothing half is left (S122).
func TestS122PutThatFailsLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	must(t, s.Put("a", []byte("old")))
	// In the place of the item's file there is a folder that can't be replaced.
	name := filepath.Join(s.dir, file("b"))
	must(t, os.MkdirAll(filepath.Join(name, "x"), 0o700))
	if err := s.Put("b", []byte("new")); err == nil {
		t.Fatal("no error")
	}
	must(t, os.RemoveAll(name))
	entries, err := os.ReadDir(s.dir)
	must(t, err)
	if len(entries) != 3 { // the lock, the name, and a
		t.Errorf("left: %v", entries)
	}
	if got := items(t, s); fmt.Sprint(got) != "[old]" {
		t.Errorf("%q", got)
	}
}
