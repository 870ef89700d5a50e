package status

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"p9auth/internal/words"
)

// maxListed bounds the sessions in the status.
const maxListed = 1000

// A Now is the numbers of the moment.
type Now struct {
	Conversations int // with front ends
	Sessions      int // PAM sessions that are open
	Workers       int // PAM workers
	Capabilities  int // made in conversations that are still open
	Open          []Session
	Reloads       string // as Reloads says them
}

// A Session is a PAM session that is open.
type Session struct {
	User, Service, TTY, RHost string
	PID                       int
	Since                     time.Time
}

// Reloads counts how often the configuration was read again. Its zero value is ready.
type Reloads struct {
	mu      sync.Mutex
	n       int
	refused error // the last one, or nil
}

// Count counts one, which err refused unless it is nil.
func (r *Reloads) Count(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	r.refused = err
}

// String is their number, and why the last one was refused.
func (r *Reloads) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused != nil {
		return fmt.Sprintf("%d (the last was refused: %s)", r.n, words.Vis(r.refused.Error()))
	}
	return strconv.Itoa(r.n)
}

// gauges are the metrics that are numbers of the moment.
var gauges = []struct {
	metric, help string
	of           func(Now) int
}{
	{"p9auth_conversations", "Conversations with front ends.", func(n Now) int { return n.Conversations }},
	{"p9auth_sessions", "PAM sessions that are open.", func(n Now) int { return n.Sessions }},
	{"p9auth_workers", "PAM workers.", func(n Now) int { return n.Workers }},
	{"p9auth_capabilities", "Capabilities made in conversations that live.", func(n Now) int { return n.Capabilities }},
}

// Text is the status of factotum, which has run since began, with that backend
// of capabilities.
func (s *Stats) Text(now Now, began time.Time, backend string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "factotum      pid %d, up %s, backend %s\n", os.Getpid(), time.Since(began).Round(time.Second), backend)
	fmt.Fprintf(&b, "reloads       %s\n", now.Reloads)
	fmt.Fprintf(&b, "conversations %d\nsessions      %d\nworkers       %d\ncapabilities  %d (given in conversations that are still open)\n",
		now.Conversations, now.Sessions, now.Workers, now.Capabilities)
	for e := range nEvents {
		if n := s.Of(e); n > 0 {
			fmt.Fprintf(&b, "%-8d %s\n", n, events[e].help)
		}
	}
	list := slices.SortedFunc(slices.Values(now.Open), func(a, b Session) int { return cmp.Compare(a.PID, b.PID) })
	if len(list) > 0 {
		fmt.Fprintf(&b, "\n%-16s %-10s %-10s %8s %-19s %s\n", "USER", "SERVICE", "TTY", "PID", "SINCE", "FROM")
	}
	for i, l := range list {
		if i == maxListed {
			fmt.Fprintf(&b, "and %d more\n", len(list)-i)
			break
		}
		fmt.Fprintf(&b, "%-16s %-10s %-10s %8d %-19s %s\n", words.Vis(l.User), l.Service, l.TTY, l.PID, l.Since.Format("2006-01-02 15:04:05"), words.Vis(l.RHost))
	}
	return b.String()
}

// Metrics is the counters and gauges in Prometheus' text format, 0.0.4.
func (s *Stats) Metrics(now Now) string {
	var b strings.Builder
	for _, g := range gauges {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n%s %d\n", g.metric, g.help, g.metric, g.metric, g.of(now))
	}
	for e := range nEvents {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s counter\n%s %d\n", events[e].metric, events[e].help, events[e].metric, events[e].metric, s.Of(e))
	}
	return b.String()
}
