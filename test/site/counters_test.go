//go:build site

package site

import (
	"regexp"
	"strings"
	"testing"

	"p9auth/test/manual"
)

// counters are the displays about counters.
const (
	socket = iota
	cron
	shown
)

func TestCountersForPrometheusNodeExporter(t *testing.T) {
	s := up(t)
	page := manual.Displays(t, "p9auth-site.7", "Counters")
	s.daemon(t, "prometheus-node-exporter")
	s.do(t, "/root", page[socket])
	s.do(t, "/root", page[cron])
	// There is no cron in a testbed: its part is played by the shell, with the
	// user and the command of the line.
	line := regexp.MustCompile(`(?m)^\* \* \* \* \* (\w+) (.*)$`).FindStringSubmatch(s.Sh(t, "cat /etc/cron.d/p9auth"))
	if line == nil || line[1] != "root" || strings.Contains(line[2], "%") {
		t.Fatalf("the line for cron is %q", line)
	}
	minute := func() map[string]string {
		s.Sh(t, line[2])
		return samples(s.do(t, "/root", page[shown]))
	}
	for metric, n := range minute() {
		if n != "0" {
			t.Errorf("at first %s is %s", metric, n)
		}
	}
	term := s.atConsole(t, "alice", password)
	term.Expect(`\$ `)
	ssh{"bob", "password", anyHost, "wrong"}.wantRefused(t, s)
	ssh{"bob", "keyboard-interactive", anyHost, "wrong"}.wantRefused(t, s)
	got := minute()
	for metric, want := range map[string]string{
		"p9auth_authentications_total": "1", "p9auth_refusals_total": "2", "p9auth_sessions": "1", "p9auth_sessions_opened_total": "1",
		"p9auth_sessions_closed_total": "0", "p9auth_capabilities_redeemed_total": "1",
	} {
		if got[metric] != want {
			t.Errorf("node_exporter has %s as %q, not %s", metric, got[metric], want)
		}
	}
	for metric := range manual.Items(manual.Section(t, "factotum.8", "Status and metrics"), "Li") {
		if got[metric] == "" {
			t.Errorf("node_exporter does not have %s", metric)
		}
	}
	if out := s.Sh(t, "curl -sf http://localhost:9100/metrics"); !strings.Contains(out, "node_textfile_scrape_error 0\n") || !strings.Contains(out, "# TYPE p9auth_refusals_total counter\n") {
		t.Errorf("node_exporter has errors, or not the type: %.2000s", out)
	}
	// While factotum is away nothing is counted, and the file is kept, not cut.
	before := s.Sh(t, "cat /var/lib/prometheus/node-exporter/p9auth.prom")
	s.Sh(t, "mv /run/factotum/metrics /run/factotum/away")
	if err := s.Command("sh", "-c", line[2]).Run(); err == nil {
		t.Error("the command succeeds without factotum")
	}
	if after := s.Sh(t, "cat /var/lib/prometheus/node-exporter/p9auth.prom"); after != before {
		t.Errorf("without factotum the file is %q", after)
	}
}

// samples are the values of Prometheus' text format, by metric.
func samples(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 {
			m[f[0]] = f[1]
		}
	}
	return m
}
