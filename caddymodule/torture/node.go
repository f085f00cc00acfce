//go:build unix

package torture

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keycaddy/keycaddy/connect"
)

// client makes the harness's own requests. It opens a connection for each, since
// the other end may be another process by the next.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 70 * time.Second}

// quiet drops what servers log about clients that were killed.
var quiet = log.New(io.Discard, "", 0)

// node is a keycaddy in a process of its own, which may be killed and started
// again: a place for one life after the other.
type node struct {
	program, folder, url, key string
	lease                     time.Duration
	board                     *board
	// crashed is told of a life that has ended by itself.
	crashed func(*node)

	mu   sync.Mutex
	life *life
}

// life is one process of a node.
type life struct {
	*process
	commands sync.Mutex
	answers  chan string
	started  chan struct{}
	read     sync.WaitGroup // until all that it has told was read
	meant    atomic.Bool    // to end
}

// start starts the node's next life and doesn't wait until it is ready.
func (n *node) start() error {
	args := []string{"keycaddy", "torture-node", "--config", filepath.Join(n.folder, "Caddyfile"), "--lease", n.lease.String()}
	cmd := exec.Command(n.program, args...)
	cmd.Dir = n.folder
	cmd.Env = append(os.Environ(), "HOME="+n.folder, "XDG_DATA_HOME="+filepath.Join(n.folder, "data"),
		"XDG_CONFIG_HOME="+filepath.Join(n.folder, "config"), "GORACE=halt_on_error=1")
	// Pipes of our own: exec's may lose what a killed process has told last.
	told, stdout, err := os.Pipe()
	if err != nil {
		return err
	}
	logged, stderr, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	l := &life{answers: make(chan string, 1), started: make(chan struct{})}
	l.process, err = start(cmd, nil)
	if err := errors.Join(err, stdout.Close(), stderr.Close()); err != nil {
		return fmt.Errorf("starting a node: %w", err)
	}
	l.read.Go(func() { n.listen(l, told) })
	l.read.Go(func() { n.copyLog(logged) })
	n.mu.Lock()
	n.life = l
	n.mu.Unlock()
	go func() {
		<-l.ended
		if !l.meant.Load() {
			n.crashed(n)
		}
	}()
	return nil
}

func (n *node) listen(l *life, told *os.File) {
	defer told.Close()
	for lines := bufio.NewScanner(told); lines.Scan(); {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) == 3 && (words[0] == "at" || words[0] == "held"):
			n.board.note(words, n)
		case len(words) == 1 && words[0] == "started":
			close(l.started)
		case len(words) > 0 && (words[0] == "ok" || words[0] == "error:"):
			l.answers <- lines.Text()
		}
	}
}

// copyLog puts the log by, for whoever wants to know why.
func (n *node) copyLog(logged *os.File) {
	defer logged.Close()
	file, err := os.OpenFile(filepath.Join(n.folder, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		panic(err) // the folder is the harness's own
	}
	defer file.Close()
	for lines := bufio.NewReader(logged); ; {
		line, err := lines.ReadBytes('\n')
		n.board.log(line)
		file.Write(line)
		if err != nil {
			return
		}
	}
}

func (n *node) current() *life {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.life
}

// ready waits until the node has started.
func (n *node) ready() error {
	l := n.current()
	select {
	case <-l.started:
		return nil
	case <-l.ended:
		return fmt.Errorf("a node has ended; its log is in %s", n.folder)
	case <-time.After(2 * time.Minute):
		return errors.New("a node has not started within two minutes")
	}
}

// kill ends the node's life at once, and returns when all that it has told is
// on the board.
func (n *node) kill() {
	l := n.current()
	l.meant.Store(true)
	l.end(syscall.SIGKILL)
	l.read.Wait()
	n.board.die(n)
}

// stop lets the node end by itself.
func (n *node) stop() {
	if l := n.current(); l != nil {
		l.meant.Store(true)
		l.end(0)
		l.read.Wait()
	}
}

// tell gives the node's agent a command.
func (n *node) tell(words ...string) error {
	l := n.current()
	l.commands.Lock()
	defer l.commands.Unlock()
	command := strings.Join(words, " ")
	if _, err := io.WriteString(l.stdin, command+"\n"); err != nil {
		return fmt.Errorf("telling a node to %s: %w", command, err)
	}
	select {
	case answer := <-l.answers:
		if answer != "ok" {
			return fmt.Errorf("telling a node to %s: %s", command, answer)
		}
		return nil
	case <-l.ended:
		return fmt.Errorf("telling a node to %s: it has ended", command)
	case <-time.After(time.Minute):
		return fmt.Errorf("telling a node to %s: no answer", command)
	}
}

// call makes a call of the connection through the node's proxy. Code is what is
// wrong if the answer is the node's own.
func (n *node) call(ctx context.Context, id connect.ID) (status int, code string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+"/proxy/me", nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+n.key)
	req.Header.Set("Provider-Config-Key", id.Integration)
	req.Header.Set("Connection-Id", id.Connection)
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Header.Get("Keycaddy-Error"), err
}
