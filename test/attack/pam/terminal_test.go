package pam

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// A process of login's uid that had the terminal open before alice logs in there reads
// nothing of her password and of what she types in her session, and can do nothing else
// with what it has open.
func TestWhoHadTheTerminalOpenBeforeReadsNothing(t *testing.T) {
	b := testbed.UpLogins(t)
	agetty := []string{"/sbin/agetty", "--login-program", b.Bin("login"), "-", "linux"}
	for name, c := range map[string]struct {
		owner string
		login []string
		opens int // descriptors that the attacker has
	}{
		"agetty as _login":  {"_login", testbed.As("_login", agetty...), 2},
		"agetty as root":    {"root", agetty, 1},
		"login as _login":   {"_login", testbed.As("_login", b.Bin("login"), "alice"), 2},
		"login as root, -h": {"root", []string{b.Bin("login"), "-h", "192.0.2.7", "alice"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			// The terminal's owner is what the service manager makes it.
			term := b.Start(t, append([]string{"sh", "-c", "chown " + c.owner + " $(tty); chmod 600 $(tty); until [ -e /run/go ]; do sleep 0.02; done; rm /run/go; exec \"$@\"", "sh"}, c.login...)...)
			tty := term.TTY()
			owned := b.Sh(t, "id -u "+c.owner) + ":0 600"
			testbed.WantStat(t, tty, owned)
			// Where alice has to type her name first, before anything is hung up, it would
			// take letters of that away.
			named := c.login[len(c.login)-1] == "alice"
			spy := b.Start(t, "sh", "-c", fmt.Sprintf("exec setpriv --reuid _login --regid _login --clear-groups -- %s attacker taps %s %s 3<>%[2]s", b.Self(t), tty, map[bool]string{true: "name", false: "later"}[named]))
			if got := spy.Expect(`taps \d`); got != fmt.Sprint("taps ", c.opens) {
				t.Fatalf("%s, not %d", got, c.opens)
			}
			b.Sh(t, "touch /run/go")
			if !named {
				term.Expect("login: ")
				term.Send("alice\n")
			}
			term.Expect("Password: ")
			if !named {
				spy.Send("\n")
			}
			spy.Expect("reads")
			term.Send(testbed.Password + "\n")
			testbed.Shell(t, term, "alice")
			for range 20 {
				term.Run("echo a-secret-of-alices")
			}
			if got := term.Run("stat -c '%U %G' $(tty); stty -a </dev/tty | grep -o ' echo '"); got != "alice tty\n echo" {
				t.Errorf("her terminal: %q", got)
			}
			b.Sh(t, "exec 3<>"+tty) // it is not for one program alone (TIOCEXCL)
			spy.Send("\n")
			if err := spy.Wait(); err != nil {
				t.Fatalf("%v; the attacker says:\n%s", err, spy.Screen())
			}
			spy.Expect("as it should be")
			if s := spy.Screen(); strings.Contains(s, "secret") || strings.Contains(s, testbed.Password) {
				t.Errorf("it has read what alice typed: %s", s)
			}
			if strings.Contains(term.Screen(), "spoofed") {
				t.Error("it has written to her terminal")
			}
			b.Out(t, term)
			if _, err := os.Stat(tty); err == nil {
				testbed.WantStat(t, tty, owned)
			}
		})
	}
}
