package main

import (
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// A quickAck is the client's connection, acknowledging at once what it reads.
//
// Until the user is authenticated a client's small packets wait, by Nagle's
// algorithm (RFC 896), for the acknowledgement of the one before, and ours
// waits 40 ms for an answer to travel with (tcp(7), TCP_QUICKACK): twice in a
// login, where SSH has the client speak twice in a row.
type quickAck struct {
	net.Conn
	raw syscall.RawConn
	off atomic.Bool
}

func newQuickAck(c *net.TCPConn) (*quickAck, error) {
	raw, err := c.SyscallConn()
	return &quickAck{Conn: c, raw: raw}, err
}

// Read acknowledges what has been read before it waits for more.
func (q *quickAck) Read(b []byte) (int, error) {
	if !q.off.Load() {
		// It costs a login some time where it fails, and nothing else.
		q.raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
	}
	return q.Conn.Read(b)
}

// done leaves the rest to the kernel.
func (q *quickAck) done() { q.off.Store(true) }
