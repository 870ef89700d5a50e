// Package pamwire has the words that factotum and its PAM worker (factotum-pam)
// say to each other, as Go types: a Request goes from factotum to the worker, an
// Event from the worker to factotum. A packet is a capproto.Msg on a
// SOCK_SEQPACKET socket pair; the worker has its end as descriptor 3.
//
//	factotum says          the worker answers
//	Hello                  Hello
//	Lookup                 Account or NoUser
//	KeyQuery               KeyAllowed or KeyDenied
//	Begin [+ terminal]     Begun [+ fresh terminal]
//	Authenticate           Prompt..., then Proven or Refused
//	Answer                 (to a Prompt that is a question) the next event
//	CheckAccount           Prompt..., then AccountValid or Refused
//	ChangePassword         Prompt..., then Changed or Refused
//	PasswordStatus         Status or Refused
//	CheckPassword          Checked
//	Resolve                Resolved
//	Target                 AccountValid or Refused
//	GSSToken               GSSContinue or Refused   (to an acceptor: package gss)
//	GSSMIC                 GSSProven or Refused     (likewise)
//	KerberosUser           PrincipalJudged
//	Delegate               Delegated
//	OpenSession + pidfd    Prompt..., then Opened or Refused
//	BeginTerminal          Recorded
//	    + terminal
//	EndTerminal            Recorded
//	Signal + pidfd         Recorded
//	Adopt + pidfd          nothing: it takes over the session of a worker that died
//	    [+ terminal]
//	                       Closing, Closed: at the end of the session, unasked
//
// Any request may be answered by Failed, after which the worker ends.
//
// The worker is executed from disk for each conversation, so an upgrade of the
// package can pair a running factotum with a worker of another version. Each side
// therefore says Hello first and checks the other's by CheckFactotum and
// CheckWorker. A session that is open needs no more words and goes on.
//
// Decoding fails on an attribute that is missing, doubled or unknown, on a number
// that is not written as Encode writes it, and on a value that is longer than its
// bound: no field is ever taken as zero because somebody renamed it. The package
// computes only; it opens and sends nothing.
package pamwire

import (
	"errors"
	"strings"

	"p9auth/capproto"
	"p9auth/internal/words"
)

// Version is the version of this wire. It grows with every change of a word or
// an attribute. Programs from before there was a Hello count as version 0.
const Version = 10

// Bounds of what the worker may say of one thing.
const (
	MaxNotes      = 32                    // notes of one KeyAllowed or KeyDenied
	MaxNote       = 512                   // bytes of a note
	MaxText       = 16 << 10              // bytes of a prompt or an error
	MaxTerminals  = 64                    // of one session by SSH at a time
	MaxEnv        = 256                   // variables that PAM gives to a session
	MaxEnvSize    = 64 << 10              // bytes of them, without the "=" signs
	MaxGroupNames = capproto.MaxAttrs - 8 // an Account has other attributes
	// MaxGroupNamesSize leaves room for those, and for names of which each byte
	// has to be quoted.
	MaxGroupNamesSize = (capproto.MaxReply - 32<<10) / 2
)

const (
	maxName = 1 << 10               // of a user, a service, a host, a terminal
	maxPath = 16 << 10              // longer than PATH_MAX: NSS says what it likes
	maxData = capproto.MaxRequest   // what comes from a front end's packet
	maxBlob = capproto.MaxReply / 2 // settings or options, in base64
)

// A Request is what factotum says to the worker.
type Request interface {
	// Encode returns the packet that says it.
	Encode() capproto.Msg
	request()
}

// An Event is what the worker says to factotum.
type Event interface {
	// Encode returns the packet that says it.
	Encode() capproto.Msg
	event()
}

// ErrWire is wrapped by every error that says that a packet is not one of this
// wire. No such error quotes a value: it may be a password.
var ErrWire = errors.New("not a message between factotum and factotum-pam")

// Fit makes text of a module's or a file's fit for an attribute: it is cut off at
// max bytes and has no NUL.
func Fit(s string, max int) string {
	return strings.ReplaceAll(words.Clip(s, max), "\x00", "?")
}
