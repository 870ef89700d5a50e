package daemon

import (
	"fmt"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// startLiar starts a front end that lies, as the user, on a terminal.
func (b *bed) startLiar(t *testing.T, user, what string, args ...string) *testbed.Term {
	t.Helper()
	return b.Start(t, testbed.As(user, append([]string{b.liar(), "liar", what}, args...)...)...)
}

// wantLiar waits for the end of a lie, and checks that factotum has given
// nothing and logged each violation.
func (b *bed) wantLiar(t *testing.T, term *testbed.Term, logged int) {
	t.Helper()
	if err := term.Wait(); err != nil {
		t.Fatalf("%v; the liar says:\n%s", err, term.Screen())
	}
	term.Expect(`violations=`)
	var n int
	fmt.Sscan(term.Expect(`\d+`), &n)
	term.Expect("as it should be")
	got := 0
	if !testbed.Eventually(func() bool {
		got = b.logged("conversation ended: protocol violation") - logged
		return got >= n
	}) || got != n {
		t.Errorf("%d violations, factotum logged %d", n, got)
	}
}

// lie tells a lie and waits for its end.
func (b *bed) lie(t *testing.T, user, what string, args ...string) {
	t.Helper()
	logged := b.logged("conversation ended: protocol violation")
	b.wantLiar(t, b.startLiar(t, user, what, args...), logged)
}

func TestAFrontEndThatLies(t *testing.T) {
	b := up(t)
	// Each is told on a terminal of its own, as the user _login; none of them
	// gets more than an error, and each is in the log.
	for _, what := range []string{"out-of-turn", "malformed", "descriptors", "hand-over"} {
		t.Run(what, func(t *testing.T) {
			given := b.logged("capability given")
			b.lie(t, "_login", what)
			if n := b.logged("capability given") - given; n != 0 {
				t.Errorf("%d capabilities given", n)
			}
		})
	}
	t.Run("forged credentials are the kernel's to refuse", func(t *testing.T) { b.lie(t, "_login", "forged") })
	t.Run("a request while a read waits", func(t *testing.T) {
		release := b.hold(t, "auth")
		logged := b.logged("conversation ended: protocol violation")
		term := b.startLiar(t, "_login", "read-waits")
		term.Expect("waiting")
		b.waitHeld(t, "auth")
		release()
		b.wantLiar(t, term, logged)
	})
	t.Run("terminals that are none or another's", func(t *testing.T) {
		other := b.Start(t, testbed.As("_login", "sleep", "1000")...)
		script := fmt.Sprintf("exec setpriv --reuid _login --regid _login --clear-groups -- %s liar no-terminal 3<>%s", b.liar(), other.TTY())
		logged := b.logged("conversation ended: protocol violation")
		b.wantLiar(t, b.Start(t, "sh", "-c", script), logged)
		b.WantLog(t, "not the controlling terminal of its sender")
		b.WantLog(t, "not a character device")
	})
	t.Run("preauth without root", func(t *testing.T) {
		n := b.logged("preauth without root")
		b.lie(t, "_login", "preauth")
		if got := b.logged("preauth without root") - n; got != 3 {
			t.Errorf("logged %d times", got)
		}
	})
	t.Run("preauth by a login that has read something", func(t *testing.T) {
		n := b.logged("preauth is not the first request")
		b.wantLiar(t, b.Start(t, b.liar(), "liar", "late-preauth"), b.logged("conversation ended: protocol violation"))
		if got := b.logged("preauth is not the first request") - n; got != 2 {
			t.Errorf("logged %d times", got)
		}
	})
	for user, group := range map[string]string{"nobody": "nogroup", "alice": "alice"} {
		t.Run("no front end: "+user, func(t *testing.T) {
			n := b.logged("this user is no front end")
			b.wantLiar(t, b.Start(t, "setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--", b.liar(), "liar", "stranger"),
				b.logged("conversation ended: protocol violation"))
			if got := b.logged("this user is no front end") - n; got != 1 {
				t.Errorf("logged %d times", got)
			}
		})
	}
	t.Run("another user's conversation", func(t *testing.T) {
		giver := b.startLiar(t, "_login", "give-socket")
		giver.Expect("listening")
		b.lie(t, "_sshfront", "take-socket")
		if err := giver.Wait(); err != nil {
			t.Errorf("%v: %s", err, giver.Screen())
		}
	})
	t.Run("a conversation made by root is not for others", func(t *testing.T) {
		term := b.Start(t, b.liar(), "liar", "root-hands-over", "_login")
		logged := b.logged("conversation ended: protocol violation")
		b.wantLiar(t, term, logged)
	})
	t.Run("a session for a process that has died", func(t *testing.T) {
		b.wantNoWorker(t) // of the tests before
		b.forget(t)
		for range 5 {
			term := b.startLiar(t, "_login", "dies")
			if term.Wait() == nil {
				t.Error("it lives")
			}
		}
		b.wantNoWorker(t)
		log := b.Sh(t, "cat /run/sessions 2>/dev/null || true")
		if o, c := strings.Count(log, "open_session"), strings.Count(log, "close_session"); o != c {
			t.Errorf("%d PAM sessions opened, %d closed", o, c)
		}
	})
	t.Run("too many conversations of one front end leave room for another", func(t *testing.T) {
		b.configure(t, "MaxConversationsPerUID 5\n")
		defer b.configure(t, "")
		full := b.startLiar(t, "_rogue", "too-many", "5")
		full.Expect("full")
		b.WantLog(t, "conversation refused.*too many logins at once")
		b.in(t, "alice")
	})
	t.Run("too many sessions of one front end leave room for another", func(t *testing.T) {
		b.wantNoWorker(t)
		b.forget(t)
		b.configure(t, "MaxSessions 8\n")
		defer b.configure(t, "")
		full := b.startLiar(t, "_rogue", "hoards", "7")
		full.Expect("full")
		b.WantLog(t, "conversation ended: limit.*too many sessions")
		b.out(t, b.in(t, "alice"))
		full.Send("\n")
		b.wantNoWorker(t)
		b.forget(t)
	})
	t.Run("a front end that begins and leaves has no more workers than conversations", func(t *testing.T) {
		b.configure(t, "MaxConversationsPerUID 3\n")
		defer b.configure(t, "")
		release := b.hold(t, "auth")
		term := b.startLiar(t, "_rogue", "leaves")
		if got := term.Expect(`began [0-9]+\r`); got != "began 3\r" {
			t.Errorf("it %s conversations, not 3", got)
		}
		term.Wait()
		release()
		b.wantNoWorker(t)
		b.out(t, b.in(t, "alice", asRogue...)) // its places are free again
	})
	t.Run("a terminal that was given up is not made the user's", func(t *testing.T) {
		term := b.startLiar(t, "_login", "loses-terminal")
		tty, logged := term.TTY(), b.logged("conversation ended: protocol violation")
		was := stat(t, tty)
		b.wantLiar(t, term, logged)
		b.WantLog(t, "the terminal is no longer that of the process")
		wantStat(t, tty, was)
	})
	t.Run("a stranger who connects 5,000 times does not fill the log", func(t *testing.T) {
		size := len(b.Log())
		b.wantLiar(t, b.Start(t, "setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--", b.liar(), "liar", "knocks"),
			b.logged("conversation ended: protocol violation"))
		b.out(t, b.in(t, "alice"))
		if n := len(b.Log()) - size; n > 300_000 {
			t.Errorf("the log grows by %d bytes", n)
		}
	})
	t.Run("too many attempts", func(t *testing.T) {
		b.configure(t, "MaxAuthTries 3\n")
		defer b.configure(t, "")
		b.lie(t, "_login", "attempts", "3")
		b.WantLog(t, "conversation ended: limit.*too many attempts")
	})
	t.Run("a person who is too slow is told so", func(t *testing.T) {
		b.configure(t, "LoginGraceTime 1\n")
		defer b.configure(t, "")
		term := b.login(t, "alice")
		b.WantLog(t, "conversation ended: timeout.*user=alice")
		b.wantNoWorker(t)
		term.Send(password + "\n")
		term.Expect("login: the login took too long")
	})
	t.Run("a front end that is too slow", func(t *testing.T) {
		b.configure(t, "LoginGraceTime 1\n")
		defer b.configure(t, "")
		n := b.logged("conversation ended: timeout")
		b.lie(t, "_login", "too-slow")
		if got := b.logged("conversation ended: timeout") - n; got != 10 {
			t.Errorf("%d timeouts logged, not 10", got)
		}
		b.wantNoWorker(t)
	})
	t.Run("a front end that never reads", func(t *testing.T) {
		b.lie(t, "_login", "never-reads")
		b.WantLog(t, "the front end does not read")
	})
	t.Run("100,000 requests for capabilities do not fill the log", func(t *testing.T) {
		size := len(b.Log())
		term := b.startLiar(t, "_login", "hundred-grand")
		term.Expect("got 16 capabilities")
		b.in(t, "alice", asRogue...) // while the other still has them
		b.WantLog(t, "capability refused.*too many in one conversation")
		if n := len(b.Log()) - size; n > 100_000 {
			t.Errorf("the log grows by %d bytes", n)
		}
	})
	if n := len(b.Pids("factotum")); n != 1 {
		t.Errorf("processes of factotum: %d", n)
	}
	b.wantNoWorker(t)
}
