package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"p9auth/test/testbed"
)

// metricLine is a sample of Prometheus' text format without labels.
var metricLine = regexp.MustCompile(`^(p9auth_[a-z_]+) (\d+)$`)

// metrics asks as Prometheus does, over HTTP.
func (b *bed) metrics(t *testing.T) map[string]int {
	t.Helper()
	out := b.Sh(t, `printf 'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n' | socat -t5 - UNIX-CONNECT:/run/new/metrics`)
	head, body, ok := strings.Cut(strings.ReplaceAll(out, "\r\n", "\n"), "\n\n")
	if !ok || !strings.HasPrefix(head, "HTTP/1.0 200 OK\n") || !strings.Contains(head, "Content-Length: "+fmt.Sprint(len(body)+1)) {
		t.Fatalf("the answer is %q", out)
	}
	m := map[string]int{}
	typed := map[string]bool{}
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		if f := strings.Fields(line); f[0] == "#" {
			typed[f[2]] = typed[f[2]] || f[1] == "TYPE" && (f[3] == "counter" || f[3] == "gauge")
			continue
		}
		f := metricLine.FindStringSubmatch(line)
		if f == nil || !typed[f[1]] {
			t.Fatalf("no sample of a metric that was declared: %q", line)
		}
		if _, twice := m[f[1]]; twice {
			t.Errorf("%s twice", f[1])
		}
		m[f[1]], _ = strconv.Atoi(f[2])
	}
	return m
}

func TestStatusAndMetrics(t *testing.T) {
	b := up(t)
	if out := b.Sh(t, "ls /run /run/factotum"); strings.Contains(out, "metrics") {
		t.Errorf("the counters are not off: %s", out)
	}
	// The folder is made too.
	b.Write(t, "/etc/p9auth/factotum.conf", testbed.LoginsConfig+"MetricsSocket /run/new/metrics\n")
	b.HUP(t, "needs a restart")
	pid := b.Factotum(t)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.WantLog(t, "factotum ends")
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum")) == 0 }) {
		t.Fatal("factotum does not end")
	}
	b.Restart(t)

	status := func() string { return b.Sh(t, b.Bin("factotum")+" status") }
	before := b.metrics(t)
	for name, n := range before {
		if n != 0 {
			t.Errorf("at first %s is %d", name, n)
		}
	}
	waiting := b.Login(t, "bob")
	waiting.Send("wrong\n")
	waiting.Expect("login: $")
	waiting.Hangup()
	waiting.Wait()
	term := b.In(t, "alice")
	m := b.metrics(t)
	for name, want := range map[string]int{
		"p9auth_refusals_total": 1, "p9auth_authentications_total": 1, "p9auth_sessions_opened_total": 1, "p9auth_sessions_closed_total": 0,
		"p9auth_capabilities_given_total": 1, "p9auth_capabilities_redeemed_total": 1, "p9auth_capabilities_refused_total": 0,
		"p9auth_sessions": 1, "p9auth_workers": 1,
	} {
		if m[name] != want {
			t.Errorf("%s is %d, not %d", name, m[name], want)
		}
	}
	out := status()
	for _, re := range []string{
		`(?m)^factotum      pid \d+, up \d+s, backend fuse$`, `(?m)^sessions      1$`, `(?m)^workers       1$`, `(?m)^1 +Users that were authenticated`,
		`(?m)^alice +login +` + strings.TrimPrefix(term.TTY(), "/dev/") + ` +` + strconv.Itoa(term.PID()) + ` `,
	} {
		if !regexp.MustCompile(re).MatchString(out) {
			t.Errorf("the status has no %s: %s", re, out)
		}
	}
	// Nobody but root sees it.
	for _, socket := range []string{"factotum/status", "new/metrics"} {
		if err := b.Command("setpriv", "--reuid", "_login", "--regid", "_login", "--clear-groups", "socat", "-u", "UNIX-CONNECT:/run/"+socket, "-").Run(); err == nil {
			t.Errorf("_login can read %s", socket)
		}
	}
	// Who connects and says nothing holds nobody up for ever.
	hold := b.Command("sh", "-c", "for i in $(seq 20); do socat -T60 UNIX-CONNECT:/run/new/metrics,ignoreeof /dev/null & done; wait")
	if err := hold.Start(); err != nil {
		t.Fatal(err)
	}
	b.Out(t, term)
	if !testbed.Eventually(func() bool { m := b.metrics(t); return m["p9auth_sessions"] == 0 && m["p9auth_workers"] == 0 }) {
		t.Errorf("after the session: %v", b.metrics(t))
	}
	if strings.Contains(status(), "alice") {
		t.Errorf("after the session: %s", status())
	}
	hold.Process.Kill()
	hold.Wait()
}

// TestEachRefusalOfSSHIsCountedOnce whichever way somebody guesses.
func TestEachRefusalOfSSHIsCountedOnce(t *testing.T) {
	b := &bed{&testbed.Logins{Bed: testbed.Up(t)}}
	b.Write(t, "/etc/p9auth/factotum.conf", "FrontEnd _login login\nFrontEnd _sshfront sshd ssh\nMetricsSocket /run/new/metrics\n")
	if err := syscall.Kill(b.Factotum(t), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum")) == 0 }) {
		t.Fatal("factotum does not end")
	}
	b.Restart(t)
	port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct{ user, method string }{
		{"alice", "password"}, {"alice", "keyboard-interactive"}, {"nobody-here", "password"}, {"nobody-here", "keyboard-interactive"},
	} {
		cmd := b.Command("sshpass", "-p", "wrong", "ssh", "-F", "/dev/null", "-p", strings.TrimSpace(string(port)), "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile=/dev/null", "-o", "NumberOfPasswordPrompts=1", "-o", "PreferredAuthentications="+c.method, c.user+"@127.0.0.1", "true")
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "Permission denied") {
			t.Fatalf("%s by %s: %v: %s", c.user, c.method, err, out)
		}
		if n := b.metrics(t)["p9auth_refusals_total"]; n != i+1 {
			t.Errorf("after %s by %s: %d refusals, not %d", c.user, c.method, n, i+1)
		}
	}
}
