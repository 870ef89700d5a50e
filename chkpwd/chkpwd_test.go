package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"p9auth/capproto"
	"p9auth/test/testbed"
)

// up starts a testbed where unix_chkpwd is configured.
func up(t *testing.T) *testbed.Bed {
	t.Helper()
	b := testbed.Up(t)
	b.Local(t, "FrontEnd * chkpwd chkpwd")
	return b
}

const debians = "/usr/sbin/unix_chkpwd"

// guess runs unix_chkpwd as a user. It returns the exit status and what was printed.
func guess(t *testing.T, b *testbed.Bed, as, program, stdin string, args ...string) (int, string) {
	t.Helper()
	cmd := b.Command(testbed.AsPerson(as, append([]string{program}, args...)...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestUnixChkpwdIsLinuxPAMs is a table beside Debian's unix_chkpwd, which is setgid.
func TestUnixChkpwdIsLinuxPAMs(t *testing.T) {
	b := up(t)
	b.Sh(t, "cp /etc/shadow /root/shadow")
	const right = testbed.Password + "\x00"
	for _, c := range []struct {
		before, stdin string
		args          []string
	}{
		{"", right, []string{"alice", "nullok"}}, {"", right, []string{"alice", "nonull"}}, {"", right + "and more", []string{"alice", "nonull"}},
		{"", testbed.Password, []string{"alice", "nonull"}}, {"", "wrong\x00", []string{"alice", "nullok"}}, {"", "", []string{"alice", "nullok"}},
		{"", "\x00", []string{"alice", "nonull"}}, {"", strings.Repeat("x", 600) + "\x00", []string{"alice", "nullok"}},
		{"", right, []string{"alice", "--help"}}, {"", right, []string{"bob", "--help"}},
		{"", "", []string{"alice", "chkexpiry"}},
		// About others there is no answer.
		{"", right, []string{"bob", "nullok"}}, {"", "wrong\x00", []string{"bob", "nullok"}}, {"", "x\x00", []string{"root", "nullok"}},
		{"", "x\x00", []string{"nosuchuser", "nullok"}}, {"", "", []string{"bob", "chkexpiry"}}, {"", "", []string{"nosuchuser", "chkexpiry"}},
		{"chage -d 0 alice", "", []string{"alice", "chkexpiry"}}, {"chage -d 0 alice", right, []string{"alice", "nullok"}},
		{"chage -d 2020-01-01 -M 30 alice", "", []string{"alice", "chkexpiry"}},
		{"chage -d 2020-01-01 -M 30 -I 5 alice", "", []string{"alice", "chkexpiry"}},
		{"chage -M 5 alice", "", []string{"alice", "chkexpiry"}}, {"chage -E 2020-01-01 alice", "", []string{"alice", "chkexpiry"}},
		{"chage -E 2020-01-01 alice", right, []string{"alice", "nullok"}}, {"usermod -L alice", right, []string{"alice", "nullok"}},
		{"passwd -qd alice", "", []string{"alice", "nullok"}}, {"passwd -qd alice", "\x00", []string{"alice", "nonull"}},
		{"passwd -qd alice", "x\x00", []string{"alice", "nullok"}}, {"passwd -qd alice", "x\x00", []string{"alice", "nonull"}},
	} {
		b.Sh(t, "cat /root/shadow >/etc/shadow; "+c.before)
		status, out := guess(t, b, "alice", b.Bin("unix_chkpwd"), c.stdin, c.args...)
		wantStatus, wantOut := guess(t, b, "alice", debians, c.stdin, c.args...)
		if status != wantStatus || out != wantOut {
			t.Errorf("%s; %.20q to %q: %d, %q; Debian's: %d, %q", c.before, c.stdin, c.args, status, out, wantStatus, wantOut)
		}
	}
	b.Sh(t, "cat /root/shadow >/etc/shadow")
	for _, stdin := range []string{right, "wrong\x00"} {
		status, _ := guess(t, b, "root", b.Bin("unix_chkpwd"), stdin, "bob", "nullok")
		if want, _ := guess(t, b, "root", debians, stdin, "bob", "nullok"); status != want {
			t.Errorf("as root: %d, Debian's: %d", status, want)
		}
	}
}

// TestPamUnixAsksOursWhereItIsDiverted as a program without rights has it.
func TestPamUnixAsksOursWhereItIsDiverted(t *testing.T) {
	b := up(t)
	// As p9auth-switch(8) does; the system's own has no set-id bit then.
	b.Sh(t, `mkdir /root/u /root/w /root/sbin; mount -t tmpfs none /root/u; mkdir /root/u/up /root/u/work
mount -t overlay none -o lowerdir=/usr/sbin,upperdir=/root/u/up,workdir=/root/u/work /usr/sbin
mv /usr/sbin/unix_chkpwd /usr/sbin/unix_chkpwd.distrib; chmod 755 /usr/sbin/unix_chkpwd.distrib
ln -s `+b.Bin("unix_chkpwd")+` /usr/sbin/unix_chkpwd
printf 'auth required pam_unix.so\naccount required pam_unix.so\n' >/etc/pam.d/locker`)
	for _, c := range []struct {
		user, password string
		ok             bool
	}{{"alice", testbed.Password, true}, {"alice", "wrong", false}, {"bob", testbed.Password, false}} {
		cmd := b.Command(testbed.AsPerson("alice", "pamtester", "locker", c.user, "authenticate", "acct_mgmt")...)
		cmd.Stdin = strings.NewReader(c.password + "\n")
		out, err := cmd.CombinedOutput()
		if (err == nil) != c.ok {
			t.Errorf("a screen locker of alice's, %s's password %s: %v: %s", c.user, c.password, err, out)
		}
	}
	b.WantLog(t, `login refused.*service=chkpwd user=alice reason="wrong password"`)
	if n := b.Logged("service=chkpwd user=bob"); n != 0 {
		t.Errorf("factotum was asked about bob %d times", n)
	}
}

func TestAFloodOfGuessesIsDelayedAndCounted(t *testing.T) {
	b := up(t)
	before := b.Logged("wrong password")
	// Forty at once, of which each would take a millisecond.
	const n = 40
	began := time.Now()
	statuses := map[string]int{}
	cmd := b.Command(testbed.AsPerson("alice", "bash", "-c", fmt.Sprintf(
		`for i in $(seq %d); do (printf "guess$i\0" | timeout 4 %s alice nullok; echo $?) & done; wait`, n, b.Bin("unix_chkpwd")))...)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	for s := range strings.FieldsSeq(out.String()) {
		statuses[s]++
	}
	judged := b.Logged("wrong password") - before
	most := int(time.Since(began)/time.Second) + 2 // FAIL_DELAY is a second at least
	if judged == 0 || judged > most {
		t.Errorf("%d guesses were judged in %v: %v", judged, time.Since(began), statuses)
	}
	if statuses["0"] != 0 {
		t.Errorf("guessed right: %v", statuses)
	}
	// Meanwhile bob is not held back, nor is who logs in.
	if status, _ := guess(t, b, "bob", b.Bin("unix_chkpwd"), testbed.Password+"\x00", "bob", "nullok"); status != 0 {
		t.Errorf("bob's own password is refused: %d", status)
	}
}

// TestFactotumAnswersNobodyAboutOthers who speaks its protocol without unix_chkpwd.
func TestFactotumAnswersNobodyAboutOthers(t *testing.T) {
	b := up(t)
	for _, args := range [][]string{{"bob", "nullok", testbed.Password}, {"bob", "nullok", "wrong"}, {"root", "chkexpiry", ""}, {"nosuchuser", "nullok", "x"}, {"_login", "chkexpiry", ""}} {
		out, err := b.Command(testbed.AsPerson("alice", append([]string{b.Self(t), "ask"}, args...)...)...).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), capproto.CodeDenied) {
			t.Errorf("%q: %v: %s", args, err, out)
		}
	}
	out, err := b.Command(testbed.AsPerson("alice", b.Self(t), "ask", "alice", "--help", "x")...).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), capproto.CodeProtocol) {
		t.Errorf("an option that unix_chkpwd does not have: %v: %s", err, out)
	}
}

func TestMain(m *testing.M) {
	testbed.Main(m, testbed.Programs{"ask": func(args []string) {
		_, _, err := ask(args[0], args[1], args[2])
		fmt.Println(capproto.CodeOf(err), err)
	}})
}
