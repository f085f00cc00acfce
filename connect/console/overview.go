package console

import (
	"net/url"
	"time"
)

type statistics struct {
	Connections struct {
		Active      int `json:"active"`
		NeedsReauth int `json:"needs_reauth"`
		Disabled    int `json:"disabled"`
	} `json:"connections"`
	Hours []struct {
		Hour      time.Time `json:"hour"`
		Kind      string    `json:"kind"`
		Status    string    `json:"status"`
		Count     int       `json:"count"`
		AverageMS float64   `json:"average_ms"`
	} `json:"hours"`
}

type health struct {
	Result   string `json:"result"`
	Degraded []struct {
		Part  string
		Since time.Time
	} `json:"degraded"`
	Unwritten int `json:"unwritten"`
}

type overviewBody struct {
	Statistics statistics
	Health     health
	Charts     []chart
	Latency    chart
	Failures   []log
	Ended      []connection
}

// hoursShown is how far back the overview looks.
const hoursShown = 24

func overview(v *visit) error {
	var b overviewBody
	if err := v.get("/statistics", nil, &b.Statistics); err != nil {
		return err
	}
	if err := v.get("/health", nil, &b.Health); err != nil {
		return err
	}
	var failures struct{ Logs []log }
	if err := v.get("/logs", url.Values{"status": {"failure"}, "limit": {"8"}}, &failures); err != nil {
		return err
	}
	var ended struct{ Connections []connection }
	if err := v.get("/connections", url.Values{"status": {"needs_reauth"}, "limit": {"8"}}, &ended); err != nil {
		return err
	}
	b.Failures, b.Ended = failures.Logs, ended.Connections
	first := time.Now().UTC().Truncate(time.Hour).Add(-(hoursShown - 1) * time.Hour)
	for _, c := range []chart{{Title: "Renewals", kind: "refresh"}, {Title: "Attempts to connect", kind: "connect"}, {Title: "Calls in the log", kind: "call"}} {
		c.fill(&b.Statistics, first)
		b.Charts = append(b.Charts, c)
	}
	b.Latency = chart{Title: "Time that providers take for calls", kind: "call", Unit: "ms"}
	b.Latency.fill(&b.Statistics, first)
	return v.show("overview", "Overview", b)
}

// chart is one bar for each hour, drawn in the page itself.
type chart struct {
	Title, Unit string
	Bars        []bar
	Good, Bad   int
	Most        int
	kind        string
}

// bar is what one hour has. Heights are in parts of a hundred.
type bar struct {
	X                     int
	Hour                  time.Time
	Good, Bad             int
	GoodHeight, BadHeight int
}

func (c *chart) fill(s *statistics, first time.Time) {
	c.Bars = make([]bar, hoursShown)
	for i := range c.Bars {
		c.Bars[i] = bar{X: i * 10, Hour: first.Add(time.Duration(i) * time.Hour)}
	}
	for _, h := range s.Hours {
		i := int(h.Hour.Sub(first) / time.Hour)
		if h.Kind != c.kind || i < 0 || i >= hoursShown || h.Status == "running" {
			continue
		}
		n := h.Count
		if c.Unit == "ms" {
			n = max(int(h.AverageMS), 1)
			if h.Status != "success" {
				continue
			}
		}
		if h.Status == "success" {
			c.Bars[i].Good, c.Good = n, c.Good+n
		} else {
			c.Bars[i].Bad, c.Bad = n, c.Bad+n
		}
		c.Most = max(c.Most, c.Bars[i].Good+c.Bars[i].Bad)
	}
	for i := range c.Bars {
		b := &c.Bars[i]
		b.GoodHeight, b.BadHeight = share(b.Good, c.Most), share(b.Bad, c.Most)
	}
}

// share is n of most in parts of a hundred, and seen if there is any.
func share(n, most int) int {
	if n == 0 {
		return 0
	}
	return max(n*100/most, 2)
}
