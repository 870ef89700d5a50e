package user

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// serveLink runs a server, and returns the other end of its link and what
// serve returns.
func serveLink(t *testing.T, i *Info) (*capproto.Conn, <-chan error) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*capproto.Conn
	for n := range fds {
		if conns[n], err = capproto.FileConn(os.NewFile(uintptr(fds[n]), "link"), MaxPacket); err != nil {
			t.Fatal(err)
		}
	}
	s := newServer(i, conns[0])
	end := make(chan error, 1)
	go func() {
		defer s.close()
		end <- s.serve()
	}()
	t.Cleanup(func() { conns[1].Close() })
	return conns[1], end
}

func TestALyingConnectionProcessIsCutOff(t *testing.T) {
	for what, packets := range map[string][]string{
		"an unknown verb":       {"frobnicate id=1"},
		"no id":                 {"hello"},
		"an id that is none":    {"hello id=01"},
		"an id twice":           {"hello id=1", "hello id=1"},
		"an id that goes back":  {"hello id=2", "hello id=1"},
		"an attribute twice":    {"dial id=1 host=a host=b port=1"},
		"an unknown attribute":  {"wait id=1 session=1 x=y"},
		"no packet":             {"Hello"},
		"a packet that is long": {"exec id=1 command=" + strings.Repeat("x", MaxPacket)},
	} {
		c, end := serveLink(t, info(t, "", ""))
		for _, p := range packets {
			// As long as the server has not hung up.
			c.Unix().Write([]byte(p))
		}
		if err := <-end; !errors.Is(err, capproto.ErrPacket) {
			t.Errorf("%s: %v", what, err)
		}
		for {
			if _, err := c.Recv(); err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("%s: %v", what, err)
				}
				break
			}
		}
	}
}

func TestWhatIsNotThereIsAnError(t *testing.T) {
	conn, _ := serveLink(t, info(t, "X11Forwarding yes\nXAuthLocation /bin/sh\nMaxSessions 0\n", "no-pty,no-agent-forwarding"))
	c := NewClient(conn)
	defer c.Close()
	if set, err := c.Settings(); err != nil || !set.X11Forwarding {
		t.Fatalf("hello: %v", err)
	}
	for what, m := range map[string]capproto.Msg{
		CodeGone + " wait":        capproto.NewMsg(verbWait, "session", "7"),
		CodeGone + " drop":        capproto.NewMsg(verbDrop, "session", "7"),
		CodeGone + " drop pty":    capproto.NewMsg(verbDrop, "pty", "7"),
		CodeGone + " signal":      capproto.NewMsg(verbSignal, "session", "7", "name", "HUP"),
		CodeGone + " winch":       capproto.NewMsg(verbWinch, "pty", "7", "cols", "1", "rows", "1", "width", "0", "height", "0"),
		CodeGone + " break":       capproto.NewMsg(verbBreak, "pty", "7"),
		CodeGone + " accept":      capproto.NewMsg(verbAccept, "listener", "7"),
		CodeGone + " cancel":      capproto.NewMsg(verbCancel, "listener", "7"),
		CodeFailed + " dial":      capproto.NewMsg(verbDial, "host", "127.0.0.1", "port", "65536"),
		CodeFailed + " path":      capproto.NewMsg(verbDialUnix, "path", "@abstract"),
		CodeFailed + " cookie":    capproto.NewMsg(verbX11, "single", "no", "proto", "a b", "cookie", "0", "screen", "0"),
		CodeFailed + " number":    capproto.NewMsg(verbX11, "single", "no", "proto", "a", "cookie", "0", "screen", "x"),
		CodeProhibited + " exec":  capproto.NewMsg(verbExec, "command", "true"),
		CodeProhibited + " pty":   capproto.NewMsg(verbPTY, "term", "x", "cols", "1", "rows", "1", "width", "0", "height", "0", "modes", ""),
		CodeProhibited + " agent": capproto.NewMsg(verbAgent),
	} {
		var e *Error
		if err := c.do(m); !errors.As(err, &e) || e.Code != strings.Fields(what)[0] {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := c.NoMoreSessions(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.X11(false, "a", "0", 0); !Prohibited(err) {
		t.Errorf("x11 after no-more-sessions: %v", err)
	}
}

func TestListenersAreBounded(t *testing.T) {
	conn, _ := serveLink(t, info(t, "", ""))
	c := NewClient(conn)
	defer c.Close()
	dir := t.TempDir()
	for n := range maxListeners {
		if _, err := c.ListenUnix(dir + "/" + utoa(n)); err != nil {
			t.Fatalf("listener %d: %v", n, err)
		}
	}
	var e *Error
	if _, err := c.ListenUnix(dir + "/more"); !errors.As(err, &e) || e.Code != CodeLimit {
		t.Errorf("one too many: %v", err)
	}
	if _, err := os.Lstat(dir + "/more"); !os.IsNotExist(err) {
		t.Errorf("its socket stays: %v", err)
	}
}

func TestAnErrorBeforeTheUserProcessReachesEveryCall(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, err := capproto.FileConn(os.NewFile(uintptr(fds[0]), "link"), MaxPacket)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(near)
	defer c.Close()
	waiting := make(chan error, 1)
	go func() {
		_, err := c.Exec(Exec{})
		waiting <- err
	}()
	if _, err := unix.Read(fds[1], make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	unix.Write(fds[1], []byte("error text='the account has expired'"))
	unix.Close(fds[1])
	if err := <-waiting; err == nil || err.Error() != "the account has expired" {
		t.Errorf("a call that waits: %v", err)
	}
	if _, err := c.Settings(); err == nil || err.Error() != "the account has expired" {
		t.Errorf("a later call: %v", err)
	}
}

// FuzzLink has the server judge a packet from the connection process, as far as
// it does without doing what it says.
func FuzzLink(f *testing.F) {
	f.Add([]byte("exec id=1 command='a b' env=A=b env=C=d pty=1"))
	f.Add([]byte("pty id=4294967295 term=x cols=80 rows=24 width=0 height=0 modes=NQAAAAAA"))
	f.Add([]byte("listen id=1 host='' port=0"))
	i := &Info{User: "wren", Home: "/nonexistent"}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := capproto.DecodeMsg(b)
		if err != nil {
			return
		}
		s := newServer(i, nil)
		r, v, err := s.check(m)
		if err != nil {
			return
		}
		if v.handle == nil || r.id == 0 && s.last != 0 {
			t.Fatalf("%+v", r)
		}
		parseSize(r.Msg)
		parsePort(r.Msg)
		if port, err := parsePort(r.Msg); err == nil && i.mayDial(r.Get("host"), port) == nil {
			t.Error("nothing permits it")
		}
		command, has := r.Lookup("command")
		p, err := i.plan(command, has, r.Get("subsystem"))
		if err == nil && p.refusal == "" && (p.path == "" || len(p.argv) == 0) {
			t.Errorf("%+v", p)
		}
		env, _ := i.environment(envInput{client: r.All("env")})
		if len(env) > 20 {
			t.Errorf("%q", env)
		}
	})
}
