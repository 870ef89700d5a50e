package status

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"p9auth/test/manual"
)

// TestTheManualHasEachMetric and says which message of the log it counts.
func TestTheManualHasEachMetric(t *testing.T) {
	items := manual.Items(manual.Section(t, "factotum.8", "Status and metrics"), "Li")
	want := map[string][]string{}
	for _, g := range gauges {
		want[g.metric] = nil
	}
	for _, e := range events {
		want[e.metric] = append(want[e.metric], e.line)
	}
	manual.WantItems(t, "factotum(8)", items, want)
}

// TestTheManualHasEachMessageID with the line that it stands for.
func TestTheManualHasEachMessageID(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(manual.Top(), "man", "factotum.8"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range events {
		if seen[e.id] || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(e.id) {
			t.Errorf("%s has the MESSAGE_ID %q", e.line, e.id)
		}
		seen[e.id] = true
		if !strings.Contains(string(page), ".It Li "+e.id+"\n.Ql "+e.line+"\n") {
			t.Errorf("factotum(8) does not have %s, %s", e.id, e.line)
		}
	}
}

// TestTheStatusLooksAsInTheManual but for its numbers.
func TestTheStatusLooksAsInTheManual(t *testing.T) {
	var s Stats
	for _, e := range []Event{Authenticated, Refused, SessionOpened} {
		s.Count(e)
	}
	var reloads Reloads
	reloads.Count(nil)
	now := Now{Reloads: reloads.String(), Open: []Session{{User: "alice", Service: "sshd", RHost: "192.0.2.7", PID: 11557, Since: time.Now()}}}
	text := regexp.MustCompile(`(?s)\.Bd -literal[^\n]*\n(.*?)\.Ed\n`).FindStringSubmatch(manual.Section(t, "factotum.8", "Status and metrics"))
	shape := func(s string) string {
		s = regexp.MustCompile(`, up [0-9hms]+`).ReplaceAllString(s, ", up 0s")
		return regexp.MustCompile(`[1-9]`).ReplaceAllString(regexp.MustCompile(`pid \d+`).ReplaceAllString(s, "pid 0"), "0")
	}
	reloads.Count(errors.New("line 3:\n no"))
	if got, want := reloads.String(), `2 (the last was refused: line 3:\n no)`; got != want {
		t.Errorf("a reload that is refused: %s, want %s", got, want)
	}
	if got := s.Text(now, time.Now(), "fuse"); text == nil || shape(got) != shape(text[1]) {
		t.Errorf("the status is\n%s\nnot as in factotum(8): %q", got, text)
	}
}
