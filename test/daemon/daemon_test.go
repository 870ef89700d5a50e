package daemon

import (
	"bytes"
	"os/exec"
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

func TestBadConfigurationsAreRefusedWithTheirLine(t *testing.T) {
	b := up(t)
	check := func(t *testing.T, text string) (string, error) {
		t.Helper()
		b.Write(t, "/etc/p9auth/test.conf", text)
		out, err := b.Command(b.Bin("factotum"), "-t", "-f", "/etc/p9auth/test.conf").CombinedOutput()
		if err != nil && !oneLine(out) {
			t.Errorf("%q: more than a line: %s", text, out)
		}
		return string(out), err
	}
	if out, err := check(t, "# a comment\n\n\tfrontend\t_login   login\nLOGLEVEL debug"); err != nil || out != "" {
		t.Errorf("a good one: %v: %s", err, out)
	}
	const first = "FrontEnd _login login\n"
	for line, want := range map[string]string{
		"Nonsense":                        "2: unknown keyword",
		"Socket":                          "2: Socket: ",
		"Socket relative/path":            "not an absolute path",
		"CapDir cap":                      "not an absolute path",
		"PAMConfDir ../x":                 "not an absolute path",
		"FrontEnd":                        "2: FrontEnd: want a user, a PAM service",
		"FrontEnd _sshfront":              "want a user, a PAM service",
		"FrontEnd _sshfront ../shadow":    "want a user, a PAM service",
		"FrontEnd _sshfront .hidden":      "want a user, a PAM service",
		"FrontEnd _sshfront a b":          "want a user, a PAM service",
		"FrontEnd _login other":           "has a PAM service already",
		"MaxConversations 0":              "not a number from 1",
		"MaxConversations many":           "not a number from 1",
		"MaxConversations 99999999999999": "not a number from 1",
		"MaxConversationsPerUID -1":       "not a number from 1",
		"MaxAuthTries 1.5":                "not a number from 1",
		"MaxSessions 0x10":                "not a number from 1",
		"LoginGraceTime 0":                "number of seconds",
		"LoginGraceTime 2m":               "number of seconds",
		"CapabilityLifetime 121":          "number of seconds from 1 to 120",
		"LogLevel loud":                   "none of debug, info, warn, error",
		"MaxSessions 5\nMaxSessions 5":    "3: MaxSessions is set twice",
		"\x00":                            "2: unknown keyword",
		strings.Repeat("a", 1<<17):        "2: ",
	} {
		out, err := check(t, first+line+"\n")
		if err == nil || !strings.HasPrefix(out, "factotum: /etc/p9auth/test.conf:") || !strings.Contains(out, want) {
			t.Errorf("%.60q: %v: %.200s, want %s", line, err, out, want)
		}
	}
	for text, want := range map[string]string{
		"":                                    "no FrontEnd",
		first + "FrontEnd root login\n":       "root must not be a front end",
		first + "FrontEnd nobody-such login":  "there is no such user",
		first + "PAMWorker /etc/passwd":       "is not a program",
		first + "PAMWorker /nonexistent/prog": "no such file",
	} {
		if out, err := check(t, text); err == nil || !strings.Contains(out, want) {
			t.Errorf("%q: %v: %s, want %s", text, err, out, want)
		}
	}
}

func TestBadArgumentsGetOneClearLine(t *testing.T) {
	b := up(t)
	for _, argv := range [][]string{
		{"factotum", "-x"}, {"factotum", "extra"}, {"factotum", "-f"}, {"factotum", "-f", "/nonexistent"}, {"factotum", "-t", "-f", "/etc"},
		{"factotum", "-c", "/nonexistent/\x01/cap", "extra"},
		{"factotum", "-t", "-c", "/run/cap"},
		{"login", "-x"}, {"login", "a", "b"}, {"login", "-f"}, {"login", "-o", "nonsense=1", "alice"}, {"login", "-o", "user=nobody-such", "alice"},
		{"login", "-o", "user=root", "alice"}, {"login", "-o", "socket=/nonexistent", "alice"}, {"login", "alice"}, // the last: no terminal
		{"factotum-pam"}, {"become"}, {"become", "x"},
	} {
		cmd := b.Command(append([]string{b.Bin(argv[0])}, argv[1:]...)...)
		out, err := cmd.CombinedOutput()
		if _, ok := err.(*exec.ExitError); !ok || !oneLine(out) || !strings.HasPrefix(string(out), argv[0]+": ") {
			t.Errorf("%q: %v: %s", argv, err, out)
		}
	}
}
