package page

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/keycaddy/keycaddy/connect"
)

const (
	// maxSockets bounds how many pages may wait on one node (S96).
	maxSockets = 10_000
	// lookEvery is how often the store is asked how flows have ended, which may
	// have been on another node.
	lookEvery = 500 * time.Millisecond
	// pingEvery keeps proxies from ending a socket on which nothing is said.
	pingEvery = 25 * time.Second
)

// sockets are those on which pages of the app's wait to be told how an attempt
// ends that they have started. Nothing else is said on them, and nothing read.
type sockets struct {
	connector *connect.Connector
	logger    *zap.Logger

	mu      sync.Mutex
	waiting map[connect.Digest]chan connect.Flow
}

// message is what is said on a socket, in the shape of Nango's.
type message struct {
	Type        string  `json:"message_type"`
	Client      string  `json:"ws_client_id,omitempty"`
	Integration string  `json:"provider_config_key,omitempty"`
	Connection  *string `json:"connection_id,omitempty"`
	Pending     *bool   `json:"is_pending,omitempty"`
	ErrorType   string  `json:"error_type,omitempty"`
	Error       string  `json:"error_desc,omitempty"`
}

// isSocket tells whether a request opens a socket where the SDK does by default.
func isSocket(r *http.Request) bool {
	return r.URL.Path == "/" && r.Header.Get("Upgrade") == "websocket"
}

// serveSocket gives a page a name to start an attempt with, and tells it how
// that ends. Only pages of listed origins get one (S103).
func (h *Handler) serveSocket(w http.ResponseWriter, r *http.Request) {
	if origin := r.Header.Get("Origin"); !slices.Contains(h.connector.Setup.AppOrigins(), origin) {
		h.logger.Warn("refused a socket: its page's origin is neither an app_origin nor an embedder", zap.String("origin", origin))
		http.Error(w, "This origin is neither an app_origin nor an embedder.", http.StatusForbidden)
		return
	}
	name := uuid.NewString()
	ended, ok := h.sockets.add(name)
	if !ok {
		w.Header().Set("Retry-After", "30")
		http.Error(w, "Too many pages are waiting.", http.StatusServiceUnavailable)
		return
	}
	defer h.sockets.remove(name)
	socket, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // the origin was looked at
	if err != nil {
		h.logger.Debug("opening a socket", zap.Error(err)) // it has answered
		return
	}
	defer func() { _ = socket.CloseNow() }()
	ctx, cancel := context.WithTimeout(socket.CloseRead(context.WithoutCancel(r.Context())), connect.SessionTTL)
	defer cancel()
	if err := say(ctx, socket, message{Type: "connection_ack", Client: name}); err != nil {
		return
	}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ping.C:
			if err := socket.Ping(ctx); err != nil {
				return
			}
		case f := <-ended:
			if err := say(ctx, socket, h.messageOf(&f)); err != nil {
				h.logger.Debug("the page that waits has gone", zap.Error(err))
			}
			_ = socket.Close(websocket.StatusNormalClosure, "") // the page may have gone first
			return
		}
	}
}

func say(ctx context.Context, socket *websocket.Conn, m message) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return socket.Write(ctx, websocket.MessageText, text)
}

// errorTypes are Nango's names of what can go wrong, where it has one.
var errorTypes = map[string]string{
	"integration_not_allowed": "provider_config_err",
	"invalid_fields":          "url_param_err",
	"other_browser":           "state_cookie_err",
	"connection_gone":         "connection_not_found",
	"server_error":            "unknown_err",
}

// messageOf says how a flow has ended.
func (h *Handler) messageOf(f *connect.Flow) message {
	o := f.Outcome
	m := message{Type: "success", Integration: f.Integration, Connection: &o.Connection}
	if o.Code == "" {
		m.Pending = new(bool)
		return m
	}
	m.Type, m.ErrorType = "error", o.Code
	if known, ok := errorTypes[o.Code]; ok {
		m.ErrorType = known
	}
	if m.Error = english.failure(o.Code, h.nameOf(f.Integration)).Text; o.Callback {
		m.ErrorType = "callback_err"
		m.Error += " Provider error: " + o.Code
	}
	if o.Detail != "" {
		m.Error += ": " + o.Detail
	}
	return m
}

// add begins to wait under a name.
func (s *sockets) add(name string) (<-chan connect.Flow, bool) {
	ended := make(chan connect.Flow, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) >= maxSockets {
		return nil, false
	}
	if s.waiting[connect.DigestOf(name)] = ended; len(s.waiting) == 1 {
		go s.look()
	}
	return ended, true
}

func (s *sockets) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, connect.DigestOf(name))
}

// tell tells who waits under a name on this node, if anybody does.
func (s *sockets) tell(name string, f connect.Flow) { s.told(connect.DigestOf(name), f) }

func (s *sockets) told(waiter connect.Digest, f connect.Flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.waiting[waiter] <- f:
	default: // nobody, or it was told already
	}
}

// look asks how flows have ended for as long as anybody waits.
func (s *sockets) look() {
	for {
		time.Sleep(lookEvery)
		s.mu.Lock()
		var waiters []connect.Digest
		for w := range s.waiting {
			waiters = append(waiters, w)
		}
		s.mu.Unlock()
		if len(waiters) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		flows, err := s.connector.Store.Ended(ctx, waiters)
		cancel()
		if err != nil {
			s.logger.Warn("asking how attempts have ended", zap.Error(err))
			if !errors.Is(err, connect.ErrStoreUnavailable) { // it was closed: another configuration has another one
				s.mu.Lock()
				clear(s.waiting)
				s.mu.Unlock()
				return
			}
			time.Sleep(10 * lookEvery)
		}
		for _, f := range flows {
			s.told(f.Waiter, f)
		}
	}
}
