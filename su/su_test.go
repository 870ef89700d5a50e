package main

import (
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// up starts a testbed where su is configured.
func up(t *testing.T) *testbed.Bed {
	t.Helper()
	b := testbed.Up(t)
	b.Local(t, "FrontEnd * su su")
	return b
}

func TestAliceBecomesBobByHisPassword(t *testing.T) {
	b := up(t)
	term := b.Start(t, testbed.AsPerson("alice", b.Bin("su"), "-c", "id; tty; echo HOME=$HOME; cat /proc/self/loginuid", "bob")...)
	term.Expect("Password: ")
	tty := term.TTY()
	term.Send(testbed.Password + "\n")
	term.Expect("HOME=/home/bob")
	if err := term.Wait(); err != nil {
		t.Error(err)
	}
	screen := term.Screen()
	for _, want := range []string{b.Sh(t, "id bob"), tty} {
		if !strings.Contains(screen, want) {
			t.Errorf("the screen does not have %q: %s", want, screen)
		}
	}
	if strings.Contains(screen, testbed.Password) {
		t.Error("the password was echoed")
	}
	b.WantLog(t, `user authenticated.*service=su caller=alice user=bob tty=pts/`)
	b.WantLog(t, "session closed")
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Error("a PAM worker is left")
	}
}

func TestAWrongPasswordIsRefusedAsBySu(t *testing.T) {
	b := up(t)
	term := b.Start(t, testbed.AsPerson("alice", b.Bin("su"), "bob")...)
	term.Expect("Password: ")
	term.Send("wrong\n")
	term.Expect("su: Authentication failure")
	if term.Wait() == nil {
		t.Error("the status is 0")
	}
	b.WantLog(t, `login refused.*caller=alice user=bob.*code=denied`)
}

func TestNobodyBecomesAnybodyUntilSuIsConfigured(t *testing.T) {
	b := testbed.Up(t)
	out, err := b.Command(testbed.AsPerson("alice", b.Bin("su"), "bob")...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not configured") {
		t.Errorf("%v: %s", err, out)
	}
	b.WantLog(t, "conversation refused.*not configured as a front end")
}
