package connection

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/passed"
	"p9auth/sshfront/internal/sshlog"
)

// A socket is the client's: of TCP, or one of unix(7) behind which the listener has what
// its -i was given.
type socket interface {
	net.Conn
	syscall.Conn
}

// setKeepAlive has TCP ask a silent client whether it is there, after the times
// that the system has for that, or not at all. Go has short times of its own
// for each socket that it gets, after which a client would be lost whose network
// is away for some minutes.
func setKeepAlive(c *net.TCPConn, on bool) error {
	fresh, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fresh)
	conf := net.KeepAliveConfig{Enable: on}
	for opt, seconds := range map[int]*time.Duration{unix.TCP_KEEPIDLE: &conf.Idle, unix.TCP_KEEPINTVL: &conf.Interval} {
		n, err := unix.GetsockoptInt(fresh, unix.IPPROTO_TCP, opt)
		if err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		*seconds = time.Duration(n) * time.Second
	}
	if conf.Count, err = unix.GetsockoptInt(fresh, unix.IPPROTO_TCP, unix.TCP_KEEPCNT); err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	return c.SetKeepAliveConfig(conf)
}

// setQoS sets the IP_TOS byte for an interactive connection or a bulk one.
func (c *connection) setQoS(interactive bool) {
	tos := c.user.IPQoS.Bulk
	if interactive {
		tos = c.user.IPQoS.Interactive
	}
	raw, err := c.client.SyscallConn()
	if tos < 0 || err != nil || c.remote == sockets.Unknown {
		return
	}
	raw.Control(func(fd uintptr) {
		if c.remote.Addr().Is4() {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, tos)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos)
		}
	})
	if err != nil {
		sshlog.Printf(sshdconf.LogDebug1, "IPQoS: %v", err)
	}
}

// A quickAck is the client's connection, acknowledging at once what it reads.
//
// Until the user is authenticated a client's small packets wait, by Nagle's
// algorithm (RFC 896), for the acknowledgement of the one before, and ours
// waits 40 ms for an answer to travel with (tcp(7), TCP_QUICKACK): twice in a
// login, where SSH has the client speak twice in a row.
type quickAck struct {
	net.Conn
	raw  syscall.RawConn
	file *passed.File // the same socket
	off  atomic.Bool

	broken atomic.Pointer[error] // of the first write that failed
}

func newQuickAck(c socket) (*quickAck, error) {
	raw, err := c.SyscallConn()
	return &quickAck{Conn: c, raw: raw, file: passed.NewOwn(c)}, err
}

// Read acknowledges what has been read before it waits for more.
func (q *quickAck) Read(b []byte) (int, error) {
	if q.off.Load() {
		return q.readFile(b)
	}
	// It costs a login some time where it fails, and nothing else.
	q.raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
	return q.Conn.Read(b)
}

// done leaves acknowledging to the kernel. From here on one poller waits for the
// client and for the programs of its sessions.
func (q *quickAck) done() { q.off.Store(true) }

func (q *quickAck) readFile(b []byte) (int, error) {
	n, err := q.file.Read(b)
	switch {
	case errors.Is(err, os.ErrClosed):
		return 0, net.ErrClosed
	case err == nil && n == 0:
		return 0, io.EOF
	}
	return n, err
}

// Write writes all of b. A client that cannot be written to would be waited for in vain,
// as it waits for us: whoever reads comes to the end of what it has sent.
func (q *quickAck) Write(b []byte) (n int, err error) {
	if q.off.Load() {
		n, err = q.file.Write(b)
	} else {
		n, err = q.Conn.Write(b)
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		q.broken.CompareAndSwap(nil, &err)
		q.raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RD) })
	}
	return n, err
}

// writeError is why nothing more could be written, or nil: also where that says only that
// the client has left, which whoever reads learns more exactly.
func (q *quickAck) writeError() error {
	err := q.broken.Load()
	if err == nil || errors.Is(*err, net.ErrClosed) || errors.Is(*err, unix.EPIPE) || errors.Is(*err, unix.ECONNRESET) {
		return nil
	}
	return *err
}

// Close closes the socket. Whoever waits for it gets an error.
func (q *quickAck) Close() error { return q.file.Close() }
