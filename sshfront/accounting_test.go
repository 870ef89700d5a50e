package main

import (
	"strconv"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// What who, last, lastb and lastlog say of logins, by console and by ssh.
func TestAccounting(t *testing.T) {
	need(t, "ssh", "sshpass", "who", "last", "lastb", "lastlog")
	s := newSite(t)
	has := func(command string, words ...string) {
		t.Helper()
		var out string
		if !testbed.Eventually(func() bool {
			out = s.Sh(t, command)
			for line := range strings.Lines(out) {
				all := true
				for _, w := range words {
					all = all && strings.Contains(line, w)
				}
				if all {
					return true
				}
			}
			return false
		}) {
			t.Errorf("%s: no line with %q: %s", command, words, out)
		}
	}
	hasNot := func(command, word string) {
		t.Helper()
		var out string
		if !testbed.Eventually(func() bool {
			out = s.Sh(t, command)
			return !strings.Contains(out, word)
		}) {
			t.Errorf("%s: %s", command, out)
		}
	}

	// The console: Debian's pam_lastlog writes wtmp, so it is there once.
	term := s.Start(t, s.Bin("login"), "--", "alice")
	term.Expect("Password: ")
	term.Send("wrong\n")
	term.Expect("login: $")
	term.Send("alice\n")
	term.Expect("Password: ")
	term.Send("open-sesame\n")
	term.Expect(`\$ `)
	tty := strings.TrimPrefix(term.TTY(), "/dev/")
	has("who /run/utmp", "alice", tty)
	has("last -w -f /var/log/wtmp", "alice", tty, "still logged in")
	has("lastb -w -f /var/log/btmp", "alice", tty)
	has("lastlog -u alice", "alice", tty)
	if n := strings.Count(s.Sh(t, "last -w -f /var/log/wtmp"), "alice"); n != 1 {
		t.Errorf("wtmp has alice %d times", n)
	}
	// A worker that is killed leaves its work to another.
	for _, pid := range s.Pids("factotum-pam") {
		s.Sh(t, "kill -9 "+strconv.Itoa(pid))
	}
	s.WantLog(t, "another takes over")
	term.Send("exit\n")
	hasNot("who /run/utmp", "alice")
	hasNot("last -w -f /var/log/wtmp", "still logged in")

	// A name that nobody has may be a password.
	term = s.Start(t, s.Bin("login"), "--", "my-secret")
	term.Expect("Password: ")
	term.Send("x\n")
	term.Expect("login: $")
	has("lastb -w -f /var/log/btmp", "UNKNOWN")
	hasNot("lastb -w -f /var/log/btmp", "my-secret")
	term.Hangup()

	// ssh.
	s.run(t, `sshpass -p wrong ssh -n -p $port $options -o PubkeyAuthentication=no -o PreferredAuthentications=password -o NumberOfPasswordPrompts=1 bob@127.0.0.1`)
	has("lastb -w -f /var/log/btmp", "bob", "ssh:notty", "127.0.0.1")
	bob := `ssh -tt -p $port ${options/keys\/alice/keys\/bob} bob@127.0.0.1 `
	out, err := s.run(t, bob+`'tty | cut -c6-; who /run/utmp; last -w -f /var/log/wtmp' </dev/null`)
	line, out, _ := strings.Cut(out, "\n")
	if err != nil || !strings.Contains(out, "bob      "+line) || !strings.Contains(out, "(127.0.0.1)") || !strings.Contains(out, "still logged in") {
		t.Errorf("%v: %s %s", err, line, out)
	}
	hasNot("who /run/utmp", "bob")
	has("last -w -f /var/log/wtmp", "bob", "127.0.0.1", "(00:00)")
	has("lastlog -u bob", "bob", "127.0.0.1")
	if out, err := s.run(t, `echo exit | `+bob); err != nil || !strings.Contains(out, "Last login: ") || !strings.Contains(out, " from 127.0.0.1\n") {
		t.Errorf("%v: %s", err, out)
	}
	s.Sh(t, "touch /home/bob/.hushlogin")
	if out, err := s.run(t, `echo exit | `+bob); err != nil || strings.Contains(out, "Last login: ") {
		t.Errorf("%v: %s", err, out)
	}
}
