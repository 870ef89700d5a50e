package capproto

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxFDs is how many descriptors a packet may carry.
	maxFDs = 4
	// scmMaxFD is how many the kernel lets it carry: SCM_MAX_FD of unix(7). There is
	// room for all of them, since those that do not fit the kernel closes before
	// recvmsg(2) returns, which may take as long as their sender likes.
	scmMaxFD = 253
)

// A Socket is a SOCK_SEQPACKET unix socket: an *os.File, or a *net.UnixConn where a
// program has package net anyway. Small programs do without it.
type Socket interface {
	syscall.Conn
	io.WriteCloser
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// A Conn carries messages over a Socket. One goroutine may send while another
// receives.
type Conn struct {
	c      Socket
	max    int  // of a packet, in bytes
	raw    bool // as StrangerConn has it
	closed atomic.Bool

	discarded sync.WaitGroup // descriptors that are being closed
}

// NewConn wraps a socket whose peer sends packets of at most max bytes, MaxReply or
// fewer.
func NewConn(c Socket, max int) *Conn { return &Conn{c: c, max: max} }

// A buffer is what a packet is received into. A Conn has one from the moment that there
// is a packet until it is read: most Conns wait for most of their life. What was in it is
// cleared before another Conn gets it.
type buffer struct {
	data [MaxReply + 1]byte // one byte more tells a packet that is too large
	oob  []byte
}

var buffers = sync.Pool{New: func() any {
	return &buffer{oob: make([]byte, unix.CmsgSpace(4*scmMaxFD)+unix.CmsgSpace(unix.SizeofUcred))}
}}

// StrangerConn is NewConn for a peer who may pass any descriptor at all. Its
// packets have FDs in place of Files, and only of the kinds that factotum can be
// asked about: TCP sockets and terminals. Another kind is closed as it comes, and
// is an error.
func StrangerConn(c Socket, max int) *Conn {
	s := NewConn(c, max)
	s.raw = true
	return s
}

// FileConn makes a Conn of an inherited socket, which it closes.
func FileConn(f *os.File, max int) (*Conn, error) {
	defer f.Close()
	s, err := socket(f)
	if err != nil {
		return nil, err
	}
	return NewConn(s, max), nil
}

// BlockingConn is FileConn for a program whose main thread does everything in turn: a
// call that waits blocks its thread, and Go's runtime starts none to wait on others. Such
// a Conn has no deadlines.
func BlockingConn(f *os.File, max int) (*Conn, error) {
	fd := int(f.Fd())
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_UNIX {
		return nil, errNotUnix
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	unix.CloseOnExec(fd)
	return NewConn(f, max), nil
}

var errNotUnix = errors.New("not a unix socket")

// socket is another descriptor of a unix socket, one on which Go's runtime waits.
func socket(f *os.File) (*os.File, error) {
	if domain, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_UNIX {
		return nil, errNotUnix
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Socket is the socket under the Conn.
func (c *Conn) Socket() Socket { return c.c }

// File is another descriptor of the socket, for another process.
func (c *Conn) File() (f *os.File, err error) {
	err = c.control(func(fd int) error {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			f = os.NewFile(uintptr(n), "factotum")
		}
		return os.NewSyscallError("fcntl", err)
	})
	return f, err
}

// Shutdown closes one way of the socket, SHUT_RD or SHUT_WR of shutdown(2).
func (c *Conn) Shutdown(how int) error {
	return c.control(func(fd int) error { return unix.Shutdown(fd, how) })
}

// control calls f with the socket's descriptor.
func (c *Conn) control(f func(fd int) error) error {
	raw, err := c.c.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return c.failed(e)
	}
	return err
}

// failed is os.ErrClosed in place of the error of a socket that is closed here.
func (c *Conn) failed(err error) error {
	if err != nil && c.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// SetWriteDeadline sets until when Send may wait for room.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.c.SetWriteDeadline(t) }

// Close closes the socket. Who uses it then, or waits on it, gets os.ErrClosed.
func (c *Conn) Close() error {
	c.closed.Store(true)
	return c.c.Close()
}

// Send sends one message with the given files' descriptors. After an error other than one
// that wraps ErrPacket nothing more can be sent.
func (c *Conn) Send(m Msg, files ...*os.File) error {
	b, err := m.Encode()
	if err != nil {
		return err
	}
	defer clear(b)
	if len(files) == 0 {
		// By write(2): the sandbox of sshfront has no sendmsg(2).
		_, err = c.c.Write(b)
		return c.lost(err)
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	raw, err := c.c.SyscallConn()
	if err != nil {
		return c.failed(err)
	}
	e := raw.Write(func(fd uintptr) bool {
		for {
			if err = unix.Sendmsg(int(fd), b, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL); err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if e != nil {
		return c.lost(e)
	}
	return c.lost(os.NewSyscallError("sendmsg", err))
}

// lost is the error of a message that was not sent. The peer might wait for it: it is told
// that nothing more comes, and so is whoever receives here, who might wait for the answer.
// Where it is the peer who has gone, what it said last can still be received.
func (c *Conn) lost(err error) error {
	if err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		c.Shutdown(unix.SHUT_RDWR)
	}
	return c.failed(err)
}

// A Packet is a received message with what the kernel says of it.
type Packet struct {
	Msg
	Files []*os.File  // close-on-exec; the receiver closes them
	FDs   []int       // in place of Files, of a StrangerConn: nothing of Go's runtime waits for them
	Cred  *unix.Ucred // the sender, where the socket has SO_PASSCRED, else nil

	from *Conn // where FDs came from, nil for a packet that was made here
}

// Close closes the packet's descriptors. It does not wait for those of a stranger.
func (p *Packet) Close() {
	for _, f := range p.Files {
		f.Close()
	}
	if p.from == nil {
		for _, fd := range p.FDs {
			unix.Close(fd)
		}
	} else if len(p.FDs) > 0 {
		// A child that is being made has the descriptors too, and must not be the
		// last to close them.
		syscall.ForkLock.RLock()
		p.from.discard(p.FDs)
		syscall.ForkLock.RUnlock()
	}
	p.Files, p.FDs = nil, nil
}

// Recv receives one message. It returns io.EOF when the peer has closed, and
// an error that wraps ErrPacket, with the sender still told, when the bytes
// are not a message.
func (c *Conn) Recv() (Packet, error) {
	var p Packet
	err := c.receive(&p)
	if errors.Is(err, unix.ECONNRESET) {
		// The peer has closed and not read all of ours. The kernel says so
		// once, before it hands out what the peer said last.
		err = c.receive(&p)
	}
	if errors.Is(err, unix.ECONNRESET) {
		err = io.EOF
	}
	if err != nil {
		p.Close() // an empty packet may carry some, too
	}
	return p, err
}

// receive receives a packet. Meanwhile no child is made: when it is executed it would
// have to close the descriptors that controls refuses, too.
func (c *Conn) receive(p *Packet) error {
	raw, err := c.c.SyscallConn()
	if err != nil {
		return c.failed(err)
	}
	e := raw.Read(func(fd uintptr) bool {
		b := buffers.Get().(*buffer)
		defer buffers.Put(b)
		err = c.receiveInto(b, int(fd), p)
		return err != unix.EAGAIN
	})
	if e != nil {
		return c.failed(e)
	}
	return err
}

// receiveInto receives a packet by b, and leaves nothing of it there.
func (c *Conn) receiveInto(b *buffer, fd int, p *Packet) error {
	data := b.data[:c.max+1]
	n, flags, err := c.receiveFrom(fd, data, b.oob, p)
	if err != nil {
		return err
	}
	if n == 0 {
		return io.EOF
	}
	defer clear(data[:n])
	if n == len(data) || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return fmt.Errorf("%w: too large", ErrPacket)
	}
	p.Msg, err = DecodeMsg(data[:n])
	return err
}

// receiveFrom is recvmsg(2), and what becomes of the descriptors that come by it.
func (c *Conn) receiveFrom(fd int, data, oob []byte, p *Packet) (n, flags int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	var oobn int
	for {
		if n, oobn, flags, _, err = unix.Recvmsg(fd, data, oob, unix.MSG_CMSG_CLOEXEC); err != unix.EINTR {
			break
		}
	}
	if err == nil {
		err = c.controls(p, oob[:oobn])
	}
	return n, flags, err
}

// controls reads the control messages of a packet.
func (c *Conn) controls(p *Packet, oob []byte) error {
	cms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("%w: control message: %v", ErrPacket, err)
	}
	for _, cm := range cms {
		if cm.Header.Level != unix.SOL_SOCKET {
			continue
		}
		switch cm.Header.Type {
		case unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(&cm)
			if err != nil {
				return fmt.Errorf("%w: %v", ErrPacket, err)
			}
			if err := c.sift(p, fds); err != nil {
				return err
			}
		case unix.SCM_CREDENTIALS:
			if p.Cred, err = unix.ParseUnixCredentials(&cm); err != nil {
				return fmt.Errorf("%w: %v", ErrPacket, err)
			}
		}
	}
	return nil
}

// sift puts those descriptors into the packet that are of a kind that is taken. If
// there are others, or too many, it keeps none.
func (c *Conn) sift(p *Packet, fds []int) error {
	var err error
	if len(p.Files)+len(p.FDs)+len(fds) > maxFDs {
		err = fmt.Errorf("%w: too many descriptors", ErrPacket)
	}
	for _, fd := range fds {
		if err == nil && c.raw && !isTCP(fd) && !isDevice(fd) {
			err = fmt.Errorf("%w: a descriptor that is neither a TCP socket nor a terminal", ErrPacket)
		} else if err == nil && !c.raw && !harmless(fd) {
			err = fmt.Errorf("%w: a descriptor of a file on disk", ErrPacket)
		}
	}
	switch {
	case err != nil:
		c.discard(fds)
	case c.raw:
		p.FDs, p.from = append(p.FDs, fds...), c
	default:
		for _, fd := range fds {
			p.Files = append(p.Files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return err
}

// discard closes descriptors, each of which may take as long as its file system, or
// SO_LINGER of a socket, likes. It returns when no child that is made after it has them,
// which is at once; but for more than maxFDs, which cost one thread and not one each.
func (c *Conn) discard(fds []int) {
	g, err := theGrave()
	if err != nil || len(fds) > maxFDs {
		c.discarded.Go(func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
		})
		return
	}
	for _, fd := range fds {
		c.bury(g, fd)
	}
}

// A grave is a pipe that nobody else has. A descriptor that is replaced by it is closed as
// by close(2), but its number is not free: what is there can be looked at, while another
// descriptor that comes to a free number may look like the one that was closed.
type grave struct {
	fd   int
	link string // as /proc/self/fd has it
}

var graves struct {
	sync.Mutex
	made *grave
}

// theGrave is the process's only one, which is made when it is first needed.
func theGrave() (*grave, error) {
	graves.Lock()
	defer graves.Unlock()
	if graves.made != nil {
		return graves.made, nil
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	unix.Close(pipe[1])
	link, err := linkOf(pipe[0])
	if err != nil {
		unix.Close(pipe[0])
		return nil, err
	}
	graves.made = &grave{pipe[0], link}
	return graves.made, nil
}

// bury replaces a descriptor by the grave, returns when that is done, and leaves it to
// another thread to wait until what was there is closed.
func (c *Conn) bury(g *grave, fd int) {
	replaced, looked := make(chan struct{}), make(chan struct{})
	c.discarded.Go(func() {
		unix.Dup3(g.fd, fd, unix.O_CLOEXEC)
		close(replaced)
		<-looked
		unix.Close(fd)
	})
	defer close(looked)
	for {
		select {
		case <-replaced:
			return
		case <-time.After(10 * time.Microsecond):
		}
		if now, err := linkOf(fd); err != nil || now == g.link {
			return
		}
	}
}

// linkOf is what proc(5) says a descriptor is. It asks no file system.
func linkOf(fd int) (string, error) {
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// Wait waits until what was passed and refused is closed. Who serves strangers
// counts them among the living until then.
func (c *Conn) Wait() { c.discarded.Wait() }

// isTCP says whether a descriptor is a stream socket of TCP. These options are
// answered by the kernel alone, without the socket's lock.
func isTCP(fd int) bool {
	for _, want := range []struct{ option, a, b int }{
		{unix.SO_DOMAIN, unix.AF_INET, unix.AF_INET6},
		{unix.SO_TYPE, unix.SOCK_STREAM, unix.SOCK_STREAM},
		{unix.SO_PROTOCOL, unix.IPPROTO_TCP, unix.IPPROTO_TCP},
	} {
		if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.option); err != nil || v != want.a && v != want.b {
			return false
		}
	}
	return true
}

// isDevice says whether a descriptor is an open character device, as a terminal is.
// One of O_PATH is not open: it may be a name in a hostile file system.
func isDevice(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_PATH == 0 && fileType(fd) == unix.S_IFCHR
}

// harmless says whether a descriptor is of a kind that our own processes pass to
// each other: a socket, a pipe, a terminal, or a pidfd. What is asked of any other
// is asked of its file system, which may be a hostile one that never answers:
// os.NewFile asks poll(2), in a way that stops the whole process. An epoll
// descriptor passes the question on to whatever is in it.
func harmless(fd int) bool {
	switch fileType(fd) {
	case unix.S_IFSOCK, unix.S_IFIFO, unix.S_IFCHR:
		return true
	}
	// The name of a file on disk begins with a slash.
	l, err := linkOf(fd)
	return err == nil && l == "anon_inode:[pidfd]"
}

// fileType is the S_IFMT bits of a descriptor's mode, 0 if they are not known.
// statx(2) asks no file system: AT_STATX_DONT_SYNC. sshfront's sandbox has fstat(2)
// alone.
func fileType(fd int) uint32 {
	var stx unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &stx)
	mode := uint32(stx.Mode)
	if err == unix.EPERM {
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		mode = st.Mode
	}
	if err != nil {
		return 0
	}
	return mode & unix.S_IFMT
}
