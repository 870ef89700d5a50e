package daemon

import (
	"bytes"
	"strings"
	"syscall"
	"testing"

	"p9auth/internal/proc"
	"p9auth/test/attack/pam"
	"p9auth/test/testbed"
)

func TestSIGTERMEndsFactotumAndNoSession(t *testing.T) {
	b := up(t)
	term := b.In(t, "alice")
	waiting := b.Login(t, "bob") // a conversation that has to end
	h, err := proc.Open(b.Factotum(t))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := syscall.Kill(h.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return !h.Alive() }) {
		t.Fatal("factotum does not end")
	}
	b.WantLog(t, "factotum ends; sessions go on")
	if got := b.Sh(t, "ls /run/factotum/rpc 2>/dev/null || true; findmnt -n /run/factotum/cap || true"); got != "" {
		t.Errorf("left behind: %s", got)
	}
	waiting.Send(testbed.Password + "\n")
	waiting.Expect(goneAway)
	b.wantNotThere(t)
	if got := term.Run("echo goes on"); got != "goes on" {
		t.Errorf("the shell says %s", got)
	}
	b.Restart(t)
	b.Out(t, b.In(t, "bob"))
	b.Out(t, term)
	b.WantNoWorker(t)
	if log := b.Log(); strings.Contains(log, "protocol violation") {
		t.Errorf("the front ends are blamed:\n%s", log)
	}
}

func TestSIGHUPReadsTheConfigurationAgain(t *testing.T) {
	b := up(t)
	term := b.In(t, "alice")
	for lines, want := range map[string]string{
		"Sokcet /run/factotum/rpc\n":       `factotum.conf:4: unknown keyword`,
		"Socket /run/elsewhere\n":          "needs a restart",
		"FrontEnd nobody-of-that-name x\n": "there is no such user",
		"PAMWorker /nonexistent/worker\n":  "no such file",
	} {
		b.Write(t, "/etc/p9auth/factotum.conf", testbed.LoginsConfig+lines)
		b.HUP(t, "the configuration stays as it was")
		b.WantLog(t, "the configuration stays as it was.*"+want)
		b.Out(t, b.In(t, "bob", testbed.AsSecond...)) // as it was
	}
	// A good one holds for the conversations that come.
	b.Write(t, "/etc/p9auth/factotum.conf", "FrontEnd _login login\n")
	b.HUP(t, "configuration read again")
	pam.Attack(t, b.Logins, "_second", "stranger")
	if got := term.Run("echo goes on"); got != "goes on" {
		t.Errorf("the shell says %s", got)
	}
	b.Out(t, term)
}

func TestTheLineIsDropped(t *testing.T) {
	b := up(t)
	t.Run("at the prompt", func(t *testing.T) {
		term := b.Login(t, "alice")
		term.Hangup()
		term.Wait()
		b.WantNoWorker(t)
	})
	t.Run("in the session", func(t *testing.T) {
		term := b.In(t, "alice")
		tty := term.TTY()
		term.Hangup()
		term.Wait()
		b.WantClosed(t, tty)
		b.WantNoWorker(t)
	})
	for typ, step := range map[string]string{"auth": inAuth, "open_session": inOpening} {
		t.Run(step, func(t *testing.T) {
			b.Forget(t)
			term, _, _, release := b.at(t, step)
			term.Hangup()
			term.Wait()
			release()
			b.WantNoWorker(t)
			if o, c := b.Opened(t, "alice"); o != c {
				t.Errorf("after a hang-up in %s, the PAM session was opened %d times and closed %d times", typ, o, c)
			}
		})
	}
}

func TestASecondFactotumIsRefused(t *testing.T) {
	b := up(t)
	var stderr bytes.Buffer
	cmd := b.Command(b.Bin("factotum"))
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil || !oneLine(stderr.Bytes()) || !strings.Contains(stderr.String(), "another factotum") {
		t.Errorf("%v: %s", err, stderr.String())
	}
	b.Out(t, b.In(t, "alice"))
}
