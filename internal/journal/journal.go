// Package journal writes entries with fields to systemd-journald, by its native protocol:
// https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. It runs in whichever process opens it, needs
// no right, and never waits: an entry that the journal does not take at once is an error.
package journal

import (
	"encoding/binary"
	"net"
	"strings"
	"sync"
	"time"
)

// Socket is where journald listens, and DevLog is where syslog(3) reaches it.
const (
	Socket = "/run/systemd/journal/socket"
	DevLog = "/run/systemd/journal/dev-log"
)

// Patience is how long journald, or a syslog daemon, may take to take an entry or a
// connection: all who log wait meanwhile. Without an end, Go's connect may wait for ever
// after EINTR.
const Patience = 100 * time.Millisecond

// maxValue bounds a field in bytes. journald takes more, but a datagram has to fit.
const maxValue = 16 << 10

// A Field is one of an entry: see systemd.journal-fields(7). A name has A to Z, 0 to 9 and
// _, and does not begin with the latter.
type Field struct{ Name, Value string }

// A Conn is a connection to journald, which is made again where journald was restarted.
// Any goroutine may use it.
type Conn struct {
	path string
	mu   sync.Mutex
	conn net.Conn
}

// Open connects to journald at a socket.
func Open(path string) (*Conn, error) {
	c, err := net.DialTimeout("unixgram", path, Patience)
	if err != nil {
		return nil, err
	}
	return &Conn{path: path, conn: c}, nil
}

// Send writes one entry.
func (c *Conn) Send(fields []Field) (err error) {
	b := encode(fields)
	c.mu.Lock()
	defer c.mu.Unlock()
	for range 2 {
		if c.conn == nil {
			if c.conn, err = net.DialTimeout("unixgram", c.path, Patience); err != nil {
				return err
			}
		}
		c.conn.SetWriteDeadline(time.Now().Add(Patience))
		if _, err = c.conn.Write(b); err == nil {
			return nil
		}
		c.conn.Close()
		c.conn = nil
	}
	return err
}

// encode is an entry as the protocol has it: NAME=value and a newline, or, where there is
// a newline in the value, the name, a newline, the length in 8 bytes, little-endian, the
// value, and a newline. Fields without a value are left out.
func encode(fields []Field) []byte {
	var b []byte
	for _, f := range fields {
		v := f.Value
		if len(v) > maxValue {
			v = v[:maxValue]
		}
		switch {
		case v == "":
		case strings.Contains(v, "\n"):
			b = append(b, f.Name+"\n"...)
			b = binary.LittleEndian.AppendUint64(b, uint64(len(v)))
			b = append(b, v+"\n"...)
		default:
			b = append(b, f.Name+"="+v+"\n"...)
		}
	}
	return b
}
