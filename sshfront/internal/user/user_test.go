package user

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"p9auth/capproto"
	"p9auth/internal/sys"
	"p9auth/sshfront/internal/userlink"
)

// serveLink runs the user process, and returns a client of it and what serve
// returns.
func serveLink(t *testing.T, i *Info) (*userlink.Client, <-chan error) {
	t.Helper()
	var conns [2]*capproto.Conn
	a, b, err := sys.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	for n, f := range []*os.File{a, b} {
		if conns[n], err = capproto.FileConn(f, userlink.MaxPacket); err != nil {
			t.Fatal(err)
		}
	}
	u := newUserProcess(i, conns[0])
	end := make(chan error, 1)
	go func() {
		defer u.close()
		end <- u.serve()
	}()
	c := userlink.NewClient(conns[1])
	t.Cleanup(func() { c.Close() })
	return c, end
}

func TestALyingConnectionProcessIsLeft(t *testing.T) {
	a, b, err := sys.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	far, err := capproto.FileConn(b, userlink.MaxPacket)
	if err != nil {
		t.Fatal(err)
	}
	u := newUserProcess(info(t, "", ""), far)
	a.Write([]byte("frobnicate id=1"))
	if err := u.serve(); !errors.Is(err, capproto.ErrPacket) {
		t.Error(err)
	}
	u.close()
	if n, _ := a.Read(make([]byte, 10)); n != 0 {
		t.Error("it answers")
	}
}

func TestTheEndOfTheLinkIsTheEnd(t *testing.T) {
	c, end := serveLink(t, info(t, "", ""))
	c.Close()
	if err := <-end; err != nil {
		t.Error(err)
	}
}

func TestMaxSessionsOfZeroPermitsNothingOfASession(t *testing.T) {
	u := newUserProcess(info(t, "X11Forwarding yes\nXAuthLocation /bin/sh\nMaxSessions 0\n", ""), nil)
	for _, r := range []userlink.Request{
		userlink.Exec{HasCommand: true, Command: "true"}, userlink.OpenPTY{Term: "x", Size: userlink.Size{Cols: 1, Rows: 1}},
		userlink.ForwardAgent{}, userlink.ForwardX11{Proto: "MIT-MAGIC-COOKIE-1", Cookie: "00"},
	} {
		var e *userlink.Error
		if _, err := u.handle(1, r); !errors.As(err, &e) || e.Code != userlink.CodeProhibited {
			t.Errorf("%#v: %v, want %s", r, err, userlink.CodeProhibited)
		}
	}
}

func TestWhatIsNotThereIsAnError(t *testing.T) {
	u := newUserProcess(info(t, "X11Forwarding yes\nXAuthLocation /bin/sh\n", "no-pty,no-agent-forwarding"), nil)
	for _, c := range []struct {
		code string
		r    userlink.Request
	}{
		{userlink.CodeGone, userlink.Wait{Program: 7}},
		{userlink.CodeGone, userlink.Drop{Program: 7}},
		{userlink.CodeGone, userlink.Drop{PTY: 7}},
		{userlink.CodeGone, userlink.Signal{Program: 7, Name: "HUP"}},
		{userlink.CodeGone, userlink.Winch{PTY: 7, Size: userlink.Size{Cols: 1, Rows: 1}}},
		{userlink.CodeGone, userlink.Break{PTY: 7}},
		{userlink.CodeGone, userlink.Accept{Listener: 7}},
		{userlink.CodeGone, userlink.Cancel{Listener: 7}},
		{userlink.CodeFailed, userlink.Dial{Host: "127.0.0.1", Port: 65536}},
		{userlink.CodeFailed, userlink.Listen{Host: "127.0.0.1", Port: 65536}},
		{userlink.CodeFailed, userlink.DialUnix{Path: "@abstract"}},
		{userlink.CodeFailed, userlink.ForwardX11{Proto: "a b", Cookie: "0"}},
		{userlink.CodeProhibited, userlink.OpenPTY{Term: "x", Size: userlink.Size{Cols: 1, Rows: 1}}},
		{userlink.CodeProhibited, userlink.ForwardAgent{}},
	} {
		var e *userlink.Error
		if _, err := u.handle(1, c.r); !errors.As(err, &e) || e.Code != c.code {
			t.Errorf("%#v: %v, want %s", c.r, err, c.code)
		}
	}
}

func TestNoMoreSessionsRefusesWhatWouldBegin(t *testing.T) {
	c, _ := serveLink(t, info(t, "X11Forwarding yes\nXAuthLocation /bin/sh\n", ""))
	if err := c.NoMoreSessions(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.X11(false, "a", "0", 0); !userlink.Prohibited(err) {
		t.Errorf("x11: %v", err)
	}
	if _, err := c.Exec(userlink.Exec{}); !userlink.Prohibited(err) {
		t.Errorf("exec: %v", err)
	}
	if _, err := c.PTY("x", userlink.Size{}, nil); !userlink.Prohibited(err) {
		t.Errorf("pty: %v", err)
	}
	if _, err := c.Agent(); !userlink.Prohibited(err) {
		t.Errorf("agent: %v", err)
	}
}

func TestListenersAreBounded(t *testing.T) {
	c, _ := serveLink(t, info(t, "", ""))
	dir := t.TempDir()
	for n := range maxListeners {
		if _, err := c.ListenUnix(fmt.Sprintf("%s/%d", dir, n)); err != nil {
			t.Fatalf("listener %d: %v", n, err)
		}
	}
	var e *userlink.Error
	if _, err := c.ListenUnix(dir + "/more"); !errors.As(err, &e) || e.Code != userlink.CodeLimit {
		t.Errorf("one too many: %v", err)
	}
	if _, err := os.Lstat(dir + "/more"); !os.IsNotExist(err) {
		t.Errorf("its socket stays: %v", err)
	}
}

// FuzzRequests has the user process judge what a connection process asks for, as
// far as it does without doing what it says.
func FuzzRequests(f *testing.F) {
	f.Add("a b", "sftp", "A=b", "h", uint32(80))
	i := &Info{User: "wren", Home: "/nonexistent"}
	f.Fuzz(func(t *testing.T, command, subsystem, env, host string, n uint32) {
		if p, err := port(n); err == nil && i.mayDial(host, p) == nil {
			t.Error("nothing permits it")
		}
		p, err := i.plan(command, command != "", subsystem)
		if err == nil && p.refusal == "" && (p.path == "" || len(p.argv) == 0) {
			t.Errorf("%+v", p)
		}
		got, _ := i.environment(envInput{client: []string{env}})
		if len(got) > 20 {
			t.Errorf("%q", got)
		}
	})
}
