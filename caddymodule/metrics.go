package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keycaddy/keycaddy/connect"
	"github.com/keycaddy/keycaddy/connect/problem"
	"github.com/keycaddy/keycaddy/proxy"
	"github.com/keycaddy/keycaddy/vault"
)

// metrics are what a runtime counts. They outlive reloads, and are shown by each
// configuration's registry. Labels are bounded: the providers that are set up,
// and outcomes that are statuses by class or keycaddy's own codes; never
// a connection, a path, a caller (S125).
type metrics struct {
	calls       *prometheus.CounterVec
	inFlight    prometheus.Gauge
	queued      prometheus.Gauge
	replays     *prometheus.CounterVec
	retries     *prometheus.CounterVec
	echoes      *prometheus.CounterVec
	duration    prometheus.Histogram
	preparation prometheus.Histogram
	deliveries  *prometheus.CounterVec
	outbox      prometheus.Gauge
	logsDropped *prometheus.CounterVec
	logsWaiting prometheus.GaugeFunc
	refreshes   *prometheus.CounterVec
	refreshTook prometheus.Histogram
	vaultTook   *prometheus.HistogramVec
	storeTook   prometheus.Histogram
	unwritten   prometheus.GaugeFunc
	refresher   atomic.Pointer[connect.Refresher] // nil until the store is open
	journal     atomic.Pointer[connect.Journal]   // nil until the store is open

	mu      sync.Mutex // held while outcomes gets a new provider
	classes atomic.Pointer[map[string]*classes]
}

// classes are a provider's counters of the outcomes that a call may have by
// status: looked up once, so that a call takes no lock.
type classes [7]prometheus.Counter

var classNames = [7]string{"1xx", "2xx", "3xx", "4xx", "5xx", "401", "429"}

func classOf(status int) int {
	switch {
	case status == 401:
		return 5
	case status == 429:
		return 6
	}
	return min(max(status/100, 1), 5) - 1
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "keycaddy", Name: name, Help: help}, labels)
	}
	m := &metrics{
		calls:       counter("calls_total", "Calls through the proxy, by what became of them: the provider's status by class, or the code of keycaddy's own answer.", "provider", "outcome"),
		inFlight:    prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "keycaddy", Name: "calls_in_flight", Help: "Calls, streams and WebSockets that are under way."}),
		queued:      prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "keycaddy", Name: "calls_waiting", Help: "Calls that wait for their turn, since their connection or their caller has as many under way as it may."}),
		replays:     counter("replays_total", "Calls that were sent again because their credential had ended.", "provider"),
		retries:     counter("retries_total", "Attempts that were made because the provider was too busy or could not be reached.", "provider"),
		echoes:      counter("echoes_total", "Answers that had the call's credential in them.", "provider"),
		deliveries:  counter("webhook_attempts_total", "Attempts to deliver a webhook, by result: delivered, failed, given_up.", "result"),
		logsDropped: counter("logs_dropped_total", "Logs that were not kept since the store did not keep up, by kind.", "kind"),
		outbox: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "keycaddy", Name: "outbox_events", Help: "Deliveries of events that wait, of all nodes, counted every 15 seconds.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "keycaddy", Name: "call_duration_seconds", Help: "How long calls take, with all of their answer.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}),
		preparation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "keycaddy", Name: "call_preparation_seconds", Help: "How long it takes until a call is sent to the provider: what keycaddy adds, and the wait for a credential that has to be renewed first.",
			Buckets: []float64{.00001, .00005, .0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 30},
		}),
	}
	m.logsWaiting = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "keycaddy", Name: "logs_waiting", Help: "Logs that wait to be written to the store.",
	}, func() float64 {
		if j := m.journal.Load(); j != nil {
			return float64(j.Waiting())
		}
		return 0
	})
	m.refreshes = counter("refreshes_total", "Renewals that a provider was asked for, by outcome: success, revoked (its user has to connect again), misconfigured, transient, failed.", "provider", "outcome")
	seconds := []float64{.001, .005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	m.refreshTook = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "keycaddy", Name: "refresh_duration_seconds", Help: "How long renewals take, with the vault and the store.", Buckets: seconds,
	})
	m.vaultTook = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "keycaddy", Name: "vault_duration_seconds", Help: "How long the vault takes, by operation (read, write, delete) and result (ok, unavailable, other).", Buckets: seconds,
	}, []string{"operation", "result"})
	m.storeTook = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "keycaddy", Name: "store_ping_seconds", Help: "How long the store takes to answer, asked every 15 seconds.", Buckets: seconds,
	})
	m.unwritten = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "keycaddy", Name: "credentials_unwritten", Help: "Renewed credentials that wait, sealed in the spool, for the vault.",
	}, func() float64 {
		if r := m.refresher.Load(); r != nil {
			return float64(r.Unwritten())
		}
		return 0
	})
	m.classes.Store(&map[string]*classes{})
	return m
}

// registry is a configuration's.
type registry = *prometheus.Registry

// register shows the metrics in a configuration's registry.
func (m *metrics) register(r registry) error {
	for _, c := range []prometheus.Collector{m.calls, m.inFlight, m.queued, m.replays, m.retries, m.echoes, m.duration, m.preparation, m.deliveries, m.outbox, m.logsDropped, m.logsWaiting, m.refreshes, m.refreshTook, m.vaultTook, m.storeTook, m.unwritten} {
		var already prometheus.AlreadyRegisteredError
		if err := r.Register(c); err != nil && !errors.As(err, &already) {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

// delivery counts an attempt to deliver a webhook.
func (m *metrics) delivery(result string) { m.deliveries.WithLabelValues(result).Inc() }

func (m *metrics) dropped(kind connect.LogKind) { m.logsDropped.WithLabelValues(string(kind)).Inc() }

func (m *metrics) waiting(events int) { m.outbox.Set(float64(events)) }

// refreshed counts a renewal.
func (m *metrics) refreshed(provider, outcome string, took time.Duration) {
	m.refreshes.WithLabelValues(provider, outcome).Inc()
	m.refreshTook.Observe(took.Seconds())
}

// pingEvery is how often the store is asked, to see how long it takes.
const pingEvery = 15 * time.Second

func (m *metrics) ping(ctx context.Context, store connect.Store) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		began := time.Now()
		if err := store.Ping(ctx); err == nil {
			m.storeTook.Observe(time.Since(began).Seconds())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// timed is a vault whose operations are timed.
type timed struct {
	vault.Vault
	took *prometheus.HistogramVec
}

func (t timed) observe(operation string, began time.Time, err error) {
	result := "ok"
	switch {
	case errors.Is(err, vault.ErrUnavailable):
		result = "unavailable"
	case err != nil && !errors.Is(err, vault.ErrNotFound):
		result = "other"
	}
	t.took.WithLabelValues(operation, result).Observe(time.Since(began).Seconds())
}

// Read implements vault.Vault.
func (t timed) Read(ctx context.Context, name string) (vault.Entry, error) {
	began := time.Now()
	e, err := t.Vault.Read(ctx, name)
	t.observe("read", began, err)
	return e, err
}

// Write implements vault.Vault.
func (t timed) Write(ctx context.Context, name string, value []byte, after vault.Version) (vault.Version, error) {
	began := time.Now()
	v, err := t.Vault.Write(ctx, name, value, after)
	t.observe("write", began, err)
	return v, err
}

// Delete implements vault.Vault.
func (t timed) Delete(ctx context.Context, name string) error {
	began := time.Now()
	err := t.Vault.Delete(ctx, name)
	t.observe("delete", began, err)
	return err
}

// Close closes the vault, if it has something to close.
func (t timed) Close() error {
	if c, ok := t.Vault.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// of are the counters of a provider.
func (m *metrics) of(provider string) *classes {
	if c := (*m.classes.Load())[provider]; c != nil {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known := maps.Clone(*m.classes.Load())
	c := new(classes)
	for i, name := range classNames {
		c[i] = m.calls.WithLabelValues(provider, name)
	}
	known[provider] = c
	m.classes.Store(&known)
	return c
}

// observe counts a call that has ended. Call is nil if it was refused before it
// was clear whom it is for; aborted tells that its answer broke off.
func (m *metrics) observe(call *proxy.Call, began time.Time, aborted bool, err error) {
	m.inFlight.Dec()
	m.duration.Observe(time.Since(began).Seconds())
	provider := "unknown"
	if call != nil {
		provider = call.Auth.Provider
		if !call.Sent.IsZero() {
			m.preparation.Observe(call.Sent.Sub(began).Seconds())
		}
		if call.Replayed {
			m.replays.WithLabelValues(provider).Inc()
		}
		if call.Retries > 0 {
			m.retries.WithLabelValues(provider).Add(float64(call.Retries))
		}
		if call.Echoed.Load() {
			m.echoes.WithLabelValues(provider).Inc()
		}
	}
	switch {
	case aborted:
		m.calls.WithLabelValues(provider, "aborted").Inc()
	case err != nil:
		m.calls.WithLabelValues(provider, problem.Of(err).Code).Inc()
	default:
		m.of(provider)[classOf(call.Status)].Inc()
	}
}
