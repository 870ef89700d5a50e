package ssh

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"p9auth/capproto"
	"p9auth/internal/capuse"
	"p9auth/internal/sys"
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

// capability is the capability of a login that the key proves, whose connection
// process and session process the front end's owner is.
func (b *bed) capability(t *testing.T, user string, key key) string {
	t.Helper()
	k := b.sshfront.connect(t)
	k.wantReply("the key", k.login(user, key), "done")
	s := b.sshfront.dial(t)
	s.want("ok", "attach", "ticket", k.want("ok", "ticket").Get("ticket"))
	s.want("ok", "session")
	for m := s.ask("read"); m.Verb != capproto.VerbDone; m = s.ask("read") {
		if m.Verb != capproto.VerbOK {
			t.Fatalf("session: %s", show(m))
		}
	}
	return s.want("ok", "authinfo").Get("cap")
}

// TestAKeyForOneCommandGivesNoShell logs root in by a key that may run one command,
// and is the owner of the front end's uid, who has the capability.
func TestAKeyForOneCommandGivesNoShell(t *testing.T) {
	b := up(t)
	b.configure(t, "PermitRootLogin forced-commands-only")
	key := newKey(t, "ed25519", 0)
	b.Sh(t, "mkdir -pm 700 /root/.ssh")
	b.Write(t, "/root/.ssh/authorized_keys", key.line(`restrict,command="/bin/echo backup done"`))
	capability := b.capability(t, "root", key)
	out, err := b.Command(testbed.As("_sshfront", b.Self(t), "redeem", capability)...).CombinedOutput()
	if strings.Contains(string(out), "escaped") {
		t.Fatalf("it ran what the front end wanted: %s", out)
	}
	// It was the user process, which has no link here.
	if err == nil || !strings.HasPrefix(string(out), "sshfront user: descriptor 3: ") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestAUserInARootDirectoryStaysThere logs alice in, who is confined to a root
// directory, and is the owner of the front end's uid, who redeems with a directory
// outside as each descriptor that the user process keeps, and looks at that process.
func TestAUserInARootDirectoryStaysThere(t *testing.T) {
	b := up(t)
	b.Sh(t, "mount -t tmpfs -o mode=755 tmpfs /srv; mkdir /srv/jail; cp /bin/sh /srv/jail/")
	b.configure(t, "Match User alice\nChrootDirectory /srv/jail")
	key := newKey(t, "ed25519", 0)
	b.install(t, "alice", key.line(""))
	outside, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	start := func(descriptors ...*os.File) *exec.Cmd {
		c := b.Command(testbed.As("_sshfront", b.Self(t), "redeem", b.capability(t, "alice", key))...)
		c.ExtraFiles = descriptors
		return c
	}

	link, ours, err := sys.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	info, more, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// It waits for what the session process should have to say.
	c := start(link, info, outside, outside)
	c.Stdin = outside
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	link.Close()
	info.Close()
	proc := fmt.Sprintf("/proc/%d/", c.Process.Pid)
	at := func(name string) string { l, _ := os.Readlink(proc + name); return l }
	if !testbed.Eventually(func() bool { return at("root") == "/srv/jail" && strings.HasSuffix(at("exe"), "/sshfront") }) {
		t.Errorf("its root is %s, and it runs %s", at("root"), at("exe"))
	}
	alice := strings.Fields(b.Sh(t, "id -u alice"))[0]
	if status, _ := os.ReadFile(proc + "status"); !strings.Contains(string(status), "\nUid:\t"+strings.Join([]string{alice, alice, alice, alice}, "\t")+"\n") ||
		!strings.Contains(string(status), "\nCapPrm:\t0000000000000000\n") {
		t.Errorf("its status is %s", status)
	}
	// Neither its user nor the front end's can reach into it.
	for _, user := range []string{"alice", "_sshfront"} {
		for _, what := range []string{"root/", "cwd/", "fd/0/", "mem", "environ"} {
			if out, err := b.Command(testbed.As(user, "ls", proc+what)...).CombinedOutput(); err == nil && what[len(what)-1] == '/' {
				t.Errorf("%s lists %s: %s", user, what, out)
			}
			if out, err := b.Command(testbed.As(user, "cat", proc+what)...).CombinedOutput(); err == nil {
				t.Errorf("%s reads %s: %.100q", user, what, out)
			}
		}
	}
	// What it has: the six of the record, itself, terminals, what Go opens, and a
	// copy of the link.
	for fd := range 64 {
		l := at("fd/" + strconv.Itoa(fd))
		if fd > 5 && l != "" && !strings.HasSuffix(l, "/sshfront") && !strings.HasSuffix(l, "/ptmx") && !strings.HasPrefix(l, "anon_inode:") && !strings.HasPrefix(l, "socket:") {
			t.Errorf("descriptor %d is %s", fd, l)
		}
	}
	more.Close()
	c.Wait()

	// A directory in the place of a descriptor that it keeps.
	for fd := range 6 {
		descriptors := []*os.File{nil, nil, nil}
		if fd > 2 {
			descriptors[fd-3] = outside
		}
		c := start(descriptors...)
		if fd == 0 {
			c.Stdin = outside
		} else if fd == 1 {
			c.Stdout = outside
		} else if fd == 2 {
			c.Stderr = outside
		}
		if err := c.Run(); err == nil {
			t.Errorf("with a directory as descriptor %d it goes on", fd)
		}
	}
}
