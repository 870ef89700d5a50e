package user

// The link: a SOCK_SEQPACKET socket pair between the connection process, which
// asks, and the user process, which does. Packets are those of capproto
// (rpc.go), at most MaxPacket bytes either way.
//
// Every request has id=, a decimal number that the connection process uses
// once. Each is answered by one packet with the same id; answers come in any
// order, and nothing comes unasked:
//
//	ok id= ...                  descriptors travel with it
//	error id= code= text=       the text is for a person
//
// Before the user process exists, the session process reads the first packet
// (the ticket); if it fails it sends "error text=" without an id, and ends.
// Requests may be sent meanwhile: the socket keeps them.
//
//	hello                       Answer: ok settings= user=, JSON of sshdconf.Settings.
//	pty term= cols= rows= width= height= modes=B64
//	    Allocates a terminal; modes as RFC 4254 section 8 encodes them.
//	    Answer: ok tty=, with the master.
//	exec [command=|subsystem=] [pty=ID] [x11=ID] [env=NAME=VALUE]...
//	    Runs the command, the subsystem or the login shell, on the terminal of
//	    an earlier pty or on pipes. Answer: ok, without a terminal with three
//	    descriptors: to write standard input, to read output and errors.
//	wait session=ID             Answer, when the process has ended: ok status=N, or
//	                            ok signal=NAME core=yes|no. ID is the exec's.
//	winch pty=ID cols= rows= width= height=
//	break pty=ID
//	signal session=ID name=     A name of RFC 4254 section 6.10.
//	drop session=ID | pty=ID    The channel is closed: lets go of the terminal.
//	dial host= port=            Answer: ok, with the connected socket.
//	dial-unix path=             Answer: ok, with the connected socket.
//	listen host= port=          Answer: ok port=.
//	listen-unix path=
//	agent                       Makes the agent's socket for later sessions.
//	x11 single=yes|no proto= cookie= screen=
//	accept listener=ID          Answer, when somebody connects: ok host= port= with
//	                            the socket. ID is that of one of the four above.
//	cancel listener=ID          Stops it; accepts that wait get an error.
//	no-more-sessions            Refuses pty, exec, agent and x11 from now on.
//
// All descriptors that are passed are in non-blocking mode.
//
// The connection process is not trusted. What it asks is checked against the
// settings and the options of the user's key, and bounded. A packet that is
// none, or an id used twice, ends the link.

import (
	"errors"
	"fmt"
	"strconv"

	"p9auth/capproto"
)

// Bounds of the link.
const (
	MaxPacket    = capproto.MaxReply
	maxRequests  = 4096 // waiting for their answer
	maxListeners = 256
	maxEnv       = 128 // as sshd(8)
	maxModes     = 4096
)

// Verbs of the link.
const (
	verbHello      = "hello"
	verbPTY        = "pty"
	verbExec       = "exec"
	verbWait       = "wait"
	verbWinch      = "winch"
	verbBreak      = "break"
	verbSignal     = "signal"
	verbDrop       = "drop"
	verbDial       = "dial"
	verbDialUnix   = "dial-unix"
	verbListen     = "listen"
	verbListenUnix = "listen-unix"
	verbAgent      = "agent"
	verbX11        = "x11"
	verbAccept     = "accept"
	verbCancel     = "cancel"
	verbNoMore     = "no-more-sessions"
)

// Codes of an error answer.
const (
	CodeProhibited = "prohibited" // settings or options of the key forbid it
	CodeFailed     = "failed"     // it was tried and did not work
	CodeLimit      = "limit"      // too many
	CodeGone       = "gone"       // no such object, or no longer
)

// An Error is an error answer.
type Error struct {
	Code string // one of the Code constants
	Text string // for a person
}

func (e *Error) Error() string { return e.Text }

func prohibited(format string, a ...any) error {
	return &Error{CodeProhibited, fmt.Sprintf(format, a...)}
}

func failed(format string, a ...any) error { return &Error{CodeFailed, fmt.Sprintf(format, a...)} }

var errNoSuch = &Error{CodeGone, "there is no such object, or no longer"}

// Prohibited reports whether err is an answer that something is not permitted.
func Prohibited(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == CodeProhibited
}

// Size is that of a terminal: in characters, and in pixels where known.
type Size struct{ Cols, Rows, Width, Height uint32 }

func (s Size) add(m *capproto.Msg) {
	m.Add("cols", utoa(s.Cols))
	m.Add("rows", utoa(s.Rows))
	m.Add("width", utoa(s.Width))
	m.Add("height", utoa(s.Height))
}

func parseSize(m capproto.Msg) (s Size, err error) {
	for name, p := range map[string]*uint32{"cols": &s.Cols, "rows": &s.Rows, "width": &s.Width, "height": &s.Height} {
		if *p, err = parseUint(m, name); err != nil {
			return Size{}, err
		}
	}
	return s, nil
}

func utoa[T ~uint32 | ~int](n T) string { return strconv.FormatInt(int64(n), 10) }

// parseUint reads a decimal number, in its one spelling.
func parseUint(m capproto.Msg, name string) (uint32, error) {
	s := m.Get(name)
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || utoa(uint32(n)) != s {
		return 0, fmt.Errorf("%w: %s: %s= is not a number", capproto.ErrPacket, m.Verb, name)
	}
	return uint32(n), nil
}

func parsePort(m capproto.Msg) (int, error) {
	n, err := parseUint(m, "port")
	if err == nil && n > 65535 {
		err = failed("port %d is too large", n)
	}
	return int(n), err
}
