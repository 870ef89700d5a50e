package main

// What the listener and its processes say to each other.
//
// A connection process starts with
//
//	fd 3   the TCP socket
//	fd 4   its end of the control socket
//	fd 5   a sealed memfd with a connConfig (all connections share it)
//
// and a session process with
//
//	fd 3   the link, which its connection process has made
//	fd 4   the same memfd
//
// Standard error is the log; standard input and output are /dev/null.
//
// The control socket is a SOCK_SEQPACKET socket with messages of capproto.Msg,
// of at most maxControl bytes. From the connection process come
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
// A connection process that has been taken over can gain by these messages a
// place among those that are authenticated, and one session process, which
// fails, as it finds no ticket that is good.
//
// The exit status of a connection process that has not authenticated says for
// which of PerSourcePenalties its source is due: the exit constants.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/sshdconf"
)

// Descriptors that a process starts with.
const (
	connSocketFD  = 3
	connControlFD = 4
	connConfigFD  = 5

	sessionLinkFD   = 3
	sessionConfigFD = 4
)

// maxControl is how many bytes a message on the control socket may have.
const maxControl = 1024

// Verbs of the control socket.
const (
	ctlAuthenticated = "authenticated"
	ctlSession       = "session"
)

// Exit statuses of a connection process. Where sshd has them, they have its
// numbers.
const (
	exitOK          = 0 // authenticated, or ended before it mattered
	exitFailure     = 1 // our own fault, such as no factotum: no penalty
	exitCrash       = 2 // Go's own, for a panic
	exitGrace       = 3 // LoginGraceTime exceeded
	exitAuthFail    = 5 // tried to authenticate and failed
	exitRefused     = 6 // RefuseConnection
	exitInvalidUser = 7 // named a user that does not exist or may not log in, and did not try
	exitNoAuth      = 8 // did not try
)

// connConfig is what connection and session processes get from the listener.
type connConfig struct {
	RPC    string `json:"rpc"`    // factotum's socket
	Capuse string `json:"capuse"` // see internal/capuse
	// Settings are the listener's own (sshdconf.Config.Global). They count
	// until factotum's arrive.
	Settings sshdconf.Settings `json:"settings"`
	LogLevel sshdconf.LogLevel `json:"loglevel"` // with -d and -q in it
	Debug    int               `json:"debug"`    // how many -d
}

// maxConfig bounds a connConfig in bytes.
const maxConfig = 4 << 20

// memfd makes the file for a connConfig. It is sealed, as all processes read
// the same one.
func (c *connConfig) memfd() (*os.File, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("sshfront-config", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "config")
	if _, err = f.Write(b); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("memfd: %w", err)
	}
	return f, nil
}

// readConfig reads and closes the file that memfd made. Its offset is shared
// with other processes and stays as it is.
func readConfig(fd int) (*connConfig, error) {
	f := os.NewFile(uintptr(fd), "config")
	if f == nil {
		return nil, errors.New("no configuration: this process is started by the listener only")
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxConfig))
	if err != nil {
		return nil, fmt.Errorf("no configuration: this process is started by the listener only: %w", err)
	}
	c := new(connConfig)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return c, nil
}

// closeOnExec marks every descriptor but the standard ones: what whoever
// started us left open is nobody's business.
func closeOnExec() error {
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	return nil
}

// A control is the connection process's end of the control socket.
type control struct{ c *capproto.Conn }

// openControl wraps the descriptor that the process has started with.
func openControl(fd int) (*control, error) {
	c, err := capproto.FileConn(os.NewFile(uintptr(fd), "control"), maxControl)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &control{c}, nil
}

// authenticated tells the listener that the user has logged in. An error means
// that the listener has ended, which is no reason to end the connection.
func (c *control) authenticated(user string) error {
	return c.c.Send(capproto.NewMsg(ctlAuthenticated, "user", user))
}

// session has the listener start a session process with link, which stays
// the caller's to close. It returns the process's pid.
func (c *control) session(link *os.File) (pid string, err error) {
	if err := c.c.Send(capproto.NewMsg(ctlSession), link); err != nil {
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
