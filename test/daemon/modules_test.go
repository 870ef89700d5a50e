package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/internal/proc"
	"p9auth/test/attack/pam"
	"p9auth/test/testbed"
)

// module compiles the PAM module that misbehaves, where the testbed's
// services find it.
func (b *bed) module(t *testing.T) {
	t.Helper()
	so := filepath.Join(b.Dir, "pam_misbehaves.so")
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-O1", "-o", so, "testdata/pam_misbehaves.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
}

// misbehave puts the module into the PAM service second.
func (b *bed) misbehave(t *testing.T, args string) {
	t.Helper()
	so := filepath.Join(b.Dir, "pam_misbehaves.so")
	var s strings.Builder
	for line := range strings.Lines(testbed.Service) {
		s.WriteString(line)
		// Before the one that checks the password and after the one that
		// records the session.
		for typ, after := range map[string]string{"auth": "pam_exec", "account": "pam_unix", "session": "pam_exec"} {
			if strings.HasPrefix(line, typ) && strings.Contains(line, after) {
				fmt.Fprintf(&s, "%s required %s %s\n", typ, so, args)
			}
		}
	}
	b.Write(t, "/etc/pam.d/second", s.String())
}

func TestPAMModulesThatMisbehave(t *testing.T) {
	b := up(t)
	b.module(t)
	others := func(t *testing.T) {
		t.Helper()
		term := b.In(t, "bob")
		b.Out(t, term)
	}
	for _, c := range []struct{ what, shown string }{
		{"auth=crash", "the PAM worker crashed"},
		{"auth=abort", "the PAM worker crashed"},
		{"auth=exit", "the PAM worker crashed"},
		{"auth=closefds", "the PAM worker crashed"},
		{"auth=messages", "the PAM worker crashed"},
		{"auth=binary", "Login incorrect"},
		{"auth=style", "Login incorrect"},
		{"acct=crash", "the PAM worker crashed"},
		{"open=crash", "the PAM worker crashed"},
		{"open=exit", "the PAM worker crashed"},
		{"cred=crash", "the PAM worker crashed"},
	} {
		t.Run(c.what, func(t *testing.T) {
			b.misbehave(t, c.what)
			term := b.Login(t, "alice", testbed.AsSecond...)
			tty := term.TTY()
			was := testbed.Stat(t, tty)
			term.Send(testbed.Password + "\n")
			term.Expect(c.shown)
			b.WantNoWorker(t)
			testbed.WantStat(t, tty, was)
			term.Hangup()
			term.Wait()
		})
	}
	b.Forget(t) // as login does, nobody closes what was not opened to the end
	others(t)

	t.Run("a module that hangs, while another logs in", func(t *testing.T) {
		b.Configure(t, "LoginGraceTime 2\n")
		b.misbehave(t, "auth=hang")
		term := b.Login(t, "alice", testbed.AsSecond...)
		term.Send(testbed.Password + "\n")
		b.Configure(t, "")
		other := b.In(t, "bob")
		term.Expect("the login took too long")
		b.WantLog(t, "conversation ended: timeout.*user=alice")
		if other.Run("id -un") != "bob" {
			t.Error("bob's shell does not go on")
		}
		b.Out(t, other)
	})

	t.Run("10,000 questions, while another logs in", func(t *testing.T) {
		b.misbehave(t, "auth=questions")
		term := pam.Start(t, b.Logins, "_second", "converse")
		other := b.In(t, "bob")
		term.Expect("said 10001, done")
		b.Out(t, other)
	})

	t.Run("texts of 1 MiB are cut", func(t *testing.T) {
		b.misbehave(t, "auth=huge")
		term := pam.Start(t, b.Logins, "_second", "converse")
		term.Expect("said 3, done")
		b.WantNoWorker(t)
	})

	t.Run("a module that writes to standard error", func(t *testing.T) {
		b.misbehave(t, "auth=stderr")
		term := b.In(t, "alice", testbed.AsSecond...)
		b.Out(t, term)
	})

	t.Run("descriptors that leak reach nobody", func(t *testing.T) {
		b.misbehave(t, "auth=leak open=leak")
		term := b.In(t, "alice", testbed.AsSecond...)
		if got := term.Run("command ls -1 /proc/$$/fd"); got != "0\n1\n2\n255" {
			t.Errorf("descriptors %s", got)
		}
		b.Out(t, term)
	})

	t.Run("a child that a module leaves behind", func(t *testing.T) {
		for _, typ := range []string{"auth", "open"} {
			b.misbehave(t, typ+"=fork")
			term := b.In(t, "alice", testbed.AsSecond...)
			tty := term.TTY()
			pid, err := strconv.Atoi(b.Sh(t, "cat /run/module-child"))
			if err != nil {
				t.Fatal(err)
			}
			worker := b.Worker(t, pid)
			// The worker dies, its child does not: factotum finds out, and
			// another closes the session.
			n := b.Logged("another takes over")
			testbed.Kill(t, worker)
			if !testbed.Eventually(func() bool { return b.Logged("another takes over") > n }) {
				t.Error("factotum does not notice")
			}
			term.Send("exit\n")
			term.Wait()
			syscall.Kill(pid, syscall.SIGKILL)
			b.WantClosed(t, tty)
		}
	})

	t.Run("an open_session that hangs", func(t *testing.T) {
		b.Configure(t, "LoginGraceTime 2\n")
		defer b.Configure(t, "")
		b.misbehave(t, "open=hang")
		term := b.Login(t, "alice", testbed.AsSecond...)
		term.Send(testbed.Password + "\n")
		term.Expect("the login took too long")
		b.WantNoWorker(t)
		b.Forget(t)
	})

	t.Run("what a module sets reaches the shell and only the shell", func(t *testing.T) {
		b.misbehave(t, "open=effects")
		n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil {
			t.Fatal(err)
		}
		nice := 20 - n // the system call's way to be positive
		term := b.In(t, "alice", testbed.AsSecond...)
		if got := term.Run("umask; nice; echo $MODULE"); got != fmt.Sprintf("0027\n%d\neffects", min(nice+7, 19)) {
			t.Errorf("the shell has %q", got)
		}
		other := b.In(t, "bob")
		if got := other.Run("umask; nice; echo $MODULE"); got != fmt.Sprintf("0022\n%d", nice) {
			t.Errorf("another's shell has %q", got)
		}
		b.Out(t, other)
		b.Out(t, term)
	})

	t.Run("limits that a module sets reach the shell", func(t *testing.T) {
		st, err := proc.ReadStatus(os.Getpid())
		if err != nil || st.Effective>>unix.CAP_SYS_RESOURCE&1 == 0 {
			t.Skip("no CAP_SYS_RESOURCE here, which prlimit(2) on another's process takes")
		}
		b.misbehave(t, "open=limits")
		term := b.In(t, "alice", testbed.AsSecond...)
		if got := term.Run("ulimit -Sn; ulimit -Hn; ulimit -St; ulimit -Ht"); got != "77\n99\n1000\n2000" {
			t.Errorf("the shell has %q", got)
		}
		b.Out(t, term)
	})

	t.Run("a close_session that crashes does so once", func(t *testing.T) {
		b.misbehave(t, "close=crash")
		term := b.In(t, "alice", testbed.AsSecond...)
		b.Out(t, term)
	})
	others(t)
	b.WantNoWorker(t)
}

func TestModulesThatCannotWorkAreNamedAndNobodyIsKeptOut(t *testing.T) {
	b := up(t)
	// They are in packages of their own, which may be missing: the modules are optional.
	b.Sh(t, `echo 'session optional pam_chroot.so' >>/etc/pam.d/common-lost
echo 'auth optional pam_unshare.so' >>/etc/pam.d/common-lost
echo '@include common-lost' >>/etc/pam.d/login`)
	b.Configure(t, "")
	for _, module := range []string{"pam_chroot.so", "pam_unshare.so"} {
		b.WantLog(t, `level=WARN msg="a PAM module cannot work here" service=login module=`+regexp.QuoteMeta(module)+` lost=`)
	}
	if strings.Contains(b.Log(), "service=second module=") {
		t.Error("a service without such a module has one in the log")
	}
	b.Out(t, b.In(t, "alice"))
}

func TestTheControlGroupsOfAModuleAreTheSessions(t *testing.T) {
	b := up(t)
	// What pam_systemd has systemd do: the hierarchies of version 2 and of
	// systemd's own, wherever they are mounted.
	group := "p9auth-test-" + strconv.Itoa(os.Getpid())
	b.Write(t, "/run/move", `#!/bin/sh
[ $PAM_TYPE = open_session ] || exit 0
for m in $(cat /run/hierarchies); do
	mkdir -p $m/`+group+`
	echo $PPID >$m/`+group+`/cgroup.procs
done
`)
	b.Sh(t, `chmod 755 /run/move; echo 'session required pam_exec.so /run/move' >>/etc/pam.d/login
awk '$0 ~ / - cgroup2 / || $0 ~ / - cgroup .*name=systemd/ {print $5}' /proc/self/mountinfo >/run/hierarchies; test -s /run/hierarchies`)
	t.Cleanup(func() {
		b.WantNoWorker(t)
		// Until the kernel has forgotten the last process, a group is busy.
		b.Sh(t, "for m in $(cat /run/hierarchies); do for i in $(seq 100); do ! rmdir $m/"+group+" || break; sleep 0.1; done; test ! -e $m/"+group+"; done")
	})
	term := b.In(t, "alice")
	n := strings.Count(b.Sh(t, "cat /run/hierarchies"), "\n") + 1
	got := term.Run("grep -c '/" + group + "$' /proc/self/cgroup")
	if got != strconv.Itoa(n) {
		t.Errorf("of %d hierarchies, the shell is moved in %s: %s", n, got, term.Run("cat /proc/self/cgroup"))
	}
	b.Out(t, term)
}

func TestWhatModulesExecuteIgnoresNoSignal(t *testing.T) {
	b := up(t)
	b.Write(t, "/run/hook", "#!/bin/sh\ngrep -E '^Sig(Ign|Blk)' /proc/self/status >/run/hook.$PAM_TYPE\n")
	b.Sh(t, "chmod 755 /run/hook; for t in auth account session; do echo $t required pam_exec.so /run/hook >>/etc/pam.d/login; done")
	b.Out(t, b.In(t, "alice"))
	b.WantNoWorker(t)
	for _, typ := range []string{"auth", "account", "open_session", "close_session"} {
		// The 32nd is the C library's own; it is as whoever runs the tests has it.
		got := strings.Replace(b.Sh(t, "cat /run/hook."+typ), "SigIgn:\t0000000080000000", "SigIgn:\t0000000000000000", 1)
		if got != "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000" {
			t.Errorf("%s: %s", typ, got)
		}
	}
}
