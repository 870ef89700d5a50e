package pam

import (
	"fmt"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m, testbed.Programs{"attacker": Attacker}) }

func TestAFrontEndThatLies(t *testing.T) {
	b := testbed.UpLogins(t)
	// Each is told on a terminal of its own, as the user _login; none of them
	// gets more than an error, and each is in the log.
	for _, what := range []string{"out-of-turn", "malformed", "descriptors", "hand-over"} {
		t.Run(what, func(t *testing.T) {
			given := b.Logged("capability given")
			Attack(t, b, "_login", what)
			if n := b.Logged("capability given") - given; n != 0 {
				t.Errorf("%d capabilities given", n)
			}
		})
	}
	t.Run("forged credentials are the kernel's to refuse", func(t *testing.T) { Attack(t, b, "_login", "forged") })
	t.Run("a request while a read waits", func(t *testing.T) {
		release := b.Hold(t, "auth")
		logged := b.Logged("conversation ended: protocol violation")
		term := Start(t, b, "_login", "read-waits")
		term.Expect("waiting")
		b.WaitHeld(t, "auth")
		release()
		WantHarmless(t, b, term, logged)
	})
	t.Run("terminals that are none or another's", func(t *testing.T) {
		other := b.Start(t, testbed.As("_login", "sleep", "1000")...)
		script := fmt.Sprintf("exec setpriv --reuid _login --regid _login --clear-groups -- %s attacker no-terminal 3<>%s", b.Self(t), other.TTY())
		logged := b.Logged("conversation ended: protocol violation")
		WantHarmless(t, b, b.Start(t, "sh", "-c", script), logged)
		b.WantLog(t, "not the controlling terminal of its sender")
		b.WantLog(t, "neither a TCP socket nor a terminal")
	})
	t.Run("descriptors of a file server that does not answer", func(t *testing.T) {
		logged := b.Logged(violation)
		WantHarmless(t, b, b.Start(t, b.Self(t), "attacker", "hostile-file"), logged)
		b.Out(t, b.In(t, "alice"))
	})
	t.Run("preauth without root", func(t *testing.T) {
		n := b.Logged("preauth without root")
		Attack(t, b, "_login", "preauth")
		if got := b.Logged("preauth without root") - n; got != 3 {
			t.Errorf("logged %d times", got)
		}
	})
	t.Run("preauth by a login that has read something", func(t *testing.T) {
		n := b.Logged("preauth is not the first request")
		WantHarmless(t, b, b.Start(t, b.Self(t), "attacker", "late-preauth"), b.Logged("conversation ended: protocol violation"))
		if got := b.Logged("preauth is not the first request") - n; got != 2 {
			t.Errorf("logged %d times", got)
		}
	})
	for user, group := range map[string]string{"nobody": "nogroup", "alice": "alice"} {
		t.Run("no front end: "+user, func(t *testing.T) {
			n := b.Logged("is not configured as a front end")
			WantHarmless(t, b, b.Start(t, "setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--", b.Self(t), "attacker", "stranger"),
				b.Logged("conversation ended: protocol violation"))
			if got := b.Logged("is not configured as a front end") - n; got != 1 {
				t.Errorf("logged %d times", got)
			}
		})
	}
	t.Run("another user's conversation", func(t *testing.T) {
		giver := Start(t, b, "_login", "give-socket")
		giver.Expect("listening")
		Attack(t, b, "_sshfront", "take-socket")
		if err := giver.Wait(); err != nil {
			t.Errorf("%v: %s", err, giver.Screen())
		}
	})
	t.Run("a conversation made by root is not for others", func(t *testing.T) {
		term := b.Start(t, b.Self(t), "attacker", "root-hands-over", "_login")
		logged := b.Logged("conversation ended: protocol violation")
		WantHarmless(t, b, term, logged)
	})
	t.Run("a session for a process that has died", func(t *testing.T) {
		b.WantNoWorker(t) // of the tests before
		b.Forget(t)
		for range 5 {
			term := Start(t, b, "_login", "dies")
			if term.Wait() == nil {
				t.Error("it lives")
			}
		}
		b.WantNoWorker(t)
		log := b.Sh(t, "cat /run/sessions 2>/dev/null || true")
		if o, c := strings.Count(log, "open_session"), strings.Count(log, "close_session"); o != c {
			t.Errorf("%d PAM sessions opened, %d closed", o, c)
		}
	})
	t.Run("too many conversations of one front end leave room for another", func(t *testing.T) {
		b.Configure(t, "MaxConversationsPerUID 5\n")
		defer b.Configure(t, "")
		full := Start(t, b, "_second", "too-many", "5")
		full.Expect("full")
		b.WantLog(t, "conversation refused.*too many logins at once")
		b.In(t, "alice")
	})
	t.Run("too many sessions of one front end leave room for another", func(t *testing.T) {
		b.WantNoWorker(t)
		b.Forget(t)
		b.Configure(t, "MaxSessions 8\n")
		defer b.Configure(t, "")
		full := Start(t, b, "_second", "hoards", "7")
		full.Expect("full")
		b.WantLog(t, "conversation ended: limit.*too many sessions")
		b.Out(t, b.In(t, "alice"))
		full.Send("\n")
		b.WantNoWorker(t)
		b.Forget(t)
	})
	t.Run("a front end that begins and leaves has no more workers than conversations", func(t *testing.T) {
		b.Configure(t, "MaxConversationsPerUID 3\n")
		defer b.Configure(t, "")
		release := b.Hold(t, "auth")
		term := Start(t, b, "_second", "leaves")
		if got := term.Expect(`began [0-9]+\r`); got != "began 3\r" {
			t.Errorf("it %s conversations, not 3", got)
		}
		term.Wait()
		release()
		b.WantNoWorker(t)
		b.Out(t, b.In(t, "alice", testbed.AsSecond...)) // its places are free again
	})
	t.Run("a terminal that was given up is not made the user's", func(t *testing.T) {
		term := Start(t, b, "_login", "loses-terminal")
		tty, logged := term.TTY(), b.Logged("conversation ended: protocol violation")
		was := testbed.Stat(t, tty)
		WantHarmless(t, b, term, logged)
		b.WantLog(t, "the terminal is no longer that of the process")
		testbed.WantStat(t, tty, was)
	})
	t.Run("a stranger who connects 5,000 times does not fill the log", func(t *testing.T) {
		size := len(b.Log())
		WantHarmless(t, b, b.Start(t, "setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--", b.Self(t), "attacker", "knocks"),
			b.Logged("conversation ended: protocol violation"))
		b.Out(t, b.In(t, "alice"))
		if n := len(b.Log()) - size; n > 300_000 {
			t.Errorf("the log grows by %d bytes", n)
		}
	})
	t.Run("too many attempts", func(t *testing.T) {
		b.Configure(t, "MaxAuthTries 3\n")
		defer b.Configure(t, "")
		Attack(t, b, "_login", "attempts", "3")
		b.WantLog(t, "conversation ended: limit.*too many attempts")
	})
	t.Run("a person who is too slow is told so", func(t *testing.T) {
		b.Configure(t, "LoginGraceTime 1\n")
		defer b.Configure(t, "")
		term := b.Login(t, "alice")
		b.WantLog(t, "conversation ended: timeout.*user=alice")
		b.WantNoWorker(t)
		term.Send(testbed.Password + "\n")
		term.Expect("login: the login took too long")
	})
	t.Run("a front end that is too slow", func(t *testing.T) {
		b.Configure(t, "LoginGraceTime 1\n")
		defer b.Configure(t, "")
		n := b.Logged("conversation ended: timeout")
		Attack(t, b, "_login", "too-slow")
		if got := b.Logged("conversation ended: timeout") - n; got != 10 {
			t.Errorf("%d timeouts logged, not 10", got)
		}
		b.WantNoWorker(t)
	})
	t.Run("a front end that never reads", func(t *testing.T) {
		Attack(t, b, "_login", "never-reads")
		b.WantLog(t, "the front end stopped reading")
	})
	t.Run("100,000 requests for capabilities do not fill the log", func(t *testing.T) {
		size := len(b.Log())
		term := Start(t, b, "_login", "hundred-grand")
		term.Expect("got 16 capabilities")
		b.In(t, "alice", testbed.AsSecond...) // while the other still has them
		b.WantLog(t, "capability refused.*too many in one conversation")
		if n := len(b.Log()) - size; n > 100_000 {
			t.Errorf("the log grows by %d bytes", n)
		}
	})
	if n := len(b.Pids("factotum")); n != 1 {
		t.Errorf("processes of factotum: %d", n)
	}
	b.WantNoWorker(t)
}

func TestATerminalIsItsSessionsAlone(t *testing.T) {
	b := testbed.UpLogins(t)
	t.Run("given up while PAM opens the session, it is not made the user's", func(t *testing.T) {
		release := b.Hold(t, "open_session")
		term := Start(t, b, "_login", "loses-late")
		tty, logged := term.TTY(), b.Logged("conversation ended: protocol violation")
		was := testbed.Stat(t, tty)
		term.Expect("lost")
		b.WaitHeld(t, "open_session")
		release()
		WantHarmless(t, b, term, logged)
		b.WantNoWorker(t)
		testbed.WantStat(t, tty, was)
	})
	t.Run("given to another since, it stays theirs", func(t *testing.T) {
		term := Start(t, b, "_login", "loses-open")
		term.Expect("lost")
		tty := term.TTY()
		b.Sh(t, "chown bob "+tty+"; chmod 620 "+tty) // as when bob logs in there
		bobs := testbed.Stat(t, tty)
		term.Cmd.Process.Kill()
		b.WantNoWorker(t)
		testbed.WantStat(t, tty, bobs)
	})
}
