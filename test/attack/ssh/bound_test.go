package ssh

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"p9auth/capproto"
	"p9auth/internal/capuse"
	"p9auth/test/testbed"
)

// redeem is what a process of the front end would do with a capability: execute a
// shell as the user, or at least the user process with a login of its own making.
func redeem(args []string) {
	err := capuse.Exec(capuse.DefaultPath, args[0], capuse.Target{
		Path: "/bin/sh", Argv: []string{"sh", "-c", "echo escaped as $(id -u)"},
		Env: []string{"PATH=/usr/bin:/bin", capproto.LoginVariable + "=ok user=root uid=0 gid=0"}, Dir: "/",
	})
	fmt.Println(err)
	os.Exit(1)
}

// TestAKeyForOneCommandGivesNoShell logs root in by a key that may run one command,
// and is the owner of the front end's uid, who has the capability.
func TestAKeyForOneCommandGivesNoShell(t *testing.T) {
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
	capability := s.want("ok", "authinfo").Get("cap")
	out, err := b.Command(testbed.As("_sshfront", b.Self(t), "redeem", capability)...).CombinedOutput()
	if strings.Contains(string(out), "escaped") {
		t.Fatalf("it ran what the front end wanted: %s", out)
	}
	// It was the user process, which has no link here.
	if err == nil || !strings.HasPrefix(string(out), "sshfront user: descriptor 3: ") {
		t.Errorf("%v: %s", err, out)
	}
}
