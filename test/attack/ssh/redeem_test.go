package ssh

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/capuse"
	"p9auth/test/testbed"
)

// redeemBare redeems, and executes with neither argv[0] nor an environment, which was the
// end of pkexec once.
func redeemBare(args []string) {
	fd, err := unix.Open(capuse.DefaultPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(err)
	_, err = unix.Write(fd, []byte(args[0]))
	must(err)
	buf := make([]byte, 256)
	n, err := unix.Read(fd, buf)
	must(err)
	exe := filepath.Join(filepath.Dir(capuse.DefaultPath), strings.TrimSpace(string(buf[:n])))
	fmt.Println(exe, syscall.Exec(exe, nil, nil))
	os.Exit(1)
}

// TestAGrantIsNotWorthMoreInSurroundingsOfOnesOwn redeems a login by a key that may run
// one command where the redeemer has prepared what it can: the file that is executed,
// a tracer, a filter of system calls. Each must end as an error, or as the honest
// redeemer does, in the user process.
func TestAGrantIsNotWorthMoreInSurroundingsOfOnesOwn(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip(err)
	}
	b := up(t)
	b.configure(t, "PermitRootLogin forced-commands-only")
	key := newKey(t, "ed25519", 0)
	b.Sh(t, "mkdir -pm 700 /root/.ssh")
	b.Write(t, "/root/.ssh/authorized_keys", key.line(`restrict,command="/bin/echo backup done"`))
	k := b.sshfront.connect(t)
	k.wantReply("the key", k.login("root", key), "done")
	s := b.sshfront.dial(t)
	s.want("ok", "attach", "ticket", k.want("ok", "ticket").Get("ticket"))
	s.want("ok", "session")
	for m := s.ask("read"); m.Verb != capproto.VerbDone; m = s.ask("read") {
		if m.Verb != capproto.VerbOK {
			t.Fatalf("session: %s", show(m))
		}
	}
	self := b.Self(t)
	evil := filepath.Join(b.Dir, "evil")
	if err := os.WriteFile(evil, []byte("#!/bin/sh\necho escaped as $(id -u)\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	const honest = "sshfront user: descriptor 3: "
	for _, c := range []struct {
		what string
		argv []string // CAP stands for the capability
		same bool     // it ends as the honest redeemer does
	}{
		{"nothing", []string{self, "redeem", "CAP"}, true},
		{"no arguments and no environment", []string{self, "redeem-bare", "CAP"}, true},
		{"an environment for the dynamic linker and for Go", []string{"env", "LD_PRELOAD=" + evil, "GLIBC_TUNABLES=glibc.malloc.mxfast=0", "GODEBUG=x", "GOTRACEBACK=crash", self, "redeem", "CAP"}, true},
		{"another program over the one that is executed, in a namespace", []string{"unshare", "-Urm", "sh", "-ec", "mount --bind " + evil + " " + b.Bin("sshfront") + "; exec " + self + " redeem CAP"}, false},
		{"a root directory, in a namespace", []string{"unshare", "-Ur", "chroot", "/", self, "redeem", "CAP"}, false},
		{"a pid namespace", []string{"unshare", "-Urpf", self, "redeem", "CAP"}, false},
		{"a tracer", []string{"strace", "-f", "-o", "/dev/null", self, "redeem", "CAP"}, false},
		{"no_new_privs, which a filter of system calls needs", []string{"setpriv", "--no-new-privs", self, "redeem", "CAP"}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			capability := s.want("ok", "authinfo").Get("cap")
			var argv []string
			for _, a := range c.argv {
				argv = append(argv, strings.ReplaceAll(a, "CAP", capability))
			}
			out, err := b.Command(testbed.As("_sshfront", argv...)...).CombinedOutput()
			if err == nil || strings.Contains(string(out), "escaped") {
				t.Errorf("%v: %s", err, out)
			}
			if strings.Contains(string(out), honest) != c.same {
				t.Errorf("it ends with %v: %s", err, out)
			}
		})
	}
}

// TestAKeyThatIsOnlyAskedAboutProvesNothing asks about a key that the attacker does not
// have, and signs with another: a server that remembers the first lets them in by it.
func TestAKeyThatIsOnlyAskedAboutProvesNothing(t *testing.T) {
	b := up(t)
	free, bound := newKey(t, "ed25519", 0), newKey(t, "ed25519", 0)
	b.Sh(t, "mkdir -pm 700 ~alice/.ssh && chown alice: ~alice/.ssh")
	b.install(t, "alice", free.line("")+bound.line(`from="192.0.2.1"`))
	b.install(t, "bob", bound.line(""))
	b.configure(t, patient)
	k := b.sshfront.connect(t)
	if m := k.query("alice", free); m.Verb != capproto.VerbOK {
		t.Fatalf("the question: %s", show(m))
	}
	if m := k.login("alice", bound); m.Get("code") != capproto.CodeDenied {
		t.Errorf("a key for another address: %s", show(m))
	}
	if m := k.prove("alice", free, ssh.Marshal(bound.sign(ssh.Marshal(k.claim("alice", free))))); m.Get("code") != capproto.CodeDenied {
		t.Errorf("the key that was asked about, signed by the other: %s", show(m))
	}
	k.wantNothing()
}
