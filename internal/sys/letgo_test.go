package sys

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed/linger"
)

// TestLetGoDoesNotWaitForASocketThatLingers lets go of unix sockets in which there is, and
// nowhere else, a TCP connection that takes an hour to close. The other ends are told that
// they are closed.
func TestLetGoDoesNotWaitForASocketThatLingers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var ends []*os.File
	var fds []int
	for range 3 {
		c, peer, err := linger.Dial(ln)
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		f, err := c.File()
		if err != nil {
			t.Fatal(err)
		}
		a, b, err := Socketpair()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if err := unix.Sendmsg(int(a.Fd()), []byte("x"), unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
			t.Fatal(err)
		}
		c.Close() // not the last one
		f.Close()
		fd, err := unix.FcntlInt(b.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		ends, fds = append(ends, a), append(fds, fd)
	}
	began := time.Now()
	if err := LetGo(fds); err != nil {
		t.Fatal(err)
	}
	for _, a := range ends {
		p := []unix.PollFd{{Fd: int32(a.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 10000); n != 1 || err != nil || p[0].Revents&unix.POLLHUP == 0 {
			t.Errorf("after %v the other end is not told: %v", time.Since(began), err)
		}
	}
	if err := LetGo(make([]int, MaxLetGo+1)); err == nil {
		t.Error("too many are taken")
	}
}
