package capproto

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxFDs is how many descriptors a packet may carry.
const maxFDs = 4

// A Conn carries messages over a SOCK_SEQPACKET unix socket. One goroutine may
// send while another receives.
type Conn struct {
	c   *net.UnixConn
	buf []byte
	oob []byte

	discarded sync.WaitGroup // descriptors that are being closed
}

// NewConn wraps a socket whose peer sends packets of at most max bytes.
func NewConn(c *net.UnixConn, max int) *Conn {
	return &Conn{
		c:   c,
		buf: make([]byte, max+1),
		oob: make([]byte, unix.CmsgSpace(4*maxFDs)+unix.CmsgSpace(unix.SizeofUcred)),
	}
}

// FileConn makes a Conn of an inherited socket, which it closes.
func FileConn(f *os.File, max int) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a unix socket")
	}
	return NewConn(u, max), nil
}

// Unix is the socket under the Conn.
func (c *Conn) Unix() *net.UnixConn { return c.c }

// SetWriteDeadline sets until when Send may wait for room.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.c.SetWriteDeadline(t) }

// Close closes the socket.
func (c *Conn) Close() error { return c.c.Close() }

// Send sends one message with the given files' descriptors.
func (c *Conn) Send(m Msg, files ...*os.File) error {
	b, err := m.Encode()
	if err != nil {
		return err
	}
	defer clear(b)
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.c.WriteMsgUnix(b, oob, nil)
	return err
}

// A Packet is a received message with what the kernel says of it.
type Packet struct {
	Msg
	Files []*os.File  // close-on-exec; the receiver closes them
	Cred  *unix.Ucred // the sender, where the socket has SO_PASSCRED, else nil
}

// Close closes the packet's files.
func (p *Packet) Close() {
	for _, f := range p.Files {
		f.Close()
	}
	p.Files = nil
}

// Recv receives one message. It returns io.EOF when the peer has closed, and
// an error that wraps ErrPacket, with the sender still told, when the bytes
// are not a message.
func (c *Conn) Recv() (Packet, error) {
	var p Packet
	n, flags, err := c.receive(&p)
	if errors.Is(err, unix.ECONNRESET) {
		// The peer has closed and not read all of ours. The kernel says so
		// once, before it hands out what the peer said last.
		n, flags, err = c.receive(&p)
	}
	if err != nil {
		p.Close()
		if errors.Is(err, unix.ECONNRESET) {
			err = io.EOF
		}
		return p, err
	}
	if n == 0 {
		p.Close() // an empty packet may carry some, too
		return p, io.EOF
	}
	defer clear(c.buf[:n])
	if n == len(c.buf) || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		p.Close()
		return p, fmt.Errorf("%w: too large", ErrPacket)
	}
	if p.Msg, err = DecodeMsg(c.buf[:n]); err != nil {
		p.Close()
	}
	return p, err
}

// receive receives the bytes of a packet, and its control messages. Meanwhile no
// child is made: when it is executed it would have to close the descriptors that
// control refuses, too.
func (c *Conn) receive(p *Packet) (n, flags int, err error) {
	raw, err := c.c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	e := raw.Read(func(fd uintptr) bool {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		var oobn int
		for {
			if n, oobn, flags, _, err = unix.Recvmsg(int(fd), c.buf, c.oob, unix.MSG_CMSG_CLOEXEC); err != unix.EINTR {
				break
			}
		}
		if err == nil {
			err = c.control(p, c.oob[:oobn])
		}
		return err != unix.EAGAIN
	})
	if e != nil {
		err = e
	}
	return n, flags, err
}

// control reads the control messages of a packet.
func (c *Conn) control(p *Packet, oob []byte) error {
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
			for _, fd := range fds {
				if !harmless(fd) {
					c.discard(fd)
					err = fmt.Errorf("%w: a descriptor of a file on disk", ErrPacket)
					continue
				}
				p.Files = append(p.Files, os.NewFile(uintptr(fd), "passed"))
			}
			if err != nil {
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

// discard closes a descriptor, which may take as long as its file system likes.
// It returns when the number is free, which is at once.
func (c *Conn) discard(fd int) {
	link := fmt.Sprintf("/proc/self/fd/%d", fd)
	is, err := os.Readlink(link)
	c.discarded.Go(func() { unix.Close(fd) })
	for now := is; err == nil && now == is; now, err = os.Readlink(link) {
		time.Sleep(10 * time.Microsecond)
	}
}

// Wait waits until what was passed and refused is closed. Who serves strangers
// counts them among the living until then.
func (c *Conn) Wait() { c.discarded.Wait() }

// harmless says whether a descriptor is of a kind that is passed here: a socket,
// a pipe, a terminal, or a file of the kernel's own such as a pidfd. What is
// asked of any other is asked of its file system, which may be a hostile one
// that never answers: os.NewFile asks poll(2), in a way that stops the whole
// process. statx(2) asks nobody: AT_STATX_DONT_SYNC. sshfront's sandbox has
// fstat(2) alone.
func harmless(fd int) bool {
	var stx unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &stx)
	mode := uint32(stx.Mode)
	if err == unix.EPERM {
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		mode = st.Mode
	}
	if err != nil {
		return false
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFSOCK, unix.S_IFIFO, unix.S_IFCHR:
		return true
	}
	l, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err == nil && strings.HasPrefix(l, "anon_inode:")
}
