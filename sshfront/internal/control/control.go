// Package control is what the listener and the processes that it starts say to
// each other.
//
// A connection process starts with
//
//	fd 3   the TCP socket
//	fd 4   its end of the control socket
//	fd 5   a sealed memfd with a Config (all connections share it)
//	fd 6   the link, of which the listener keeps the other end for the session
//	       process: inside of its sandbox no process can make or pass a descriptor
//
// and a session process with
//
//	fd 3   the other end of its connection process's link
//	fd 4   the same memfd
//	fd 5   a pipe for what become, and a user process that cannot start, say on
//	       standard error: the listener logs it
//
// Standard error is a pipe to the listener, which logs what comes; standard input and
// output are /dev/null.
//
// The control socket is a SOCK_SEQPACKET socket with messages of capproto.Msg,
// of at most MaxPacket bytes. From the connection process come
//
//	authenticated version=V user=U
//	    Once, and first: U has logged in. LoginGraceTime and MaxStartups are over
//	    for this connection. V is Version. No answer.
//	session
//	    Once, after authenticated: starts a session process that gets the other end
//	    of the link. Answer: ok pid=P, or error text=T.
//
// Anything else, and any descriptor, is a violation, for which the listener kills the process. The
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
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"p9auth/capproto"
	"p9auth/internal/pack"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
)

// Descriptors that a process starts with.
const (
	ConnSocketFD  = 3
	ConnControlFD = 4
	ConnConfigFD  = 5
	ConnLinkFD    = 6

	SessionLinkFD   = 3
	SessionConfigFD = 4
	SessionErrorFD  = 5

	UserFactotumFD = 5 // of the user process: its conversation with factotum
)

// Version is that of the control socket's words and of Config. A change of either
// raises it.
const Version = 2

// MaxPacket is how many bytes a message on the control socket may have.
const MaxPacket = 1024

// Verbs of the control socket.
const (
	verbAuthenticated = "authenticated"
	verbSession       = "session"
)

// Exit statuses of a connection process. Where sshd has them, they have its
// numbers.
const (
	ExitOK          = 0 // authenticated, or ended before it mattered
	ExitFailure     = 1 // a fault of ours, such as no factotum: no penalty
	ExitCrash       = 2 // Go's own, for a panic
	ExitAuthFail    = 5 // tried to authenticate and failed
	ExitRefused     = 6 // RefuseConnection
	ExitInvalidUser = 7 // named a user that does not exist or may not log in, and did not try
	ExitNoAuth      = 8 // did not try
)

// Config is what connection processes and redeemers get from the listener. All
// that concerns a connection or its user comes from factotum.
type Config struct {
	RPC          string // factotum's socket
	Capuse       string // see internal/capuse
	TCPKeepAlive bool
	LogLevel     sshdconf.LogLevel // with -d and -q in it
	LogVerbose   []string
	LogFixed     bool // -d or -q: no other LogLevel counts
	Debug        bool // -d: the sandbox refuses instead of killing
}

// format is Config's encoding. The listener starts the other processes from the
// file that it runs itself, so another version is another program's.
var format = pack.Format[Config]{Name: "the listener's configuration", Version: Version}

// maxConfig bounds a Config in bytes.
const maxConfig = 1 << 20

// Memfd makes the sealed file for a Config, which all processes read.
func (c *Config) Memfd() (*os.File, error) {
	return sys.Memfd("sshfront-config", format.Encode(c))
}

// ReadConfig reads and closes the file that Memfd made. Its offset is shared
// with other processes and stays as it is.
func ReadConfig(fd int) (*Config, error) {
	f := os.NewFile(uintptr(fd), "config")
	if f == nil {
		return nil, errNoConfig
	}
	defer f.Close()
	b, err := sys.ReadAll(io.NewSectionReader(f, 0, maxConfig+1), maxConfig)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoConfig, err)
	}
	c, err := format.Decode(b)
	return c, pack.Between(err, "sshfront's listener", "its program")
}

var errNoConfig = errors.New("no configuration: only the listener starts this process")

// A Request is what a connection process asks of the listener: an Authenticated
// or a Session.
type Request any

// Authenticated says that a user has logged in.
type Authenticated struct{ User string }

// Session asks for a session process.
type Session struct{}

// Decode reads a request, and nothing else. An error is a violation. The files of
// the packet, of which there must be none, stay the caller's.
func Decode(p capproto.Packet) (Request, error) {
	if len(p.Files) > 0 {
		return nil, errors.New("a descriptor that nobody asked for")
	}
	switch p.Verb {
	case verbAuthenticated:
		if v, ok := p.Lookup("version"); !ok || v != strconv.Itoa(Version) {
			return nil, fmt.Errorf("the connection process speaks version %.20q of the control socket and the listener version %d: restart sshfront", v, Version)
		}
		if err := p.Only("version", "user"); err != nil || p.Get("user") == "" {
			return nil, errors.New(`malformed "authenticated" message`)
		}
		return Authenticated{p.Get("user")}, nil
	case verbSession:
		if len(p.Attrs) > 0 {
			return nil, errors.New(`malformed "session" message`)
		}
		return Session{}, nil
	}
	return nil, fmt.Errorf("unknown verb %s", p.Verb)
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
// that the listener has ended; the connection goes on without it.
func (c *Conn) Authenticated(user string) error {
	return c.c.Send(capproto.NewMsg(verbAuthenticated, "version", strconv.Itoa(Version), "user", user))
}

// Session has the listener start a session process. It returns the process's pid.
func (c *Conn) Session() (pid string, err error) {
	if err := c.c.Send(capproto.NewMsg(verbSession)); err != nil {
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
