package status

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"p9auth/test/manual"
)

// TestTheManualHasEachMetric and says which message of the log it counts.
func TestTheManualHasEachMetric(t *testing.T) {
	items := manual.Items(manual.Section(t, "factotum.8", "Status and metrics"), "Li")
	known := map[string]bool{}
	for _, g := range gauges {
		known[g.metric] = true
	}
	for _, e := range events {
		known[e.metric] = true
		if !strings.Contains(items[e.metric], e.line) {
			t.Errorf("factotum(8), %s: does not say that it counts %q", e.metric, e.line)
		}
	}
	for m := range known {
		if _, ok := items[m]; !ok {
			t.Errorf("factotum(8) does not have the metric %s", m)
		}
	}
	for m := range items {
		if !known[m] {
			t.Errorf("factotum(8) has the metric %s, which there is not", m)
		}
	}
}

// TestTheStatusLooksAsInTheManual but for its numbers.
func TestTheStatusLooksAsInTheManual(t *testing.T) {
	var s Stats
	for _, e := range []Event{Authenticated, Refused, SessionOpened} {
		s.Count(e)
	}
	now := Now{Open: []Session{{User: "alice", Service: "sshd", RHost: "192.0.2.7", PID: 11557, Since: time.Now()}}}
	text := regexp.MustCompile(`(?s)\.Bd -literal[^\n]*\n(.*?)\.Ed\n`).FindStringSubmatch(manual.Section(t, "factotum.8", "Status and metrics"))
	shape := func(s string) string {
		s = regexp.MustCompile(`, up [0-9hms]+`).ReplaceAllString(s, ", up 0s")
		return regexp.MustCompile(`[1-9]`).ReplaceAllString(regexp.MustCompile(`pid \d+`).ReplaceAllString(s, "pid 0"), "0")
	}
	if got := s.Text(now, time.Now(), "fuse"); text == nil || shape(got) != shape(text[1]) {
		t.Errorf("the status is\n%s\nnot as in factotum(8): %q", got, text)
	}
}
