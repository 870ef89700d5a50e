package main

import (
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// up starts a testbed where doas is configured, with these rules.
func up(t *testing.T, rules string) *testbed.Bed {
	t.Helper()
	b := testbed.Up(t)
	b.Local(t, "FrontEnd * doas doas")
	write(t, b, rules)
	b.Sh(t, "[ -e /etc/pam.d/doas ] || printf '@include common-auth\n@include common-account\n@include common-session-noninteractive\n' >/etc/pam.d/doas")
	return b
}

// write writes the rules.
func write(t *testing.T, b *testbed.Bed, rules string) {
	t.Helper()
	b.Write(t, "/etc/doas.conf", rules)
	b.Sh(t, "chown root:root /etc/doas.conf; chmod 644 /etc/doas.conf")
}

func TestAliceRunsACommandAsRootByHerOwnPassword(t *testing.T) {
	b := up(t, "permit alice as root cmd id\n")
	term := b.Start(t, testbed.AsPerson("alice", b.Bin("doas"), "id")...)
	term.Expect(`doas \(alice@.*\) password: `)
	term.Send(testbed.Password + "\n")
	term.Expect("uid=0")
	if err := term.Wait(); err != nil {
		t.Error(err)
	}
	if strings.Contains(term.Screen(), testbed.Password) {
		t.Error("the password was echoed")
	}
	b.WantLog(t, `command permitted.*caller=alice user=root command=id path=/bin/id tty=pts/`)
	b.WantLog(t, "session closed")
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Error("a PAM worker is left")
	}
}
