// Package linger makes TCP connections whose close(2) waits, for tests of those who must
// not wait for it.
package linger

import (
	"net"
	"time"
)

// Dial connects to a listener of TCP that nobody else connects to. Whoever closes the last
// descriptor of c waits an hour: SO_LINGER of socket(7), as there is more to send than peer,
// the other end, takes before it is read.
func Dial(ln net.Listener) (c *net.TCPConn, peer net.Conn, err error) {
	c, err = net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		return nil, nil, err
	}
	if peer, err = ln.Accept(); err != nil {
		c.Close()
		return nil, nil, err
	}
	c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	for err == nil { // until the buffer of the other end is full
		_, err = c.Write(make([]byte, 1<<20))
	}
	return c, peer, c.SetLinger(3600)
}
