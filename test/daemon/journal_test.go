package daemon

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"p9auth/test/testbed"
)

// journald takes what systemd-journald takes, by its native protocol and as syslog, in
// the folder that it gets, and writes each entry to a file as a line of JSON. What comes
// as syslog has SYSLOG alone.
func journald(args []string) {
	dir, file := args[0], args[1]
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	take := func(name string, decode func([]byte) map[string]string) {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unixgram"})
		if err != nil {
			panic(err)
		}
		for b := make([]byte, 1<<18); ; {
			n, err := c.Read(b)
			if err != nil {
				panic(err)
			}
			line, _ := json.Marshal(decode(b[:n]))
			f.Write(append(line, '\n'))
		}
	}
	go take("dev-log", func(b []byte) map[string]string { return map[string]string{"SYSLOG": string(b)} })
	take("socket", func(b []byte) map[string]string {
		entry := map[string]string{}
		for len(b) > 0 {
			line, rest, _ := bytes.Cut(b, []byte("\n"))
			name, value, whole := bytes.Cut(line, []byte("="))
			if !whole {
				size := binary.LittleEndian.Uint64(rest)
				value, rest = rest[8:8+size], rest[8+size+1:]
			}
			if _, twice := entry[string(name)]; twice {
				entry["TWICE"] = string(name)
			}
			entry[string(name)], b = string(value), rest
		}
		return entry
	})
}

// TestTheJournalHasEachEventOnceWithFields where factotum's log is the journal, and
// /dev/log leads there: by ssh and at a console, what works and what does not.
func TestTheJournalHasEachEventOnceWithFields(t *testing.T) {
	b := &bed{&testbed.Logins{Bed: testbed.Up(t)}}
	file := filepath.Join(b.Dir, "log", "journal")
	b.Sh(t, "mkdir -p /run/systemd/journal; rm -f /run/systemd/journal/*; ln -s /run/systemd/journal/dev-log /run/log-test")
	daemon := b.Command(b.Self(t), "journald", "/run/systemd/journal", file)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { daemon.Process.Kill(); daemon.Wait() })
	if !testbed.Eventually(func() bool { return b.Command("test", "-S", "/run/systemd/journal/socket").Run() == nil }) {
		t.Fatal("no journal")
	}
	b.Write(t, "/etc/p9auth/factotum.conf", "FrontEnd _login login\nFrontEnd _sshfront sshd ssh\nSyslog /run/log-test\n")
	testbed.Kill(t, b.Factotum(t))
	factotum := b.Command("env", "JOURNAL_STREAM=1:2", b.Bin("factotum"))
	if err := factotum.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { factotum.Process.Signal(syscall.SIGTERM); factotum.Wait() })
	// entries are those whose fields match, all of them.
	entries := func(want map[string]string) (list []map[string]string) {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			var e map[string]string
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			all := true
			for name, expr := range want {
				all = all && regexp.MustCompile(`^(?s:`+expr+`)$`).MatchString(e[name])
			}
			if all {
				list = append(list, e)
			}
		}
		return list
	}
	if !testbed.Eventually(func() bool { return len(entries(map[string]string{"MESSAGE": `.*factotum is ready.*`})) == 1 }) {
		t.Fatal("factotum is not ready")
	}

	port := strings.TrimSpace(b.Sh(t, "cat "+b.Dir+"/ssh_port"))
	ssh := func(user string) {
		exec.Command("ssh", "-F", "none", "-n", "-p", port, "-i", filepath.Join(b.Dir, "keys", user), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
			"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", user+"@127.0.0.1", "true").Run()
	}
	ssh("alice")
	b.Sh(t, "usermod -e 1 bob") // his account has expired
	ssh("bob")
	term := b.In(t, "alice")
	tty, leader := strings.TrimPrefix(term.TTY(), "/dev/"), term.PID()
	term.Send("exit\n")
	term.Wait()
	wrong := b.Login(t, "alice")
	wrong.Send("wrong\n")
	wrong.Expect("Login incorrect")
	wrong.Hangup()
	wrong.Wait()
	b.WantNoWorker(t)

	const (
		authenticated = "8a47c980e2168644c64c8e6f3fe495b3"
		refused       = "b90873f037a7199cb205f97f4aadec15"
		opened        = "36c4035d0042d0990459ac84f78ea736"
		closed        = "32e2a71a1f09eb1a5e0e1be96cd528dc"
	)
	session := fmt.Sprint(leader)
	for _, want := range []map[string]string{
		{"MESSAGE_ID": authenticated, "USER": "alice", "RHOST": `127\.0\.0\.1`, "SYSLOG_IDENTIFIER": "sshd", "SYSLOG_FACILITY": "4", "SYSLOG_PID": `\d+`, "PRIORITY": "6", "SERVICE": "sshd",
			"MESSAGE": `Accepted publickey for alice from 127\.0\.0\.1 port \d+ ssh2: ED25519 SHA256:\S+`},
		{"MESSAGE_ID": refused, "USER": "bob", "RHOST": `127\.0\.0\.1`, "SYSLOG_IDENTIFIER": "sshd", "PRIORITY": "3", "P9AUTH_REASON": ".+",
			"MESSAGE": "fatal: Access denied for user bob by PAM account configuration"},
		{"MESSAGE_ID": opened, "USER": "alice", "RHOST": `127\.0\.0\.1`, "SYSLOG_IDENTIFIER": "factotum", "SESSION": `\d+`, "SERVICE": "sshd"},
		{"MESSAGE_ID": closed, "USER": "alice", "SERVICE": "sshd", "SESSION": `\d+`},
		{"MESSAGE_ID": authenticated, "USER": "alice", "TTY": tty, "SYSLOG_IDENTIFIER": "factotum", "MESSAGE": `msg="user authenticated" .*`},
		{"MESSAGE_ID": opened, "USER": "alice", "TTY": tty, "SESSION": session, "SERVICE": "login"},
		{"MESSAGE_ID": closed, "USER": "alice", "SESSION": session, "SERVICE": "login"},
		{"MESSAGE_ID": refused, "USER": "alice", "TTY": `pts/\d+`, "SERVICE": "login", "P9AUTH_REASON": "Login incorrect"},
	} {
		var got []map[string]string
		if !testbed.Eventually(func() bool { got = entries(want); return len(got) == 1 }) {
			t.Errorf("entries with %v: %v", want, got)
		}
	}
	// Nothing else is of these events.
	for id, n := range map[string]int{authenticated: 2, refused: 2, opened: 2, closed: 2} {
		if got := entries(map[string]string{"MESSAGE_ID": id}); len(got) != n {
			t.Errorf("%d entries of %s and not %d: %v", len(got), id, n, got)
		}
	}
	for _, none := range []map[string]string{{"SYSLOG": ".+"}, {"TWICE": ".+"}, {"MESSAGE": ".*(level=|time=20).*"}} {
		if got := entries(none); len(got) > 0 {
			t.Errorf("the journal has %v", got)
		}
	}
}
