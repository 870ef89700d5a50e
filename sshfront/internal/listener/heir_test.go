package listener

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestLoginsUnderWayOutliveTheListener at SIGTERM, at each step: not authenticated yet,
// authenticated without a session process, with a session process. One that never comes
// to an end is ended by LoginGraceTime all the same, and what a connection says is logged.
func TestLoginsUnderWayOutliveTheListener(t *testing.T) {
	r := begin(t, "MaxStartups 50\nLoginGraceTime 4\n")
	early, proven, in, idle := r.dial(), r.dial(), r.dial(), r.dial()
	pids := map[*client]int{}
	for _, c := range []*client{early, proven, in, idle} {
		pids[c] = atoi(c.say("pid"))
	}
	proven.say("authenticated alice")
	in.say("authenticated alice")
	session := atoi(in.say("session"))
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if c, err := net.Dial("tcp", r.addr); err == nil {
		c.Close()
		t.Error("somebody listens")
	}
	if got := early.say("authenticated bob"); got != "<nil>" {
		t.Errorf("authenticated: %s", got)
	}
	var sessions []int
	for _, c := range []*client{early, proven} {
		got := c.say("session")
		if !regexp.MustCompile(`^\d+ .*hello`).MatchString(got) {
			t.Errorf("a session process: %q", got)
		}
		sessions = append(sessions, atoi(got))
	}
	if !alive(session) || !alive(pids[in]) {
		t.Error("a session has ended with the listener")
	}
	idle.gone()
	want := func(expr string) {
		t.Helper()
		if !eventually(func() bool { return regexp.MustCompile(expr).MatchString(r.Log()) }) {
			t.Errorf("no line in the log matches %s", expr)
		}
	}
	want(`Timeout before authentication for 127\.0\.0\.1 port \d+, pid = ` + regexp.QuoteMeta(strconv.Itoa(pids[idle])))
	early.Write([]byte("panic\n"))
	want(`connection process ` + strconv.Itoa(pids[early]) + ` for .* says: panic: told to`)
	for c := range pids {
		c.Close()
	}
	for _, pid := range append(sessions, session) {
		if !eventually(func() bool { return !alive(pid) }) {
			t.Errorf("session process %d is left", pid)
		}
	}
	if !eventually(func() bool { return heirs() == 0 }) {
		t.Error("the heir stays when nothing is left to do")
	}
}

// TestAListenerWithoutLoginsHasNoHeir.
func TestAListenerWithoutLoginsHasNoHeir(t *testing.T) {
	r := begin(t, "")
	c := r.dial()
	c.say("authenticated alice")
	c.say("session")
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if n := heirs(); n != 0 {
		t.Errorf("%d heirs", n)
	}
}

// heirs counts the processes that go on with logins.
func heirs() (n int) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		exe, _ := os.Readlink(p + "/exe")
		argv, _ := os.ReadFile(p + "/cmdline")
		if exe == program && strings.Contains(string(argv), "\x00heir\x00") {
			n++
		}
	}
	return n
}
