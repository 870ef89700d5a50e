package daemon

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
)

// master makes a terminal of a user's, and returns its master and its line.
func master(t *testing.T, uid int) (*os.File, string) {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("pts/%d", n)
	if err := os.Chown("/dev/"+line, uid, -1); err != nil {
		t.Skipf("needs root: %v", err)
	}
	return m, line
}

// again is a copy of a descriptor, which goes along with a request.
func again(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// redeemed is the conversation of a process that has become alice by ssh.
func redeemed(t *testing.T, b *bench, pid int32) (f, speaks *front) {
	t.Helper()
	speaks = admitBySSH(t, b, "alice")
	f = b.dial(t, uidSSH, uidSSH, pid)
	f.want("ok", msg("attach", "ticket", speaks.want("ok", msg("ticket")).Get("ticket")))
	f.want("ok", msg("session"))
	f.want("done", msg("read"))
	f.want("ok", msg("authinfo"))
	f.cred = &unix.Ucred{Pid: pid, Uid: uidAlice, Gid: uidAlice}
	return f, speaks
}

func TestTheUserProcessHasItsOwnTerminalsRecorded(t *testing.T) {
	b := newBench(host().gen)
	mine, line := master(t, uidAlice)
	f, speaks := redeemed(t, b, 300)
	m := f.want("ok", msg("terminal"), again(t, mine))
	if m.Get("line") != line || m.Get("last") != "Last login: yesterday" {
		t.Errorf("%v", m)
	}
	if n := b.caps.count(); n != 0 {
		t.Errorf("%d capabilities are outstanding", n)
	}
	told := b.workers[len(b.workers)-1].told
	r, ok := told[len(told)-1].(pamwire.BeginTerminal)
	if !ok || r.Line != line {
		t.Errorf("the worker was told %v", told[len(told)-1])
	}
	refused := func(what string, file *os.File) {
		t.Helper()
		if m := f.want("error", msg("terminal"), again(t, file)); m.Get("code") != capproto.CodeDenied {
			t.Errorf("%s: %v", what, m)
		}
	}
	refused("twice", mine)
	bobs, _ := master(t, uidStranger)
	refused("another user's", bobs)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	refused("another device", null)
	slave, err := os.OpenFile("/dev/"+line, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	refused("a terminal without its master", slave)
	if m := f.want("ok", msg("attr")); m.Get("state") != "become" {
		t.Errorf("%v", m)
	}
	f.want("ok", msg("hangup", "line", line))
	f.want("ok", msg("terminal"), again(t, mine)) // a terminal of the same name
	f.hangUp()
	speaks.hangUp()

	// There is a bound.
	f, speaks = redeemed(t, b, 301)
	for range pamwire.MaxTerminals {
		m, _ := master(t, uidAlice)
		f.want("ok", msg("terminal"), again(t, m))
	}
	if m := f.want("error", msg("terminal"), again(t, mine)); m.Get("code") != capproto.CodeLimit {
		t.Errorf("%v", m)
	}
	f.hangUp()
	speaks.hangUp()
}

// Whatever else comes of the descriptor that the user process has kept ends its
// conversation.
func TestOnlyTheProcessThatHasBecomeTheUserTellsOfTerminals(t *testing.T) {
	b := newBench(host().gen)
	mine, line := master(t, uidAlice)
	for name, c := range map[string]struct {
		cred *unix.Ucred
		msg  capproto.Msg
	}{
		"the front end":                 {&unix.Ucred{Pid: 300, Uid: uidSSH}, msg("terminal")},
		"another process of the user":   {&unix.Ucred{Pid: 400, Uid: uidAlice}, msg("terminal")},
		"a process of another user":     {&unix.Ucred{Pid: 300, Uid: uidStranger}, msg("terminal")},
		"root":                          {&unix.Ucred{Pid: 300}, msg("terminal")},
		"a capability of the user":      {&unix.Ucred{Pid: 300, Uid: uidAlice}, msg("authinfo")},
		"another session":               {&unix.Ucred{Pid: 300, Uid: uidAlice}, msg("session")},
		"a login":                       {&unix.Ucred{Pid: 300, Uid: uidAlice}, startMsg("ssh")},
		"no terminal":                   {&unix.Ucred{Pid: 300, Uid: uidAlice}, msg("terminal")},
		"the end of another's terminal": {&unix.Ucred{Pid: 300, Uid: uidAlice}, msg("hangup", "line", line)},
	} {
		t.Run(name, func(t *testing.T) {
			f, speaks := redeemed(t, b, 300)
			f.cred = c.cred
			if c.msg.Verb == capproto.VerbTerminal && name != "no terminal" {
				f.wantEnd(capproto.CodeProtocol, c.msg, again(t, mine))
			} else {
				f.wantEnd(capproto.CodeProtocol, c.msg)
			}
			speaks.hangUp()
		})
	}
	// Before there is a capability to redeem nobody can have become the user.
	speaks := admitBySSH(t, b, "alice")
	f := b.dial(t, uidSSH, uidSSH, 500)
	f.want("ok", msg("attach", "ticket", speaks.want("ok", msg("ticket")).Get("ticket")))
	f.want("ok", msg("session"))
	f.want("done", msg("read"))
	f.cred = &unix.Ucred{Pid: 500, Uid: uidAlice}
	f.wantEnd(capproto.CodeProtocol, msg("terminal"), again(t, mine))
	speaks.hangUp()
}

// A user in a user namespace can mount a /dev/pts of their own, in which numbers are
// those of other terminals here.
func TestATerminalOfAnotherDevptsIsNotRecorded(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("devpts", dir, "devpts", 0, "newinstance,ptmxmode=0666"); err != nil {
		t.Skipf("needs root: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	m, err := os.OpenFile(dir+"/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(fmt.Sprint(dir, "/", n), uidAlice, -1); err != nil {
		t.Fatal(err)
	}
	// One of that number is here, too.
	for range n + 1 {
		master(t, uidAlice)
	}
	if _, line, err := slave(int(m.Fd()), uidAlice); err == nil {
		t.Errorf("it counts as %s", line)
	}
}
