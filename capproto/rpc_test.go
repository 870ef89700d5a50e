package capproto

import (
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed/linger"
)

func TestPacketsComeBackAsTheyWere(t *testing.T) {
	for _, m := range []Msg{
		NewMsg("start", "proto", "pam", "user", "alice"),
		NewMsg("ok"),
		NewMsg("write", "data", ""),
		NewMsg("ok", "text", "it's a 'quoted' text\nof two lines ", "env", "A=B=C", "env", "D='"),
		NewMsg("ok", "a", "\xff\xfe=", "b", "=", "c", "''"),
	} {
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeMsg(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%q: %v, %v", b, got, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, s := range []string{
		"", " ", "Start", "1ok", "ok ", "ok  a=b", "ok a", "ok =b", "ok A=b", "ok a=b ", "ok a='b", "ok a='b'c",
		"ok a=b'c", "ok a=b\tc=d", "ok a=\x00", "ok\x00", "ok a='b'  c=d", strings.Repeat("a", 33),
		"ok" + strings.Repeat(" a=", MaxAttrs+1), "ok a=" + strings.Repeat("b", MaxReply),
	} {
		if m, err := DecodeMsg([]byte(s)); !errors.Is(err, ErrPacket) {
			t.Errorf("%.60q: %v, %v", s, m, err)
		}
	}
}

func TestOnlyRefusesStrangersAndTwins(t *testing.T) {
	m := NewMsg("start", "proto", "pam", "user", "a")
	if err := m.Only("proto", "user", "host"); err != nil {
		t.Error(err)
	}
	if err := m.Only("proto"); err == nil {
		t.Error("user= is a stranger")
	}
	m.Add("user", "b")
	if err := m.Only("proto", "user"); err == nil {
		t.Error("user= comes twice")
	}
}

func FuzzDecodeMsg(f *testing.F) {
	f.Add([]byte("start proto=pam user='o''brien'"))
	f.Add([]byte("ok env='A=b c' env=D="))
	f.Add([]byte("write data=''"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMsg(b)
		if err != nil {
			return
		}
		e, err := m.Encode()
		if err != nil {
			if len(b) < MaxReply/3 {
				t.Fatalf("decoded but not encoded: %v", err)
			}
			return
		}
		n, err := DecodeMsg(e)
		if err != nil || !reflect.DeepEqual(m, n) {
			t.Fatalf("%q became %q: %v", b, e, err)
		}
	})
}

func FuzzAuthInfo(f *testing.F) {
	f.Add([]byte("ok user=alice uid=1000 gid=1000 home=/home/alice shell=/bin/bash cap=x umask=022 nofile=1024:4096 nproc=20:30 env=A=b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMsg(b)
		if err != nil {
			return
		}
		a, err := parseAuthInfo(m)
		if err == nil && (a.User == "" || a.UID == NoID || a.Umask > 0o777) {
			t.Fatalf("%+v", a)
		}
	})
}

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var cs [2]*Conn
	for i, fd := range fds {
		if cs[i], err = FileConn(os.NewFile(uintptr(fd), "pair"), MaxRequest); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cs[i].Close() })
	}
	return cs[0], cs[1]
}

// A daemon has some Conns for each session, which nearly always wait.
func TestAConnThatWaitsHoldsNoBuffer(t *testing.T) {
	const n = 200
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var ends []*Conn
	received := make(chan Packet)
	before := heap()
	for range n {
		a, b := pair(t)
		ends = append(ends, a)
		go func() {
			for {
				p, err := b.Recv()
				if err != nil {
					return
				}
				received <- p
			}
		}()
	}
	for range 2 { // each has received something, and waits again
		for _, a := range ends {
			if err := a.Send(NewMsg("write", "data", "x")); err != nil {
				t.Fatal(err)
			}
			<-received
		}
	}
	if each := (heap() - before) / n; each > 8<<10 {
		t.Errorf("%d bytes for each Conn", each)
	}
}

// sendRaw sends bytes and descriptors as they are.
func sendRaw(t *testing.T, c *Conn, b []byte, fds ...int) error {
	t.Helper()
	return c.control(func(fd int) error { return unix.Sendmsg(fd, b, unix.UnixRights(fds...), nil, 0) })
}

func TestConnCarriesFilesAndCredentials(t *testing.T) {
	a, b := pair(t)
	raw, _ := b.Socket().SyscallConn()
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := a.Send(NewMsg("start", "user", "alice"), w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	p, err := b.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if p.Cred == nil || int(p.Cred.Pid) != os.Getpid() || int(p.Cred.Uid) != os.Getuid() {
		t.Errorf("sender %+v", p.Cred)
	}
	if len(p.Files) != 1 {
		t.Fatalf("%d files", len(p.Files))
	}
	p.Files[0].Write([]byte("x"))
	p.Close()
	buf := make([]byte, 2)
	if n, err := r.Read(buf); n != 1 || err != nil {
		t.Errorf("the file that came is not the one sent: %d, %v", n, err)
	}
}

func TestAMessageThatCannotBeSentEndsTheConnForBothSides(t *testing.T) {
	a, b := pair(t)
	a.SetWriteDeadline(time.Unix(1, 0))
	if err := a.Send(NewMsg("ask")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Send: %v", err)
	}
	for name, c := range map[string]*Conn{"the sender": a, "the peer": b} {
		c.c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Recv(); err != io.EOF {
			t.Errorf("%s receives %v", name, err)
		}
	}
}

func TestConnRefusesALargePacket(t *testing.T) {
	a, b := pair(t)
	if err := a.Send(NewMsg("write", "data", strings.Repeat("x", MaxRequest))); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Recv(); !errors.Is(err, ErrPacket) {
		t.Errorf("got %v", err)
	}
}

func TestConnClosesFilesOfABadPacket(t *testing.T) {
	a, b := pair(t)
	r, w, _ := os.Pipe()
	defer r.Close()
	sendRaw(t, a, []byte("NOT A PACKET"), int(w.Fd()))
	w.Close()
	if _, err := b.Recv(); !errors.Is(err, ErrPacket) {
		t.Fatalf("got %v", err)
	}
	if n, _ := r.Read(make([]byte, 1)); n != 0 {
		t.Error("the descriptor is still open")
	}
}

func TestConnClosesFilesOfAnEmptyPacket(t *testing.T) {
	a, b := pair(t)
	r, w, _ := os.Pipe()
	defer r.Close()
	raw, _ := a.Socket().SyscallConn()
	raw.Control(func(fd uintptr) {
		// The functions of package unix would add a byte.
		oob := unix.UnixRights(int(w.Fd()))
		msg := unix.Msghdr{Control: &oob[0]}
		msg.SetControllen(len(oob))
		if _, _, e := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msg)), 0); e != 0 {
			t.Error(e)
		}
	})
	w.Close()
	if _, err := b.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("got %v", err)
	}
	r.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Error("the descriptor is still open: ", err)
	}
}

func TestConnRefusesAFileOnDisk(t *testing.T) {
	a, b := pair(t)
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Send(NewMsg("attr"), f); err != nil {
		t.Fatal(err)
	}
	if p, err := b.Recv(); !errors.Is(err, ErrPacket) || len(p.Files) != 0 {
		t.Errorf("got %v, %d files", err, len(p.Files))
	}
	b.Wait()
}

func TestDialSaysThatFactotumIsNotThere(t *testing.T) {
	path := t.TempDir() + "/rpc"
	check := func() {
		if _, err := Dial(path); err == nil || !strings.Contains(err.Error(), "factotum is not running") {
			t.Errorf("got %v", err)
		}
	}
	check()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	check()
}

func TestAFactotumThatNeverAnswersIsNotWaitedForForEver(t *testing.T) {
	defer func(d time.Duration) { patience = d }(patience)
	patience = time.Millisecond
	path := t.TempDir() + "/rpc"
	// A service manager listens, and nobody accepts.
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Start(Start{User: "alice"}); err == nil || !strings.Contains(err.Error(), "factotum does not answer") {
		t.Errorf("start: %v", err)
	}
}

func TestDialWaitsForItsTurn(t *testing.T) {
	path := t.TempDir() + "/rpc"
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil { // room for one
		t.Fatal(err)
	}
	first, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"}); !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("there is room for another: %v", err)
	}
	second := make(chan error)
	go func() {
		c, err := Dial(path)
		if err == nil {
			c.Close()
		}
		second <- err
	}()
	time.Sleep(50 * time.Millisecond)
	nfd, _, err := unix.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(nfd)
	if err := <-second; err != nil {
		t.Error(err)
	}
}

// strangers is pair for a server of strangers.
func strangers(t *testing.T) (a, b *Conn) {
	a, b = pair(t)
	return a, StrangerConn(b.Socket(), MaxRequest)
}

func TestOnlyTCPSocketsAndTerminalsAreTakenFromAStranger(t *testing.T) {
	file := func(fd int, err error) *os.File {
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "passed")
		t.Cleanup(func() { f.Close() })
		return f
	}
	socket := func(domain, typ, proto int) *os.File {
		return file(unix.Socket(domain, typ|unix.SOCK_CLOEXEC, proto))
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for name, c := range map[string]struct {
		f    *os.File
		want bool
	}{
		"TCP":                 {socket(unix.AF_INET, unix.SOCK_STREAM, 0), true},
		"TCP of IPv6":         {socket(unix.AF_INET6, unix.SOCK_STREAM, 0), true},
		"a device":            {file(unix.Open("/dev/null", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)), true},
		"a name of a device":  {file(unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC, 0)), false},
		"UDP":                 {socket(unix.AF_INET, unix.SOCK_DGRAM, 0), false},
		"MPTCP":               {socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), false},
		"a unix socket":       {socket(unix.AF_UNIX, unix.SOCK_STREAM, 0), false},
		"a netlink socket":    {socket(unix.AF_NETLINK, unix.SOCK_RAW, 0), false},
		"a pipe":              {r, false},
		"an epoll descriptor": {file(unix.EpollCreate1(unix.EPOLL_CLOEXEC)), false},
		"an eventfd":          {file(unix.Eventfd(0, unix.EFD_CLOEXEC)), false},
		"a pidfd":             {file(unix.PidfdOpen(os.Getpid(), 0)), false},
		"a memory file":       {file(unix.MemfdCreate("x", unix.MFD_CLOEXEC)), false},
		"a directory":         {file(unix.Open("/", unix.O_RDONLY|unix.O_CLOEXEC, 0)), false},
	} {
		a, b := strangers(t)
		if err := a.Send(NewMsg("attr"), c.f); err != nil {
			t.Fatal(err)
		}
		p, err := b.Recv()
		if got := err == nil && len(p.FDs) == 1 && p.Files == nil; got != c.want || !got && (!errors.Is(err, ErrPacket) || p.FDs != nil) {
			t.Errorf("%s: %v, %+v", name, err, p)
		}
		p.Close()
		b.Wait()
	}
}

func TestOurOwnProcessesDoNotTakeAnEpollDescriptor(t *testing.T) {
	a, b := pair(t)
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "epoll")
	defer f.Close()
	if err := a.Send(NewMsg("attr"), f); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Recv(); !errors.Is(err, ErrPacket) {
		t.Error(err)
	}
	if f, err = pidfd(); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := a.Send(NewMsg("attr"), f); err != nil {
		t.Fatal(err)
	}
	p, err := b.Recv()
	if err != nil || len(p.Files) != 1 {
		t.Errorf("a pidfd: %v, %+v", err, p)
	}
	p.Close()
}

func pidfd() (*os.File, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	return os.NewFile(uintptr(fd), "pidfd"), err
}

// TestDescriptorsBeyondTheBoundAreClosedAndNotWaitedFor sends more than are
// taken, of a socket whose close waits: SO_LINGER, and a peer that does not
// acknowledge.
func TestDescriptorsBeyondTheBoundAreClosedAndNotWaitedFor(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, b := strangers(t)
	var fds []int
	for range maxFDs + 12 { // credentials need not take their room
		c, peer, err := linger.Dial(ln)
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		f, err := c.File()
		if err != nil {
			t.Fatal(err)
		}
		go c.Close() // the packet has the last reference, or this waits
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		fds = append(fds, fd)
	}
	bytes, err := NewMsg("attr").Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := sendRaw(t, a, bytes, fds...); err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.Recv()
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, ErrPacket) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the receiver waits for a socket to close")
	}
}

// TestADescriptorThatLooksLikeTheOneThatWasClosedIsNotWaitedFor has the number of a
// terminal that is closed taken by another descriptor of that terminal, as a session and
// its command have them. It is kept until the first is found closed.
func TestADescriptorThatLooksLikeTheOneThatWasClosedIsNotWaitedFor(t *testing.T) {
	open := func() int {
		fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
		}
		return fd
	}
	a, b := strangers(t)
	for range 500 {
		f := os.NewFile(uintptr(open()), "terminal")
		if err := a.Send(NewMsg("attr"), f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		p, err := b.Recv()
		if err != nil {
			t.Fatal(err)
		}
		number := p.FDs[0]
		closed, taken := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(taken)
			for {
				fd := open()
				select {
				case <-closed:
				default:
					if fd == number {
						<-closed
					} else {
						unix.Close(fd)
						continue
					}
				}
				unix.Close(fd)
				return
			}
		}()
		go func() {
			p.Close()
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(10 * time.Second):
			t.Fatal("the descriptor that was closed is waited for, and no process can be started")
		}
		<-taken
		b.Wait()
	}
}

func TestABlockingConnCarriesMessagesBothWays(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, err := FileConn(os.NewFile(uintptr(fds[0]), "a"), MaxRequest)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := BlockingConn(os.NewFile(uintptr(fds[1]), "b"), MaxRequest)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	time.AfterFunc(20*time.Millisecond, func() { a.Send(NewMsg("attr")) })
	if p, err := b.Recv(); err != nil || p.Verb != "attr" {
		t.Fatalf("%v, %v", p.Msg, err)
	}
	if err := b.Send(NewMsg("ok")); err != nil {
		t.Fatal(err)
	}
	if p, err := a.Recv(); err != nil || p.Verb != "ok" {
		t.Fatalf("%v, %v", p.Msg, err)
	}
	a.Close()
	if _, err := b.Recv(); err != io.EOF {
		t.Errorf("after its peer has closed: %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	if _, err := BlockingConn(r, MaxRequest); err == nil {
		t.Error("a pipe passes for a socket")
	}
}
