// Package pamwire has the words that factotum and its PAM worker (factotum-pam)
// say to each other, as Go types: a Request goes from factotum to the worker, an
// Event from the worker to factotum. A packet is a capproto.Msg on a
// SOCK_SEQPACKET socket pair; the worker has its end as descriptor 3.
//
//	factotum says          the worker answers
//	Hello                  Hello
//	Lookup                 Account or NoUser
//	KeyQuery               KeyAllowed or KeyDenied
//	Begin [+ terminal]     Begun
//	Authenticate           Prompt..., then Proven or Refused
//	Answer                 (to a Prompt that is a question) the next event
//	CheckAccount           Prompt..., then AccountValid or Refused
//	OpenSession + pidfd    Prompt..., then Opened or Refused
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
	"fmt"
	"strconv"
	"strings"

	"p9auth/capproto"
	"p9auth/internal/words"
)

// Version is the version of this wire. It grows with every change of a word or
// an attribute. Programs from before there was a Hello count as version 0.
const Version = 1

// Bounds of what the worker may say of one thing.
const (
	MaxNotes      = 32                    // notes of one KeyAllowed or KeyDenied
	MaxNote       = 512                   // bytes of a note
	MaxText       = 16 << 10              // bytes of a prompt or an error
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
	maxBlob = capproto.MaxReply / 2 // JSON of settings or options
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

// DecodeRequest reads a request that came with so many descriptors.
func DecodeRequest(m capproto.Msg, files int) (Request, error) {
	d, ok := requests[m.Verb]
	if !ok {
		return nil, fmt.Errorf("%w: unknown request %s", ErrWire, m.Verb)
	}
	if files < d.minFiles || files > d.maxFiles {
		return nil, fmt.Errorf("%w: %s with %d descriptors", ErrWire, m.Verb, files)
	}
	r := newReader(m)
	req := d.decode(r)
	if err := r.finish(); err != nil {
		return nil, err
	}
	return req, nil
}

// DecodeEvent reads an event. Events carry no descriptors.
func DecodeEvent(m capproto.Msg) (Event, error) {
	decode, ok := events[m.Verb]
	if !ok {
		return nil, fmt.Errorf("%w: unknown event %s", ErrWire, m.Verb)
	}
	r := newReader(m)
	ev := decode(r)
	if err := r.finish(); err != nil {
		return nil, err
	}
	return ev, nil
}

// Fit makes text of a module's or a file's fit for an attribute: it is cut off at
// max bytes and has no NUL.
func Fit(s string, max int) string {
	return strings.ReplaceAll(words.Clip(s, max), "\x00", "?")
}

// Hello is what each side says first.
type Hello struct{ Version int }

func (h Hello) Encode() capproto.Msg {
	return capproto.NewMsg("hello", "version", strconv.Itoa(h.Version))
}
func (Hello) request() {}
func (Hello) event()   {}

func decodeHello(r *reader) Hello { return Hello{r.positive("version")} }

// A VersionError says that factotum and the worker are of different versions. Its
// text tells the administrator what to do.
type VersionError struct{ Worker, Factotum int }

func (e *VersionError) Error() string {
	age := "older"
	if e.Worker > e.Factotum {
		age = "newer"
	}
	return "factotum-pam is " + age + " than factotum; restart factotum"
}

// CheckFactotum judges the first packet from factotum, on the worker's side. The
// error is a *VersionError unless it is a Hello of this version. The worker says
// Refusal(m) then, and nothing else.
func CheckFactotum(m capproto.Msg) error {
	if v := versionOf(m); v != Version {
		return &VersionError{Worker: Version, Factotum: v}
	}
	return nil
}

// CheckWorker judges the first packet from the worker, on factotum's side. The
// error is a *VersionError unless it is a Hello of this version.
func CheckWorker(m capproto.Msg) error {
	if v := versionOf(m); v != Version {
		return &VersionError{Worker: v, Factotum: Version}
	}
	return nil
}

// Refusal is the worker's answer to a first packet that CheckFactotum refuses:
// its own Hello, by which factotum sees which of them is older. A factotum that
// knows no Hello gets the sentence instead, as an error that it logs.
func Refusal(m capproto.Msg) Event {
	if v := versionOf(m); v == 0 {
		return Failed{Text: (&VersionError{Worker: Version, Factotum: v}).Error()}
	}
	return Hello{Version}
}

// versionOf reads a Hello of any version, which may have attributes that we do
// not know. Whatever else there is, is version 0.
func versionOf(m capproto.Msg) int {
	if m.Verb != "hello" {
		return 0
	}
	n, err := strconv.ParseUint(m.Get("version"), 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}
