//go:build unix

package torture

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// process is one that the harness has started. It ends with the harness: by the
// end of its standard input, and on Linux by a signal too.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}
}

// start starts cmd as the owner (nil: this user).
func start(cmd *exec.Cmd, owner *syscall.Credential) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner}
	endWithParent(cmd.SysProcAttr)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // whose end is what Linux takes for the parent's
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() // how it has ended is no news: the harness has ended it
			close(p.ended)
		}
	}()
	return p, <-started
}

func (p *process) signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// end ends the process and waits for it.
func (p *process) end(s syscall.Signal) {
	if s == 0 {
		p.stdin.Close()
	} else {
		p.cmd.Process.Signal(s) // it may have ended already
	}
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
	}
	p.stdin.Close()
}

// unusedPort returns a port of loopback that nobody listens on.
func unusedPort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// servant is whom PostgreSQL has to run as, which refuses to run as root; nil:
// this user.
func servant() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("root can't run PostgreSQL, and there is no user postgres or nobody to do so")
}

// eventually waits until do succeeds.
func eventually(within time.Duration, do func() error) error {
	for end := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		err := do()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
