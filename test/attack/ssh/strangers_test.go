package ssh

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/test/testbed"
)

func (b *bed) port(t *testing.T) string {
	t.Helper()
	port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(port))
}

// wantLogin has alice log in by ssh and run a program.
func (b *bed) wantLogin(t *testing.T) {
	t.Helper()
	c, err := ssh.Dial("tcp", "127.0.0.1:"+b.port(t), &ssh.ClientConfig{
		User: "alice", Auth: []ssh.AuthMethod{ssh.Password(password)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: testbed.Patience,
	})
	if err != nil {
		t.Errorf("alice cannot log in: %v", err)
		return
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Errorf("alice has no session: %v", err)
		return
	}
	if out, err := s.Output("id -un"); string(out) != "alice\n" {
		t.Errorf("alice ran id: %q, %v", out, err)
	}
}

// sshfrontLogged counts a text in the listener's log.
func (b *bed) sshfrontLogged(text string) int {
	log, _ := os.ReadFile(filepath.Join(b.Dir, "log", "sshfront"))
	return strings.Count(string(log), text)
}

// wantConsole has bob log in at a console.
func (b *bed) wantConsole(t *testing.T) {
	t.Helper()
	term := b.Start(t, testbed.As("_login", b.Bin("login"), "bob")...)
	term.Expect("Password: ")
	term.Send(password + "\n")
	term.Expect(`\$ `)
	if got := term.Run("id -un"); got != "bob" {
		t.Errorf("bob at the console: %q", got)
	}
	term.Send("exit\n")
	term.Wait()
}

// strangers begins conversations from one address, each of which names a user, until
// factotum gives no more.
func (b *bed) strangers(t *testing.T, most int) (talks []*talk) {
	t.Helper()
	for range most {
		k := b.sshfront.connect(t)
		if m := k.ask("user", "name", "alice"); m.Verb != capproto.VerbOK {
			if m.Get("code") != capproto.CodeLimit {
				t.Fatalf("user: %s", show(m))
			}
			return talks
		}
		talks = append(talks, k)
	}
	return talks
}

// TestWorkersBeforeAProofLockNobodyOut has the owner of a front end's uid start as
// many workers as factotum lets it, without a proof.
func TestWorkersBeforeAProofLockNobodyOut(t *testing.T) {
	b := up(t)
	talks := b.strangers(t, 200)
	if n := len(talks); n != 100 {
		t.Errorf("one address has %d workers", n)
	}
	if n := len(b.Pids("factotum-pam")); n > 101 {
		t.Errorf("there are %d workers", n)
	}
	if b.Logged("too many logins at once from 127.0.0.0/8") == 0 {
		t.Error("nothing is in the log")
	}
	b.wantConsole(t)
	for _, k := range talks {
		k.close()
	}
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Errorf("%d workers are left", len(b.Pids("factotum-pam")))
	}
	b.wantLogin(t)
}

// TestGuessesOverManyConversationsAreSlow has the owner of a front end's uid guess
// alice's password in many conversations at once, over and over.
func TestGuessesOverManyConversationsAreSlow(t *testing.T) {
	b := up(t)
	b.configure(t, patient)
	key := newKey(t, "ed25519", 0)
	b.install(t, "alice", key.line(""))
	began := time.Now()
	for range 2 {
		var all sync.WaitGroup
		for _, k := range b.strangers(t, 100) {
			all.Go(func() {
				defer k.close()
				for range 1000 {
					m := k.password("alice", "wrong")
					if m.Get("code") == capproto.CodeLimit {
						return
					}
					if m.Get("code") != capproto.CodeDenied {
						t.Errorf("a guess: %s", show(m))
						return
					}
				}
				t.Error("1000 guesses in one conversation")
			})
		}
		all.Wait()
	}
	// Those of a minute are free, and each conversation may have had one on its way.
	took := time.Since(began)
	if n, most := strings.Count(b.Log(), "Failed password for alice"), 60+100+int(took.Seconds()); n > most {
		t.Errorf("%d guesses in %s, at most %d are possible", n, took, most)
	}
	if b.Logged("too many wrong passwords") == 0 {
		t.Error("nothing is in the log")
	}
	// Whoever has a key does not guess, and the console is elsewhere.
	k := b.sshfront.connect(t)
	k.wantReply("alice's key", k.login("alice", key), "done")
	b.wantConsole(t)
}
