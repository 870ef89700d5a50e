package pam

import (
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// An attacker who owns login's uid and has alice's capability gets alice's shell,
// as login would have started it, and no more than that permits.
func TestTheOwnerOfLoginsUIDGetsTheUsersOwnShellOnly(t *testing.T) {
	b := testbed.UpLogins(t)
	start := func(t *testing.T, shell string) *testbed.Term {
		t.Helper()
		b.Sh(t, "usermod -s "+shell+" alice")
		term := Start(t, b, "_login", "bound")
		term.Expect("redeems")
		return term
	}
	t.Run("a restricted shell", func(t *testing.T) {
		term := start(t, "/bin/rbash")
		term.Expect(`\$ `)
		for command, want := range map[string]string{
			"cd /":                 "restricted",
			"/bin/sh -c 'echo $0'": "restricted: cannot specify",
			"(PATH=/tmp)":          "readonly variable",
			"echo x >x":            "restricted: cannot redirect",
			"exec sh":              "restricted",
		} {
			if got := term.Run(command); !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q", command, got, want)
			}
		}
		if got := term.Run("echo $0 $SHELL $HOME $USER $PWD $TERM [$EVIL$BASH_ENV$ENV$LD_PRELOAD]; umask"); got != "-rbash /bin/rbash /home/alice alice /home/alice dumb []\n0022" {
			t.Errorf("the shell has %q", got)
		}
		if got := term.Run("command ls -1 /proc/$$/fd"); strings.Contains(got, "77") {
			t.Errorf("the shell has the attacker's descriptor: %q", got)
		}
		term.Send("exit\n")
		term.Wait()
	})
	t.Run("git-shell", func(t *testing.T) {
		b.Sh(t, "command -v git-shell")
		term := start(t, "$(command -v git-shell)")
		term.Expect("Interactive git shell is not enabled")
		term.Wait()
		if strings.Contains(term.Screen(), "escaped") {
			t.Errorf("it ran what the attacker wanted: %s", term.Screen())
		}
	})
	t.Run("nologin", func(t *testing.T) {
		term := start(t, "/usr/sbin/nologin")
		term.Expect("This account is currently not available")
		term.Wait()
	})
	t.Run("at another place than the terminal", func(t *testing.T) {
		b.Sh(t, "usermod -s /bin/bash alice")
		term := Start(t, b, "_login", "elsewhere")
		term.Expect("redeems")
		term.Expect("standard input, output and error are not the terminal of this login")
		if term.Wait() == nil || strings.Contains(term.Screen(), "escaped") {
			t.Errorf("the shell read what the attacker wrote: %s", term.Screen())
		}
	})
	t.Run("an environment of its own", func(t *testing.T) { Attack(t, b, "_login", "environment") })
	b.WantLog(t, "protocol violation.*environ with .*LD_PRELOAD.*which is root's to pass on")
	b.WantNoWorker(t)
}
