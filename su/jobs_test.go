package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// TestJobsStopAndGoOnAsWithUtilLinux: those of the shell that su starts, that shell, and
// su itself.
func TestJobsStopAndGoOnAsWithUtilLinux(t *testing.T) {
	t.Parallel()
	b := up(t)
	for name, su := range map[string]string{"util-linux": real(t, b), "ours": b.Bin("su"), "ours with -P": b.Bin("su") + " -P"} {
		term := b.Start(t, testbed.AsPerson("alice", "bash", "--norc")...)
		term.Send("PS1='alice> '; set -m\n")
		term.Expect(`alice> $`)
		term.Send(su + " -s /bin/bash bob\n")
		term.Expect("assword: ")
		term.Send(testbed.Password + "\n")
		term.Expect(`\$ $`)
		term.Send("PS1='bob> '; cd /\n")
		term.Expect("bob> $")
		// A job of bob's is stopped, goes on and is interrupted.
		term.Send("sleep 1000\n")
		if !testbed.Eventually(func() bool { return b.Sh(t, "pgrep -u bob -x sleep || true") != "" }) {
			t.Fatalf("%s: no sleep", name)
		}
		term.Send("\x1a")
		term.Expect("Stopped")
		term.Expect("bob> $")
		term.Send("fg\n")
		term.Expect("sleep 1000\r\n")
		term.Send("\x03")
		term.Expect("bob> $")
		term.Send("echo interrupted-$?\n")
		term.Expect(`interrupted-130`)
		// Bob's shell is stopped, and su with it; alice's shell is there meanwhile.
		term.Send("suspend\n")
		term.Expect(`Stopped`)
		term.Expect(`alice> $`)
		term.Send("echo I-am-$(id -un)\n")
		term.Expect("I-am-alice")
		term.Send("fg\n")
		term.Expect(`(?s)fg.*su`)
		term.Send("\n")
		term.Expect("bob> $")
		term.Send("echo I-am-$(id -un)\n")
		term.Expect("I-am-bob")
		term.Send("exit 5\n")
		term.Expect("alice> $")
		term.Send("echo status-$?\n")
		term.Expect("status-5")
		term.Send("exit\n")
		term.Wait()
	}
}

// TestSettingsAndModulesMeanWhatTheyDoForUtilLinux: login.defs(5) and modules that look at
// who calls.
func TestSettingsAndModulesMeanWhatTheyDoForUtilLinux(t *testing.T) {
	t.Parallel()
	b := up(t)
	su := real(t, b)
	pw := testbed.Password + "\n"
	b.Sh(t, "cp /etc/login.defs /root/login.defs; cp /etc/pam.d/su /root/su")
	path := []string{"-c", "echo $PATH", "bob"}
	for _, c := range []struct {
		defs, pam string // lines that are added; those of PAM come first
		rows      []row
	}{
		{defs: "ENV_PATH PATH=/a:/b\nENV_SUPATH PATH=/c:/d", rows: []row{{who: "alice", args: path, typed: pw}, {who: "alice", args: append([]string{"-l"}, path...), typed: pw},
			{who: "root", args: []string{"-", "-c", "echo $PATH"}}, {who: "root", args: []string{"-c", "echo $PATH"}}, {who: "alice", args: append([]string{"-w", "PATH", "-l"}, path...), typed: pw}}},
		{defs: "ENV_PATH PATH=/a:/b\nENV_ROOTPATH PATH=/e\nALWAYS_SET_PATH yes", rows: []row{{who: "alice", args: path, typed: pw}, {who: "root", args: []string{"-c", "echo $PATH"}},
			{who: "alice", args: append([]string{"-p"}, path...), typed: pw}}},
		{defs: "ENV_PATH /a:/b", rows: []row{{who: "alice", args: append([]string{"-l"}, path...), typed: pw}}},
		{pam: "auth required pam_wheel.so use_uid group=wizards", rows: []row{{who: "alice", args: path, typed: pw}, {who: "root", args: path}}},
		{pam: "auth sufficient pam_wheel.so use_uid trust group=wizards", rows: []row{{who: "alice", args: path}}},
		{pam: "auth sufficient pam_succeed_if.so ruser = alice user = bob quiet", rows: []row{{who: "alice", args: path}}},
		{pam: "auth requisite pam_deny.so", rows: []row{{who: "root", args: path}}},
		{pam: "account requisite pam_succeed_if.so ruser != alice quiet", rows: []row{{who: "alice", args: path, typed: pw}, {who: "root", args: path}}},
		{pam: "session required pam_env.so envfile=/dev/null conffile=/root/pam_env.conf", rows: []row{{who: "alice", args: []string{"-c", "echo $SET $KEPT", "bob"}, typed: pw}}},
		{pam: "session requisite pam_deny.so", rows: []row{{who: "root", args: path}}},
		{rows: []row{{who: "root", args: []string{"-s", "/etc/hostname", "bob"}}, {who: "root", args: []string{"-s", "/nosuch", "bob"}}, {who: "root", args: []string{"-s", "/etc", "bob"}},
			{who: "root", args: []string{"-P", "-c", "exit 9", "bob"}}, {who: "root", args: []string{"-c", "kill -KILL $$", "bob"}}, {who: "root", args: []string{"-P", "-c", "kill -KILL $$", "bob"}}}},
	} {
		b.Sh(t, fmt.Sprintf(`printf 'SET DEFAULT=from-pam\n' >/root/pam_env.conf
{ grep -vE '^(ENV_|ALWAYS_SET_PATH)' /root/login.defs; printf '%%s\n' '%s'; } >/etc/login.defs; { printf '%%s\n' '%s'; cat /root/su; } >/etc/pam.d/su; cp /etc/pam.d/su /etc/pam.d/su-l`, c.defs, c.pam))
		for _, r := range c.rows {
			want, got := r.play(t, b, su), r.play(t, b, b.Bin("su"))
			if want != got {
				t.Errorf("%s %s, %s: %q:\n%s", c.defs, c.pam, r.who, r.args, testbed.Diff("util-linux", want, got))
			}
		}
	}
}

// TestHelpAndVersionAndWhatIsNoUseEndAsUtilLinuxs in their status.
func TestHelpAndVersionAndWhatIsNoUseEndAsUtilLinuxs(t *testing.T) {
	t.Parallel()
	b := up(t)
	su := real(t, b)
	for _, args := range []string{"-V", "--version", "-h", "--nosuch", "-c", "-s", "-w", "-g nosuchgroup", "nosuchuser", "-c true nosuchuser", "--whitelist"} {
		status := map[string]int{}
		for name, program := range map[string]string{"util-linux": su, "ours": b.Bin("su")} {
			cmd := b.Command(testbed.AsPerson("alice", append([]string{program}, strings.Fields(args)...)...)...)
			err := cmd.Run()
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			status[name] = cmd.ProcessState.ExitCode()
		}
		if status["ours"] != status["util-linux"] {
			t.Errorf("%s: %v", args, status)
		}
	}
}
