package main

import (
	"fmt"
	"net"
	"regexp"
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
	records := func() string { return b.Sh(t, "cksum /var/log/lastlog /var/log/wtmp /run/utmp 2>&1 || true") }
	before := records()
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
	if after := records(); after != before { // su(1) of util-linux writes nothing there
		t.Errorf("records of logins: %s, before: %s", after, before)
	}
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Error("a PAM worker is left")
	}
}

func TestAWrongPasswordIsRefusedAsBySu(t *testing.T) {
	t.Parallel()
	b := up(t)
	term := b.Start(t, testbed.AsPerson("alice", b.Bin("su"), "bob")...)
	term.Expect("Password: ")
	term.Send("wrong\n")
	term.Expect("su: Authentication failure")
	if term.Wait() == nil {
		t.Error("the status is 0")
	}
	b.WantLog(t, `login refused.*caller=alice user=bob.*code=denied`)
	if dump := b.Sh(t, "utmpdump /var/log/btmp 2>/dev/null"); !strings.Contains(dump, "[bob ") || !strings.Contains(dump, "[pts/") {
		t.Errorf("btmp has %s", dump)
	}
	for _, file := range []string{"/run/utmp", "/var/log/wtmp"} {
		if dump := b.Sh(t, "utmpdump "+file+" 2>/dev/null"); dump != "" {
			t.Errorf("%s has %s", file, dump)
		}
	}
}

func TestNobodyBecomesAnybodyUntilSuIsConfigured(t *testing.T) {
	b := testbed.Up(t)
	out, err := b.Command(testbed.AsPerson("alice", b.Bin("su"), "bob")...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not configured") {
		t.Errorf("%v: %s", err, out)
	}
	b.WantLog(t, "conversation refused.*not configured as a front end")
}

// TestSyslogHasTheLinesOfSu as util-linux writes them (log_syslog in su-common.c), for
// programs read them.
func TestSyslogHasTheLinesOfSu(t *testing.T) {
	b := up(t)
	daemon := b.Command(b.Self(t), "syslogd", "/run/log-test")
	var lines testbed.Log
	daemon.Stdout = &lines
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer daemon.Wait()
	defer daemon.Process.Kill()
	b.Local(t, "Syslog /run/log-test")
	for typed, want := range map[string]string{testbed.Password: `(to bob) alice on none`, "wrong": `FAILED SU (to bob) alice on none`} {
		cmd := b.Command(testbed.AsPerson("alice", b.Bin("su"), "-c", "true", "bob")...)
		cmd.Stdin = strings.NewReader(typed + "\n")
		cmd.Run()
		expr := regexp.MustCompile(`(?m)^<37>\w+ +\d+ [\d:]+ su\[\d+\]: ` + regexp.QuoteMeta(want) + `$`)
		if !testbed.Eventually(func() bool { return expr.MatchString(lines.String()) }) {
			t.Errorf("no line %s: %s", want, lines.String())
		}
	}
}

// syslogd prints what comes to a socket.
func syslogd(args []string) {
	c := must(net.ListenPacket("unixgram", args[0]))
	for buf := make([]byte, 8192); ; {
		n, _, err := c.ReadFrom(buf)
		must(n, err)
		fmt.Printf("%s\n", buf[:n])
	}
}
