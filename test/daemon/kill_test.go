package daemon

import (
	"fmt"
	"strings"
	"testing"

	"p9auth/test/attack/pam"
	"p9auth/test/testbed"
)

// The steps of a login at which something is killed.
const (
	atPrompt  = "at the prompt"
	inAuth    = "while PAM authenticates"
	inOpening = "while PAM opens the session"
	isOpen    = "in the session"
	inClosing = "while PAM closes the session"
)

// The errors that a person sees.
const (
	goneAway     = "factotum has gone away; try again"
	workerFailed = "the PAM worker crashed; try again"
)

// at brings a login of alice's to a step. It returns the terminal, with who it
// belongs to before the login. Release lets PAM go on.
func (b *bed) at(t *testing.T, step string) (term *testbed.Term, tty, was string, release func()) {
	t.Helper()
	types := map[string]string{inAuth: "auth", inOpening: "open_session", inClosing: "close_session"}
	release = func() {}
	if typ, ok := types[step]; ok {
		release = b.Hold(t, typ)
	}
	term = b.Login(t, "alice")
	tty = term.TTY()
	was = testbed.Stat(t, tty)
	if step != atPrompt {
		term.Send(testbed.Password + "\n")
	}
	if step == isOpen || step == inClosing {
		testbed.Shell(t, term, "alice")
	}
	if step == inClosing {
		term.Send("exit\n")
	}
	if typ, ok := types[step]; ok {
		b.WaitHeld(t, typ)
	}
	return term, tty, was, release
}

// A thread that waits for its own process to serve a file cannot be killed: see
// capfs.FS.OpenHash.
func TestFactotumHasNoneOfItsOwnFilesOpen(t *testing.T) {
	b := up(t)
	term := b.Login(t, "alice")
	term.Send(testbed.Password + "\n")
	testbed.Shell(t, term, "alice")
	pids := b.Pids("factotum")
	if len(pids) != 1 {
		t.Fatalf("factotum is %v", pids)
	}
	out := b.Sh(t, fmt.Sprintf("cd /proc/%d/fd; for f in *; do readlink $f; done", pids[0]))
	if !strings.Contains(out, "/dev/fuse") {
		t.Errorf("it does not serve FUSE: %s", out)
	}
	if strings.Contains(out, "/run/factotum/cap") {
		t.Errorf("open: %s", out)
	}
}

func TestKilledAtEachStep(t *testing.T) {
	b := up(t)
	for _, c := range []struct {
		step, victim   string
		shown          string // to the person
		opened, closed int    // how often the PAM session is, all in all
	}{
		{atPrompt, "factotum", goneAway, 0, 0},
		{atPrompt, "worker", workerFailed, 0, 0},
		{atPrompt, "login", "", 0, 0},
		{inAuth, "factotum", goneAway, 0, 0},
		{inAuth, "worker", workerFailed, 0, 0},
		{inAuth, "login", "", 0, 0},
		{inOpening, "factotum", goneAway, 1, 1},
		{inOpening, "worker", workerFailed, 1, 0}, // it was not opened to the end: see pam_open_session(3)
		{inOpening, "login", "", 1, 1},
		{isOpen, "factotum", "", 1, 1},
		{isOpen, "worker", "", 1, 1},
		{isOpen, "login", "", 1, 1}, // the shell by now
		{inClosing, "factotum", "", 1, 1},
		{inClosing, "worker", "", 1, 1},
	} {
		t.Run(c.victim+" "+c.step, func(t *testing.T) {
			b.Forget(t)
			term, tty, was, release := b.at(t, c.step)
			pid := map[string]func() int{
				"factotum": func() int { return b.Factotum(t) }, "worker": func() int { return b.Worker(t) }, "login": term.PID,
			}[c.victim]()
			testbed.Kill(t, pid)
			if c.victim == "factotum" {
				b.wantNotThere(t)
			}
			if c.step == atPrompt && c.victim != "login" {
				term.Send(testbed.Password + "\n")
			}
			if c.shown != "" {
				term.Expect(c.shown)
			}
			release()
			if c.step == isOpen && c.victim != "login" {
				if got := term.Run("echo goes on"); got != "goes on" {
					t.Errorf("the shell says %s", got)
				}
			}
			if c.victim == "factotum" {
				b.Restart(t)
			}
			if c.step == isOpen && c.victim == "worker" {
				b.WantLog(t, "another takes over")
				if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 1 }) {
					t.Error("no worker takes over")
				}
			}
			other := b.In(t, "bob")
			other.Send("exit\n")
			other.Wait()
			if c.step == isOpen && c.victim != "login" {
				term.Send("exit\n")
				term.Wait()
			}
			b.WantNoWorker(t)
			if o, n := b.Opened(t, "alice"); o != c.opened || n != c.closed {
				t.Errorf("the PAM session was opened %d times and closed %d times, not %d and %d", o, n, c.opened, c.closed)
			}
			if o, n := b.Opened(t, "bob"); o != 1 || n != 1 {
				t.Errorf("the other PAM session was opened %d times and closed %d times", o, n)
			}
			testbed.WantStat(t, tty, was)
			if got := b.Sh(t, "findmnt -n /run/factotum/cap | wc -l"); got != "1" {
				t.Errorf("%s mounts at /run/factotum/cap", got)
			}
			var left map[string][]int
			if !testbed.Eventually(func() bool {
				left = b.Processes()
				delete(left, "factotum")
				delete(left, "sshfront")
				delete(left, "sleep") // the testbed's
				delete(left, "")
				return len(left) == 0
			}) {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestAWorkerThatIsKilledAgainAndAgain(t *testing.T) {
	b := up(t)
	term := b.In(t, "alice")
	for range 3 {
		testbed.Kill(t, b.Worker(t))
		if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 1 }) {
			t.Fatal("no worker takes over")
		}
	}
	b.Out(t, term)
}

func TestAProvenConversationWhoseWorkerOrFactotumIsKilled(t *testing.T) {
	b := up(t)
	term := pam.Start(t, b.Logins, "_login", "orphan")
	term.Expect("is proven")
	testbed.Kill(t, b.Worker(t))
	term.Send("\n")
	pam.WantHarmless(t, b.Logins, term, b.Logged("conversation ended: protocol violation"))
	b.WantLog(t, "the PAM worker failed")

	term = pam.Start(t, b.Logins, "_login", "log-in", "proven")
	term.Expect("is proven")
	testbed.Kill(t, b.Factotum(t))
	b.WantNoWorker(t)
	b.Restart(t)
	b.Out(t, b.In(t, "alice"))
}

// wantNotThere checks what a login says when there is no factotum.
func (b *bed) wantNotThere(t *testing.T) {
	t.Helper()
	term := b.Start(t, b.Bin("login"), "--", "bob")
	term.Expect(`login: factotum is not running \(no answer at /run/factotum/rpc\); the administrator must start it`)
	if term.Wait() == nil {
		t.Error("login succeeds")
	}
}
