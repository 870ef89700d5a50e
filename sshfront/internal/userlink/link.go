// Package userlink is what the connection process and the user process say to
// each other, and the redeemer before there is a user process: the words as Go
// types, the connection process's Client, the user process's Server.
//
// The link is a SOCK_SEQPACKET socket pair that the listener makes. The connection
// process asks; the user process does. Packets are those of capproto, of at most MaxPacket
// bytes either way.
//
// First the connection process sends the ticket, which the redeemer reads:
//
//	ticket version=V ticket=T   V is Version
//
// Then come the requests, of which each has id=, a decimal number that rises.
// Each is answered by one packet with the same id; answers come in any order, and
// nothing comes unasked:
//
//	ok id= ...                  descriptors travel with it
//	error id= code= text=       the text is for a person
//
// The redeemer, and a user process that cannot start, say "error text=" without
// an id, and end. Requests may be sent meanwhile: the socket keeps them. They are
//
//	pty term= cols= rows= width= height= modes=B64
//	    Allocates a terminal; modes as RFC 4254 section 8 encodes them.
//	    Answer: ok, with the master.
//	exec [command=|subsystem=] [pty=ID] [x11=ID] [env=NAME=VALUE]...
//	    Runs the command, the subsystem or the login shell, on the terminal of
//	    an earlier pty or on pipes. Answer: ok, without a terminal with three
//	    descriptors: to write standard input, to read output and errors.
//	wait program=ID             Answer, when the process has ended: ok status=N, or
//	                            ok signal=NAME core=yes|no. ID is the exec's.
//	winch pty=ID cols= rows= width= height=
//	break pty=ID
//	signal program=ID name=     A name of RFC 4254 section 6.10.
//	drop program=ID | pty=ID    The channel is closed: lets go of the program or
//	                            the terminal.
//	dial host= port=            Answer: ok, with the connected socket.
//	dial-unix path=             Answer: ok, with the connected socket.
//	listen host= port=          Answer: ok port=.
//	listen-unix path=
//	agent                       Makes the agent's socket for later programs.
//	x11 single=yes|no proto= cookie= screen=
//	accept listener=ID          Answer, when somebody connects: ok with the socket,
//	                            and of TCP with host= port=. ID is that of one of
//	                            the four above.
//	cancel listener=ID          Stops it; accepts that wait get an error.
//	no-more-sessions            Refuses pty, exec, agent and x11 from now on.
//
// All descriptors that are passed are in non-blocking mode.
//
// The user process does not trust the connection process: Server takes only what
// is spelled as above, and ends the link on anything else; what is asked is then
// checked against the settings and the options of the user's key, and bounded.
// The connection process does not trust the user process either, since that belongs
// to the user: nothing that it says is about the connection process itself.
package userlink

import (
	"errors"
	"fmt"

	"p9auth/capproto"
)

// Version is that of the words of the link. A change of them raises it.
const Version = 1

// Bounds of the link.
const (
	MaxPacket = capproto.MaxReply
	MaxEnv    = 128 // variables of a program that the client names, as sshd(8)
	MaxModes  = 4096
	MaxTerm   = 256 // bytes of a terminal's name
)

// NotOpened is what a client is told whose session ends before it begins, if
// nobody tells it more.
const NotOpened = "the session cannot be opened; the administrator finds the reason in the log"

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

// Prohibitedf makes an answer that something is not permitted.
func Prohibitedf(format string, a ...any) error {
	return &Error{CodeProhibited, fmt.Sprintf(format, a...)}
}

// Failedf makes an answer that something was tried and did not work.
func Failedf(format string, a ...any) error { return &Error{CodeFailed, fmt.Sprintf(format, a...)} }

// ErrGone is the answer about an object that does not exist, or no longer.
var ErrGone = &Error{CodeGone, "there is no such object, or no longer"}

// Prohibited reports whether err is an answer that something is not permitted.
func Prohibited(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == CodeProhibited
}

// Size is that of a terminal: in characters, and in pixels where known.
type Size struct{ Cols, Rows, Width, Height uint32 }

// Exit is how a process ended: by a signal if Signal is not empty, a name of
// RFC 4254 section 6.10.
type Exit struct {
	Status uint32
	Signal string
	Core   bool
}
