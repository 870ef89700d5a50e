package names

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/test/testbed"
)

// A module that changes PAM_USER stands first in the services of the tests below.
func renaming(t *testing.T, b *testbed.Bed, service, from, to string) {
	t.Helper()
	module := build(t, b, "pam.c", "pam_names.so", "-lpam")
	b.Write(t, "/etc/pam.d/"+service, fmt.Sprintf("auth required %s %s %s\n", module, from, to)+
		"auth required pam_unix.so nodelay\naccount required pam_unix.so\nsession required pam_unix.so\n")
}

// TestANameMeansWhatItMeansToLogin compares what people are at a console with Debian's
// login: by a name that NSS or a PAM module leads to an account of another name.
func TestANameMeansWhatItMeansToLogin(t *testing.T) {
	if _, err := exec.LookPath("login"); err != nil {
		t.Skip(err)
	}
	b := testbed.Up(t)
	nss(t, b)
	renaming(t, b, "login", "visitor", "alice")
	b.Sh(t, "touch /home/alice/.hushlogin /home/carol/.hushlogin; echo 'visitor alice' >>/etc/names.map")
	for name, want := range map[string]string{
		"alice": "alice", "ALICE": "alice", "carol": account, "visitor": "alice", "mallory": "", "MALLORY": "", "alice:style": "",
	} {
		for _, program := range []string{"login", b.Bin("login")} {
			term := b.Start(t, program, "--", name)
			term.Expect("Password: $")
			term.Send(testbed.Password + "\n")
			if want == "" {
				term.Expect("Login incorrect")
				term.Hangup()
				continue
			}
			term.Expect(`\$ $`)
			got := term.Run(seen)
			if !strings.HasPrefix(got, strings.Repeat(want+" ", 2)+"/home/") || !strings.Contains(got, " "+want+" "+want+" wizards") {
				t.Errorf("%s by %s is %q", name, program, got)
			}
			if program != "login" {
				// util-linux's login, which is Debian 13's, has pw_name there, Debian 12's PAM_USER.
				if who := b.Sh(t, "who | grep "+strings.TrimPrefix(term.TTY(), "/dev/")); !strings.HasPrefix(who, want+" ") {
					t.Errorf("%s by %s is recorded as %q", name, program, who)
				}
			}
			term.Send("exit\n")
			term.Wait()
		}
	}
}

// TestAModuleMayRenameAnAccountAndNotExchangeIt: a name of the same account is what
// it is for sshd. For another account's sshd lets in the one whom the client named,
// by the other's proof; factotum lets nobody in.
func TestAModuleMayRenameAnAccountAndNotExchangeIt(t *testing.T) {
	p := up(t, "")
	for _, c := range []struct{ typed, to, ours, theirs string }{
		{"ALICE", "alice", "alice alice /home/alice alice", "alice alice /home/alice alice"},
		{"alice", "ALICE", "alice alice /home/alice alice", "alice alice /home/alice alice"},
		{"carol", account, account + " " + account, account + " " + account},
		{"bob", "alice", "unable|EOF|denied|reset|disconnect", "bob bob /home/bob bob"},
		{"alice", account, "unable|EOF|denied|reset|disconnect", "alice alice /home/alice alice"},
	} {
		renaming(t, p.Bed, "sshd", c.typed, c.to)
		for i, want := range []string{c.ours, c.theirs} {
			got := login(p.ports[i], "127.0.0.1", c.typed, []ssh.AuthMethod{ssh.Password(testbed.Password)})
			if !regexp.MustCompile(want).MatchString(got) && !strings.HasPrefix(got, want) {
				t.Errorf("%s renamed %s, by server %d: %q", c.typed, c.to, i, got)
			}
		}
	}
	p.WantLog(t, `PAM user alice is not the user bob who was authenticated`)
}

// TestASessionOfAnotherNameIsClosedByAnotherWorker: a worker that takes over opens its
// transaction with the name that the first one had.
func TestASessionOfAnotherNameIsClosedByAnotherWorker(t *testing.T) {
	l := testbed.UpLogins(t)
	nss(t, l.Bed)
	term := l.Login(t, "ALICE")
	term.Send(testbed.Password + "\n")
	testbed.Shell(t, term, "alice")
	testbed.Kill(t, l.Worker(t))
	l.WantLog(t, "another takes over")
	tty := term.TTY()
	term.Send("exit\n")
	term.Wait()
	l.WantClosed(t, tty)
	if o, c := l.Opened(t, "ALICE"); o != 1 || c != 1 {
		t.Errorf("PAM opened %d sessions of ALICE and closed %d", o, c)
	}
}
