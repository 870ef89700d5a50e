package testbed

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"p9auth/internal/proc"
)

// Logins is a testbed whose PAM services record what is opened and closed, and
// stop where a test wants them to. It has one front end more, the user _second,
// bound to the PAM service second.
type Logins struct{ *Bed }

// record is run by pam_exec(8) in each PAM service. It notes the opening and
// closing of sessions and waits while there is a file /run/hold-TYPE.
const record = `#!/bin/sh
case $PAM_TYPE in *_session) echo "$PAM_TYPE $PAM_USER $PAM_TTY" >>/run/sessions ;; esac
[ -e /run/hold-$PAM_TYPE ] && echo x >>/run/held-$PAM_TYPE
while [ -e /run/hold-$PAM_TYPE ]; do sleep 0.05; done
exit 0
`

// Service is a PAM service of Logins. It has none of Debian's delays.
const Service = `auth required pam_unix.so nodelay
auth required pam_exec.so quiet /run/record
account required pam_unix.so
session required pam_loginuid.so
session required pam_exec.so quiet /run/record
session required pam_unix.so
`

// LoginsConfig is the factotum.conf of Logins.
const LoginsConfig = "FrontEnd _login login\nFrontEnd _sshfront sshd\nFrontEnd _second second\n"

// AsSecond are the options that make login use the front end _second.
var AsSecond = []string{"-o", "user=_second"}

// UpLogins starts a testbed.
func UpLogins(tb testing.TB) *Logins {
	tb.Helper()
	b := &Logins{Up(tb)}
	b.Sh(tb, "useradd --system --no-create-home _second")
	b.Write(tb, "/run/record", record)
	b.Sh(tb, "chmod 755 /run/record")
	b.Write(tb, "/etc/pam.d/login", Service)
	b.Write(tb, "/etc/pam.d/second", Service)
	b.Configure(tb, "")
	return b
}

// Configure adds lines to the configuration and has factotum read it.
func (b *Logins) Configure(tb testing.TB, lines string) {
	tb.Helper()
	b.Write(tb, "/etc/p9auth/factotum.conf", LoginsConfig+lines)
	b.HUP(tb, "configuration read again")
}

// HUP sends factotum SIGHUP and waits for what it says to it.
func (b *Logins) HUP(tb testing.TB, want string) {
	tb.Helper()
	n := b.Logged(want)
	if err := syscall.Kill(b.Factotum(tb), syscall.SIGHUP); err != nil {
		tb.Fatal(err)
	}
	if !Eventually(func() bool { return b.Logged(want) == n+1 }) {
		tb.Fatalf("factotum does not log %q", want)
	}
}

// Factotum is its pid.
func (b *Logins) Factotum(tb testing.TB) int {
	tb.Helper()
	p := b.Pids("factotum")
	if len(p) != 1 {
		tb.Fatalf("processes of factotum: %v", p)
	}
	return p[0]
}

// Restart starts factotum again, after it has ended.
func (b *Logins) Restart(tb testing.TB) {
	tb.Helper()
	n := b.Logged("factotum is ready")
	script := filepath.Join(b.Top, "scripts", "testbed")
	if out, err := exec.Command(script, "start-factotum", b.Dir).CombinedOutput(); err != nil {
		tb.Fatalf("start factotum again: %v: %s", err, out)
	}
	if !Eventually(func() bool { return b.Logged("factotum is ready") == n+1 }) {
		tb.Fatal("factotum does not start again")
	}
}

// Kill sends SIGKILL and waits until the process is gone or a zombie.
func Kill(tb testing.TB, pid int) {
	tb.Helper()
	h, err := proc.Open(pid)
	if err != nil {
		tb.Fatal(err)
	}
	defer h.Close()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		tb.Fatal(err)
	}
	if !Eventually(func() bool { return !h.Alive() }) {
		tb.Fatalf("process %d does not end", pid)
	}
}

// Hold makes the PAM services stop where they are of that type: auth,
// open_session or close_session. The function that it returns lets them go
// on; the test's end does so too.
func (b *Logins) Hold(tb testing.TB, typ string) (release func()) {
	tb.Helper()
	file := "/run/hold-" + typ
	b.Sh(tb, "rm -f /run/held-"+typ+"; touch "+file)
	released := false
	release = func() {
		if !released {
			released = true
			b.Sh(tb, "rm "+file)
		}
	}
	tb.Cleanup(release)
	return release
}

// WaitHeld waits until a PAM service stands at a hold.
func (b *Logins) WaitHeld(tb testing.TB, typ string) {
	tb.Helper()
	if !Eventually(func() bool { return b.Sh(tb, "cat /run/held-"+typ+" 2>/dev/null || true") != "" }) {
		tb.Fatalf("no PAM service comes to %s", typ)
	}
}

// Login starts login on a terminal, as root, and waits for the question for
// the password.
func (b *Logins) Login(tb testing.TB, user string, options ...string) *Term {
	tb.Helper()
	term := b.Start(tb, append(append([]string{b.Bin("login")}, options...), "--", user)...)
	term.Expect("Password: ")
	return term
}

// In logs a user in and waits for the shell.
func (b *Logins) In(tb testing.TB, user string, options ...string) *Term {
	tb.Helper()
	term := b.Login(tb, user, options...)
	term.Send(Password + "\n")
	Shell(tb, term, user)
	return term
}

// Shell waits for the user's shell.
func Shell(tb testing.TB, term *Term, user string) {
	tb.Helper()
	term.Expect(`\$ `)
	if got := term.Run("id -un"); got != user {
		tb.Fatalf("this is %s, not %s", got, user)
	}
}

// Out ends the shell, and waits until its PAM session is closed, once.
func (b *Logins) Out(tb testing.TB, term *Term) {
	tb.Helper()
	tty := term.TTY()
	term.Send("exit\n")
	term.Wait()
	b.WantClosed(tb, tty)
}

// Opened is how often PAM sessions of a user, or on a terminal, were opened and
// closed.
func (b *Logins) Opened(tb testing.TB, userOrTTY string) (opened, closed int) {
	tb.Helper()
	word := strings.TrimPrefix(userOrTTY, "/dev/")
	for line := range strings.Lines(b.Sh(tb, "cat /run/sessions 2>/dev/null || true")) {
		f := strings.Fields(line) // PAM_TYPE PAM_USER PAM_TTY
		if !slices.Contains(f, word) && !slices.Contains(f, "/dev/"+word) {
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

// Forget forgets the sessions so far.
func (b *Logins) Forget(tb testing.TB) {
	tb.Helper()
	b.Sh(tb, "rm -f /run/sessions")
}

// WantClosed checks that the PAM session of the terminal is closed, once, and
// was opened once. It forgets them, as the terminal's name may come again.
func (b *Logins) WantClosed(tb testing.TB, tty string) {
	tb.Helper()
	Eventually(func() bool {
		_, c := b.Opened(tb, tty)
		return c > 0
	})
	name := strings.TrimPrefix(tty, "/dev/")
	defer b.Sh(tb, `sed -i 's, \(/dev/\)\?`+name+`$, before,' /run/sessions`)
	if o, c := b.Opened(tb, tty); o != 1 || c != 1 {
		tb.Errorf("the PAM session on %s was opened %d times and closed %d times", tty, o, c)
	}
}

// WantNoWorker waits until no worker is left.
func (b *Logins) WantNoWorker(tb testing.TB) {
	tb.Helper()
	if !Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		tb.Errorf("a PAM worker is left: %v", b.Pids("factotum-pam"))
	}
}

// Worker is the pid of the one worker, which is not one of the others.
func (b *Logins) Worker(tb testing.TB, others ...int) int {
	tb.Helper()
	p := slices.DeleteFunc(b.Pids("factotum-pam"), func(pid int) bool { return slices.Contains(others, pid) })
	if len(p) != 1 {
		tb.Fatalf("PAM workers: %v", p)
	}
	return p[0]
}

// Stat is the owner, group and mode of a terminal.
func Stat(tb testing.TB, path string) string {
	tb.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		tb.Fatal(err)
	}
	return fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode&0o7777)
}

// WantStat waits until a terminal has that owner, group and mode.
func WantStat(tb testing.TB, path, want string) {
	tb.Helper()
	if !Eventually(func() bool { return Stat(tb, path) == want }) {
		tb.Errorf("%s is %s, not %s", path, Stat(tb, path), want)
	}
}
