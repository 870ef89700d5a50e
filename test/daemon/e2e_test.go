// Package daemon attacks a running p9auth: front ends that lie, PAM modules that
// misbehave, processes that are killed, and many logins at once. It has tests
// only. The front ends that lie are this test's own program, run in the
// testbed as an unprivileged user (liar_test.go).
package daemon

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"p9auth/internal/proc"
	"p9auth/test/testbed"
)

const (
	password = "open-sesame"
	rpc      = "/run/factotum/rpc"
)

// TestMain lets the test's program be a front end that lies.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "liar" {
		liar(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "manager" {
		manager(os.Args[2:])
		return
	}
	if len(os.Args) == 4 && os.Args[1] == "syslogd" {
		syslogd(os.Args[2], os.Args[3])
		return
	}
	os.Exit(m.Run())
}

// A bed is a testbed whose PAM services record what is opened and closed, and
// stop where a test wants them to.
type bed struct{ *testbed.Bed }

// record is run by pam_exec(8) in each PAM service. It notes the opening and
// closing of sessions and waits while there is a file /run/hold-TYPE.
const record = `#!/bin/sh
case $PAM_TYPE in *_session) echo "$PAM_TYPE $PAM_USER $PAM_TTY" >>/run/sessions ;; esac
[ -e /run/hold-$PAM_TYPE ] && echo x >>/run/held-$PAM_TYPE
while [ -e /run/hold-$PAM_TYPE ]; do sleep 0.05; done
exit 0
`

// service is a PAM service without Debian's delays.
const service = `auth required pam_unix.so nodelay
auth required pam_exec.so quiet /run/record
account required pam_unix.so
session required pam_loginuid.so
session required pam_exec.so quiet /run/record
session required pam_unix.so
`

// config is what the testbed's factotum has, and one front end more.
const config = "FrontEnd _login login\nFrontEnd _sshfront sshd\nFrontEnd _rogue rogue\n"

// up starts a testbed. The user _rogue is a front end too, bound to the PAM
// service rogue.
func up(t *testing.T) *bed {
	t.Helper()
	b := &bed{testbed.Up(t)}
	b.Sh(t, "useradd --system --no-create-home _rogue")
	b.write(t, "/run/record", record)
	b.Sh(t, "chmod 755 /run/record")
	b.write(t, "/etc/pam.d/login", service)
	b.write(t, "/etc/pam.d/rogue", service)
	b.configure(t, "")
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// The test's own folder may be closed to other users; the testbed's is not.
	if err := os.WriteFile(b.liar(), exe, 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bed) liar() string { return filepath.Join(b.Dir, "liar") }

// write makes a file inside the testbed.
func (b *bed) write(t *testing.T, path, text string) {
	t.Helper()
	cmd := b.Command("tee", path)
	cmd.Stdin = strings.NewReader(text)
	if err := cmd.Run(); err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
}

// configure adds lines to the configuration and has factotum read it.
func (b *bed) configure(t *testing.T, lines string) {
	t.Helper()
	b.write(t, "/etc/p9auth/factotum.conf", config+lines)
	b.hup(t, "configuration read again")
}

// hup sends factotum SIGHUP and waits for what it says to it.
func (b *bed) hup(t *testing.T, want string) {
	t.Helper()
	n := b.logged(want)
	if err := syscall.Kill(b.factotum(t), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return b.logged(want) == n+1 }) {
		t.Fatalf("factotum does not log %q", want)
	}
}

// logged is how often factotum's log has the text.
func (b *bed) logged(text string) int { return strings.Count(b.Log(), text) }

// factotum is its pid.
func (b *bed) factotum(t *testing.T) int {
	t.Helper()
	p := b.Pids("factotum")
	if len(p) != 1 {
		t.Fatalf("processes of factotum: %v", p)
	}
	return p[0]
}

// restart starts factotum again, after it has ended.
func (b *bed) restart(t *testing.T) {
	t.Helper()
	n := b.logged("factotum is ready")
	script := filepath.Join(b.Top, "scripts", "testbed")
	if out, err := exec.Command(script, "start-factotum", b.Dir).CombinedOutput(); err != nil {
		t.Fatalf("start factotum again: %v: %s", err, out)
	}
	if !testbed.Eventually(func() bool { return b.logged("factotum is ready") == n+1 }) {
		t.Fatal("factotum does not start again")
	}
}

// kill sends SIGKILL and waits until the process is gone or a zombie.
func kill(t *testing.T, pid int) {
	t.Helper()
	h, err := proc.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return !h.Alive() }) {
		t.Fatalf("process %d does not end", pid)
	}
}

// hold makes the PAM services stop where they are of that type: auth,
// open_session or close_session. The function that it returns lets them go
// on; the test's end does so too.
func (b *bed) hold(t *testing.T, typ string) (release func()) {
	t.Helper()
	file := "/run/hold-" + typ
	b.Sh(t, "rm -f /run/held-"+typ+"; touch "+file)
	released := false
	release = func() {
		if !released {
			released = true
			b.Sh(t, "rm "+file)
		}
	}
	t.Cleanup(release)
	return release
}

// waitHeld waits until a PAM service stands at a hold.
func (b *bed) waitHeld(t *testing.T, typ string) {
	t.Helper()
	if !testbed.Eventually(func() bool { return b.Sh(t, "cat /run/held-"+typ+" 2>/dev/null || true") != "" }) {
		t.Fatalf("no PAM service comes to %s", typ)
	}
}

// login starts login on a terminal, as root, and waits for the question for
// the password.
func (b *bed) login(t *testing.T, user string, options ...string) *testbed.Term {
	t.Helper()
	term := b.Start(t, append(append([]string{b.Bin("login")}, options...), "--", user)...)
	term.Expect("Password: ")
	return term
}

// in logs a user in and waits for the shell.
func (b *bed) in(t *testing.T, user string, options ...string) *testbed.Term {
	t.Helper()
	term := b.login(t, user, options...)
	term.Send(password + "\n")
	shell(t, term, user)
	return term
}

// shell waits for the user's shell.
func shell(t *testing.T, term *testbed.Term, user string) {
	t.Helper()
	term.Expect(`\$ `)
	if got := term.Run("id -un"); got != user {
		t.Fatalf("this is %s, not %s", got, user)
	}
}

// out ends the shell, and waits until its PAM session is closed, once.
func (b *bed) out(t *testing.T, term *testbed.Term) {
	t.Helper()
	tty := term.TTY()
	term.Send("exit\n")
	term.Wait()
	b.wantClosed(t, tty)
}

// opened is how often PAM sessions of a user, or on a terminal, were opened and
// closed.
func (b *bed) opened(t *testing.T, userOrTTY string) (opened, closed int) {
	t.Helper()
	word := strings.TrimPrefix(userOrTTY, "/dev/")
	for line := range strings.Lines(b.Sh(t, "cat /run/sessions 2>/dev/null || true")) {
		f := strings.Fields(line) // PAM_TYPE PAM_USER PAM_TTY
		if !slices.Contains(f, word) {
			continue
		}
		switch f[0] {
		case "open_session":
			opened++
		case "close_session":
			closed++
		}
	}
	return opened, closed
}

// forget forgets the sessions so far.
func (b *bed) forget(t *testing.T) {
	t.Helper()
	b.Sh(t, "rm -f /run/sessions")
}

// wantClosed checks that the PAM session of the terminal is closed, once, and
// was opened once. It forgets them, as the terminal's name may come again.
func (b *bed) wantClosed(t *testing.T, tty string) {
	t.Helper()
	testbed.Eventually(func() bool {
		_, c := b.opened(t, tty)
		return c > 0
	})
	name := strings.TrimPrefix(tty, "/dev/")
	defer b.Sh(t, "sed -i 's, "+name+"$, before,' /run/sessions")
	if o, c := b.opened(t, tty); o != 1 || c != 1 {
		t.Errorf("the PAM session on %s was opened %d times and closed %d times", tty, o, c)
	}
}

// wantNoWorker waits until no worker is left.
func (b *bed) wantNoWorker(t *testing.T) {
	t.Helper()
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Errorf("a PAM worker is left: %v", b.Pids("factotum-pam"))
	}
}

// worker is the pid of the one worker, which is not one of the others.
func (b *bed) worker(t *testing.T, others ...int) int {
	t.Helper()
	p := slices.DeleteFunc(b.Pids("factotum-pam"), func(pid int) bool { return slices.Contains(others, pid) })
	if len(p) != 1 {
		t.Fatalf("PAM workers: %v", p)
	}
	return p[0]
}

// stat is the owner, group and mode of a terminal.
func stat(t *testing.T, path string) string {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode&0o7777)
}

// wantStat waits until a terminal has that owner, group and mode.
func wantStat(t *testing.T, path, want string) {
	t.Helper()
	if !testbed.Eventually(func() bool { return stat(t, path) == want }) {
		t.Errorf("%s is %s, not %s", path, stat(t, path), want)
	}
}

// oneLine says whether the text is one line that is not empty.
func oneLine(b []byte) bool {
	return len(bytes.TrimSpace(b)) > 0 && bytes.Count(b, []byte("\n")) == 1
}
