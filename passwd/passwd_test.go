package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// up starts a testbed where passwd is configured.
func up(t *testing.T) *testbed.Bed {
	t.Helper()
	b := testbed.Up(t)
	b.Local(t, "FrontEnd * passwd passwd")
	return b
}

// A result is what a program has done.
type result struct {
	stdout, stderr string
	status         int
}

// as runs a program as a user, under the name passwd, with that on standard input.
func as(t *testing.T, b *testbed.Bed, user, stdin, program string, args ...string) result {
	t.Helper()
	argv := append([]string{"bash", "-c", `exec -a passwd "$0" "$@"`, program}, args...)
	cmd := b.Command(testbed.AsPerson(user, argv...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// shadow is what /etc/shadow says of a user, with the hash replaced by whether a
// password fits.
func shadow(t *testing.T, b *testbed.Bed, user string, passwords ...string) string {
	t.Helper()
	f := strings.Split(b.Sh(t, "grep ^"+user+": /etc/shadow; stat -c ' %U:%G %a' /etc/shadow"), ":")
	hash := strings.TrimLeft(f[1], "!") // which locks it
	lock := strings.TrimSuffix(f[1], hash)
	for _, p := range passwords {
		if b.Command("perl", "-e", `exit(crypt($ARGV[0], $ARGV[1]) ne $ARGV[1])`, p, hash).Run() == nil {
			f[1] = lock + p
		}
	}
	return strings.Join(f, ":")
}

const debians = "/usr/bin/passwd"

// again sets alice's password and the rest of her entry as they are in a new testbed,
// and then runs a script.
func again(t *testing.T, b *testbed.Bed, script string) {
	t.Helper()
	b.Sh(t, "echo alice:"+testbed.Password+" | chpasswd -c SHA512 -s 1000; chage -m 0 -M 99999 -W 7 -I -1 -E -1 alice; rm -f /etc/security/opasswd; "+script)
}

// TestPasswdIsDebians is a table beside Debian's passwd, which is setuid.
func TestPasswdIsDebians(t *testing.T) {
	b := up(t)
	const other = "Xq7-new-horse"
	var module []string
	for _, usr := range []string{"", "usr"} { // of Debian 12, and 13
		m, err := filepath.Glob(filepath.Join(b.Top, "build/libpam-pwquality", usr, "lib/*/security/pam_pwquality.so"))
		if err != nil {
			t.Fatal(err)
		}
		module = append(module, m...)
	}
	if len(module) != 1 {
		t.Fatalf("no pam_pwquality, which scripts/deps unpacks: %q", module)
	}
	quality := "sed -i '/pam_unix.so/i password requisite " + module[0] + " retry=2 minlen=12' /etc/pam.d/common-password; sed -i 's/pam_unix.so/pam_unix.so use_authtok/' /etc/pam.d/common-password"
	plain := "cp /etc/pam.d/common-password.plain /etc/pam.d/common-password"
	// PAM's own delay, which is the same with both, would take most of the test.
	b.Sh(t, "sed -i '/pam_unix.so/s/$/ nodelay/' /etc/pam.d/common-password; cp /etc/pam.d/common-password /etc/pam.d/common-password.plain")
	for _, c := range []struct {
		name, before, stdin string
		args                []string
	}{
		{"changed", "", testbed.Password + "\n" + other + "\n" + other + "\n", nil},
		{"changed by name", "", testbed.Password + "\n" + other + "\n" + other + "\n", []string{"alice"}},
		{"changed quietly", "", testbed.Password + "\n" + other + "\n" + other + "\n", []string{"-q"}},
		{"changed only if expired, which it is", "chage -d 0 alice", testbed.Password + "\n" + other + "\n" + other + "\n", []string{"-k"}},
		{"changed only if expired, which it is not", "", testbed.Password + "\n" + other + "\n" + other + "\n", []string{"--keep-tokens"}},
		{"wrong", "", "wrong\n", nil},
		{"nothing typed", "", "", nil},
		{"nothing typed, quietly", "", "", []string{"-q", "alice"}},
		{"mistyped", "", testbed.Password + "\n" + other + "\n" + other + "x\n", nil},
		{"too short", "", testbed.Password + "\nabc\nabc\n", nil},
		{"the same", "", testbed.Password + "\n" + testbed.Password + "\n" + testbed.Password + "\n", nil},
		{"too young", "chage -m 5 alice", testbed.Password + "\n" + other + "\n" + other + "\n", nil},
		{"locked", "usermod -L alice", testbed.Password + "\n" + other + "\n" + other + "\n", nil},
		{"not good enough", quality, testbed.Password + "\nshort1\nshort1\nshort2\nshort2\n", nil},
		{"good enough", quality, testbed.Password + "\n" + other + "\n" + other + "\n", nil},
		{"used before", plain + "; sed -i '/pam_unix.so/i password required pam_pwhistory.so remember=5 enforce_for_root' /etc/pam.d/common-password; sed -i 's/pam_unix.so/pam_unix.so use_authtok/' /etc/pam.d/common-password",
			testbed.Password + "\n" + testbed.Password + "\n" + testbed.Password + "\n", nil},
		{"status", plain, "", []string{"-S"}},
		{"status of oneself", "", "", []string{"--status", "alice"}},
		{"status, quietly", "", "", []string{"-qS"}},
		{"status of an old one", "chage -d 2020-02-29 -m 3 -M 90 -W 5 -I 4 alice", "", []string{"-S"}},
		{"status of none", "passwd -qd alice", "", []string{"-S"}},
		{"status of one that must be changed", "chage -d 0 alice", "", []string{"-S"}},
		{"status of one that was never changed", "chage -d -1 alice", "", []string{"-S"}},
		{"status of another", "", "", []string{"-S", "bob"}},
		{"status of root", "", "", []string{"-S", "root"}},
		{"status of nobody", "", "", []string{"-S", "nosuchuser"}},
		{"another's", "", testbed.Password + "\n", []string{"bob"}},
		{"root's", "", testbed.Password + "\n", []string{"root"}},
		{"nobody's", "", "", []string{"nosuchuser"}},
		{"two users", "", "", []string{"alice", "bob"}},
		{"help", "", "", []string{"-h"}},
		{"unknown option", "", "", []string{"-z"}},
		{"unknown long option", "", "", []string{"--nosuch"}},
		{"status and change", "", "", []string{"-S", "-e", "alice"}},
		{"status if expired", "", "", []string{"-Sk"}},
		{"all without status", "", "", []string{"-a"}},
		{"lock without a name", "", "", []string{"-l"}},
		{"not a number", "", "", []string{"-x", "abc", "alice"}},
		{"too small a number", "", "", []string{"-n", "-2", "alice"}},
		{"no number", "", "", []string{"alice", "-w"}},
		{"repository", "", "", []string{"-r", "nis"}},
		// What is root's is refused in the same line, and one more that says what to do.
		{"status of all", "", "", []string{"-S", "-a"}},
		{"lock", "", "", []string{"-l", "alice"}}, {"unlock", "", "", []string{"-u", "alice"}}, {"delete", "", "", []string{"-d", "alice"}},
		{"expire", "", "", []string{"-e", "alice"}}, {"maximum", "", "", []string{"-x", "5", "alice"}}, {"minimum", "", "", []string{"-n", "5", "alice"}},
		{"warning", "", "", []string{"-w", "5", "alice"}}, {"inactive", "", "", []string{"-i", "-1", "alice"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			again(t, b, c.before)
			want := as(t, b, "alice", c.stdin, debians, c.args...)
			wantShadow := shadow(t, b, "alice", testbed.Password, other)
			again(t, b, c.before)
			got := as(t, b, "alice", c.stdin, b.Bin("passwd"), c.args...)
			gotShadow := shadow(t, b, "alice", testbed.Password, other)
			got.stderr = strings.TrimSuffix(got.stderr, strings.TrimPrefix(errRoot.text, "passwd: Permission denied.\n")+"\n")
			if got != want {
				t.Errorf("%+v\nDebian's: %+v", got, want)
			}
			// A hash that no password fits has a salt of its own.
			if gotShadow != wantShadow {
				t.Errorf("/etc/shadow: %s\nDebian's: %s", gotShadow, wantShadow)
			}
		})
	}
}

func TestAtATerminalNothingIsEchoedAndAnInterruptLeavesItShown(t *testing.T) {
	b := up(t)
	term := b.Start(t, testbed.AsPerson("alice", "bash", "--norc", "-i")...)
	term.Send("stty -a | grep -o '.echo '; " + b.Bin("passwd") + "\n")
	term.Expect("Current password: ")
	term.Send("\x03")
	term.Expect(`\$ `)
	if s := term.Run("stty -a | tr ' ;' '\\n' | grep -x echo; echo shown"); !strings.Contains(s, "echo\nshown") {
		t.Errorf("after an interrupt the terminal is %q", s)
	}
	term.Send(b.Bin("passwd") + "\n")
	term.Expect("Current password: ")
	term.Send(testbed.Password + "\n")
	term.Expect("New password: ")
	term.Send("Xq7-new-horse\n")
	term.Expect("Retype new password: ")
	term.Send("Xq7-new-horse\n")
	term.Expect("passwd: password updated successfully")
	if s := term.Screen(); strings.Contains(s, "horse") || strings.Contains(s, testbed.Password) {
		t.Errorf("a password was shown: %s", s)
	}
	b.WantLog(t, `password changed.*uid=\d+.*service=passwd caller=alice user=alice`)
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Error("a PAM worker is left")
	}
}

func TestForRootTheSystemsOwnPasswdRuns(t *testing.T) {
	b := up(t)
	again(t, b, "")
	for _, args := range [][]string{{"-S", "alice"}, {"-l", "alice"}, {"-S", "alice"}, {"-u", "alice"}, {"-x", "9", "-q", "alice"}, {"-S", "alice"}, {"-e", "nosuchuser"}} {
		want := as(t, b, "root", "", debians, args...)
		if got := as(t, b, "root", "", b.Bin("passwd"), args...); got != want {
			t.Errorf("%q: %+v\nDebian's: %+v", args, got, want)
		}
	}
	if got := as(t, b, "root", "Xq7-new-horse\nXq7-new-horse\n", b.Bin("passwd"), "bob"); got.status != 0 {
		t.Errorf("%+v", got)
	}
	if s := shadow(t, b, "bob", "Xq7-new-horse"); !strings.HasPrefix(s, "bob:Xq7-new-horse:") {
		t.Error(s)
	}
}

// throughFactotum changes a user's password as passwd does where the system has none.
func throughFactotum(args []string) {
	if err := run(options{user: args[0]}); err != nil {
		fail(err)
	}
}

func TestMain(m *testing.M) {
	testbed.Main(m, testbed.Programs{
		"through-factotum": throughFactotum, "speak": speak, "dial-and-run": dialAndRun, "on-descriptor-3": onDescriptor,
	})
}

// TestRootChangesAnybodysPasswordThroughFactotum where the system has no passwd.
func TestRootChangesAnybodysPasswordThroughFactotum(t *testing.T) {
	b := up(t)
	const typed = "Xq7-new-horse\nXq7-new-horse\n"
	want := result{"", "New password: Retype new password: passwd: password updated successfully\n", 0}
	if got := as(t, b, "root", typed, b.Self(t), "through-factotum", "bob"); got != want {
		t.Errorf("%+v", got)
	}
	if s := shadow(t, b, "bob", "Xq7-new-horse"); !strings.HasPrefix(s, "bob:Xq7-new-horse:") {
		t.Error(s)
	}
	want = result{"", "passwd: user 'nosuchuser' does not exist\n", exitPermission}
	if got := as(t, b, "root", typed, b.Self(t), "through-factotum", "nosuchuser"); got != want {
		t.Errorf("%+v", got)
	}
}

func TestNobodyChangesAPasswordUntilPasswdIsConfigured(t *testing.T) {
	b := testbed.Up(t)
	got := as(t, b, "alice", testbed.Password+"\n", b.Bin("passwd"))
	if got.status != exitFailure || !strings.Contains(got.stderr, "not configured as a front end") || !strings.HasSuffix(got.stderr, "passwd: password unchanged\n") {
		t.Errorf("%+v", got)
	}
}

func TestWithoutFactotumThereIsOneClearLine(t *testing.T) {
	b := testbed.Up(t)
	b.Sh(t, "rm /run/factotum/rpc")
	got := as(t, b, "alice", testbed.Password+"\n", b.Bin("passwd"))
	want := fmt.Sprintf("passwd: factotum is not running (no answer at %s); the administrator must start it\npasswd: password unchanged\n", testbed.RPC)
	if got.status != exitFailure || got.stderr != want {
		t.Errorf("%+v", got)
	}
}
