package pam

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// burdens is what a process can give its children, and a front end its login.
const burdens = `export LD_PRELOAD=/nonexistent.so LD_LIBRARY_PATH=/tmp GLIBC_TUNABLES=glibc.malloc.mxfast=0 GODEBUG=madvdontneed=1 XDG_SEAT=seat0 XDG_VTNR=1 PAM_USER=root
ulimit -n 64; ulimit -f 1; ulimit -s 4096; ulimit -c 0; umask 0
trap '' INT TERM HUP QUIT USR1 CHLD
cd /tmp
exec nice -n 15 choom -n 900 -- ionice -c 3 `

// volatile are lines of /proc/PID/status that differ between two runs of one program.
var volatile = regexp.MustCompile(`(?m)^(Name|State|.*[pP]id|Tgid|NSpid|NStgid|NSpgid|NSsid|Threads|FDSize|Vm\w+|Rss\w+|Hugetlb\w+|.*_ctxt_switches|Cpus_\w+|Mems_\w+|x86_\w+|SigQ|SigPnd|ShdPnd):.*\n`)

// inherited is what a process has from the one that started it, and not of its own.
func inherited(t *testing.T, pid int) string {
	t.Helper()
	var all strings.Builder
	for _, name := range []string{"environ", "limits", "oom_score_adj", "status", "coredump_filter", "personality", "uid_map"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "== %s\n%s\n", name, volatile.ReplaceAll(text, nil))
	}
	for _, name := range []string{"cwd", "root", "ns/mnt", "ns/net", "ns/user", "ns/cgroup"} {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s: %s\n", name, to)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	fmt.Fprintf(&all, "priority %s nice %s policy %s\n", f[15], f[16], f[38])
	return all.String()
}

// TestAWorkerHasNothingOfItsFrontEnd compares the worker of a front end that has burdened
// itself with what a child inherits to the worker of an honest one.
func TestAWorkerHasNothingOfItsFrontEnd(t *testing.T) {
	b := testbed.UpLogins(t)
	attacker := strings.Join(append(testbed.As("_login", b.Self(t)), "attacker", "log-in", "proven"), " ")
	worker := func(script string) string {
		term := b.Start(t, "sh", "-c", script+attacker)
		term.Expect("is proven")
		got := inherited(t, b.Worker(t))
		term.Send("\n")
		if err := term.Wait(); err != nil {
			t.Errorf("%v: %s", err, term.Screen())
		}
		b.WantNoWorker(t)
		return got
	}
	honest, burdened := worker("exec "), worker(burdens)
	if honest != burdened {
		t.Errorf("an honest front end's worker:\n%s\nthis one's:\n%s", honest, burdened)
	}
}

// TestANameIsNeverAnOption gives login names that other programs of that name took for
// -f, to be let in without a password.
func TestANameIsNeverAnOption(t *testing.T) {
	b := testbed.UpLogins(t)
	for _, name := range []string{"-froot", "-f root", "-f", "--", "-froot\tx", "root -f", "-h127.0.0.1"} {
		term := b.Start(t, b.Bin("login"), "--", name) // as agetty does
		if term.Expect("Password: |Login incorrect") == "Password: " {
			term.Send(testbed.Password + "\n")
			term.Expect("Login incorrect")
		}
		term.Hangup()
		term.Wait()
	}
	for _, argv := range [][]string{{"-f", "root"}, {"-froot"}, {"-p", "-f", "root"}, {"-f", "--", "root"}} {
		term := b.Start(t, testbed.As("_login", append([]string{b.Bin("login")}, argv...)...)...)
		if err := term.Wait(); err == nil || strings.Contains(term.Screen(), "# ") {
			t.Errorf("login %q as _login: %v, %s", argv, err, term.Screen())
		}
	}
}
