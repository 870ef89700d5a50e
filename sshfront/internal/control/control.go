// Package control is what the listener and the processes that it starts say to
// each other.
//
// A connection process starts with
//
//	fd 3   the TCP socket
//	fd 4   its end of the control socket
//	fd 5   a sealed memfd with a Config (all connections share it)
//
// and a session process with
//
//	fd 3   the link, which its connection process has made
//	fd 4   the same memfd
//
// Standard error is the log; standard input and output are /dev/null.
//
// The control socket is a SOCK_SEQPACKET socket with messages of capproto.Msg,
// of at most MaxPacket bytes. From the connection process come
//
//	authenticated user=U
//	    Once: U has logged in. LoginGraceTime and MaxStartups are over for this
//	    connection. No answer.
//	session                     with one descriptor, a SOCK_SEQPACKET socket
//	    Once, after authenticated: starts a session process that gets the
//	    descriptor. Answer: ok pid=P, or error text=T.
//
// Anything else is a violation, for which the listener kills the process. The
// listener closes its end when it ends; the connection goes on without it. It
// kills the process if it is not authenticated when LoginGraceTime is over.
//
// A compromised connection process can at most count itself as authenticated and
// start one session process; that one fails because it has no valid ticket.
//
// The exit status of a connection process that has not authenticated says for
// which of PerSourcePenalties its source is due: the exit constants.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"p9auth/capproto"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
)

// Descriptors that a process starts with.
const (
	ConnSocketFD  = 3
	ConnControlFD = 4
	ConnConfigFD  = 5

	SessionLinkFD   = 3
	SessionConfigFD = 4
)

// MaxPacket is how many bytes a message on the control socket may have.
const MaxPacket = 1024

// Verbs of the control socket.
const (
	VerbAuthenticated = "authenticated"
	VerbSession       = "session"
)

// Exit statuses of a connection process. Where sshd has them, they have its
// numbers.
const (
	ExitOK          = 0 // authenticated, or ended before it mattered
	ExitFailure     = 1 // our own fault, such as no factotum: no penalty
	ExitCrash       = 2 // Go's own, for a panic
	ExitGrace       = 3 // LoginGraceTime exceeded
	ExitAuthFail    = 5 // tried to authenticate and failed
	ExitRefused     = 6 // RefuseConnection
	ExitInvalidUser = 7 // named a user that does not exist or may not log in, and did not try
	ExitNoAuth      = 8 // did not try
)

// Config is what connection and session processes get from the listener.
type Config struct {
	RPC    string `json:"rpc"`    // factotum's socket
	Capuse string `json:"capuse"` // see internal/capuse
	// Settings are the listener's own (sshdconf.Config.Global). They count
	// until factotum's arrive.
	Settings sshdconf.Settings `json:"settings"`
	LogLevel sshdconf.LogLevel `json:"loglevel"` // with -d and -q in it
	Debug    int               `json:"debug"`    // how many -d
}

// maxConfig bounds a Config in bytes.
const maxConfig = 4 << 20

// Memfd makes the sealed file for a Config, which all processes read.
func (c *Config) Memfd() (*os.File, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return sys.Memfd("sshfront-config", b)
}

// ReadConfig reads and closes the file that Memfd made. Its offset is shared
// with other processes and stays as it is.
func ReadConfig(fd int) (*Config, error) {
	f := os.NewFile(uintptr(fd), "config")
	if f == nil {
		return nil, errors.New("no configuration: this process is started by the listener only")
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxConfig))
	if err != nil {
		return nil, fmt.Errorf("no configuration: this process is started by the listener only: %w", err)
	}
	c := new(Config)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return c, nil
}

// A Conn is the connection process's end of the control socket.
type Conn struct{ c *capproto.Conn }

// Open wraps the descriptor that the process has started with.
func Open(fd int) (*Conn, error) {
	c, err := capproto.FileConn(os.NewFile(uintptr(fd), "control"), MaxPacket)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &Conn{c}, nil
}

// Authenticated tells the listener that the user has logged in. An error means
// that the listener has ended, which is no reason to end the connection.
func (c *Conn) Authenticated(user string) error {
	return c.c.Send(capproto.NewMsg(VerbAuthenticated, "user", user))
}

// Session has the listener start a session process with link, which stays
// the caller's to close. It returns the process's pid.
func (c *Conn) Session(link *os.File) (pid string, err error) {
	if err := c.c.Send(capproto.NewMsg(VerbSession), link); err != nil {
		return "", fmt.Errorf("no session process: the listener has ended: %w", err)
	}
	p, err := c.c.Recv()
	if err != nil {
		return "", fmt.Errorf("no session process: the listener has ended: %w", err)
	}
	p.Close()
	switch p.Verb {
	case capproto.VerbOK:
		return p.Get("pid"), nil
	case capproto.VerbError:
		return "", errors.New(p.Get("text"))
	}
	return "", fmt.Errorf("%w: reply %s", capproto.ErrPacket, p.Verb)
}
