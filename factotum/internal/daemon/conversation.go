package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/sshauth"
	"p9auth/factotum/internal/status"
	"p9auth/internal/becomerecord"
	"p9auth/internal/loglimit"
	"p9auth/internal/proc"
)

// A wire is the connection to a front end: a capproto.Conn.
type wire interface {
	Recv() (capproto.Packet, error)
	Send(capproto.Msg, ...*os.File) error
	SetWriteDeadline(time.Time) error
	Close() error
	Wait() // until the descriptors that it refused are closed
}

// A core is what all conversations share.
type core struct {
	log  status.Log
	caps *capabilities
	localCore
	sessions  sessions
	handovers handovers
	lines     loglimit.Limiter // of the log, about conversations that a front end has spoiled
	startups  places           // conversations with a worker and without a proof
	guesses   guesses
	delays    sshauth.Delays
	sleep     func(time.Duration)
	hire      func(config.Config, status.Log, *tty, string) (Worker, error) // starts a worker, for a front end in that security context
	acceptor  func(config.Config, status.Log, string, bool) (Worker, error) // of GSSAPI likewise; strict: for host@HOSTNAME alone
	leader    func(pid int, uid uint32) (*proc.Handle, error)               // of a session
}

// A state of a conversation.
type state uint

const (
	idle    state = 1 << iota // nothing is proven
	talking                   // a PAM worker authenticates
	proven                    // factotum is convinced of the user
	opening                   // a PAM worker opens the session
	open                      // capabilities can be had
	asking                    // by doas: what is to be executed is being said

	// Of an SSH connection.
	offering   // factotum waits for proofs
	accepting  // the client establishes a security context of GSSAPI
	admitted   // factotum is convinced of the user
	handedOver // another process has, or had, the login
	become     // the sender has redeemed a capability, and is the user
	answered   // passwd or unix_chkpwd has what it asked for

	anySSH   = offering | accepting | talking | admitted | handedOver
	anyState = idle | asking | proven | opening | open | become | answered | anySSH
)

var stateNames = map[state]string{
	idle: "idle", talking: "talking", proven: "proven", opening: "opening", open: "open", asking: "asking",
	offering: "ssh", accepting: "accepting", admitted: "admitted", handedOver: "spent", become: "become", answered: "answered",
}

func (s state) String() string { return stateNames[s] }

// A proto is a protocol by which a user is proven: one for pam, one for ssh. It
// is asked only what the table of verbs lets through.
type proto interface {
	// start begins. The state is another one when it returns without an error.
	start(capproto.Packet) (capproto.Msg, error)
	// answer is what PAM gets in place of what the front end says the person typed.
	answer(typed string) string
	// heard judges what the worker says while it authenticates, but for prompts. A
	// nil reply means that the worker is to be listened to on.
	heard(pamwire.Event) (*capproto.Msg, error)
	// describe says for authinfo how the user was proven.
	describe() []capproto.Attr
	// environment is what authinfo says of the environment.
	environment(*pamwire.Opened) []string
	// bound is what a capability of the user is bound to, nil for nothing. login is the
	// answer to authinfo, ptys how many terminals wait in a root directory.
	bound(o *pamwire.Opened, ptys uint32, login string) (*becomerecord.Bound, error)
	// end frees what the protocol holds.
	end()
}

// A conversation is a connection from a front end. One goroutine answers its requests in turn.
type conversation struct {
	*core
	gen  *generation
	wire wire
	peer *unix.Ucred // who made the connection
	log  status.Log

	context string // the security context of who made the connection, or ""

	place   *place // among the conversations
	startup *place // from the first worker to a proof

	requests chan capproto.Packet
	gone     chan error // why no more requests come
	grace    *time.Timer
	leaving  sync.WaitGroup // workers that were told to end, and the goroutine that reads requests

	sender  *unix.Ucred    // who sends the packets
	binding config.Binding // what that front end may do
	proto   proto          // by the binding; nil until the first packet
	count   int            // requests so far
	asked   map[string]bool
	state   state

	userInLog string // user name for the log; "UNKNOWN" for names that do not exist, which may be mistyped passwords
	rhost     string
	tty       *tty
	fresh     *os.File // the terminal's descriptor that goes along with the next reply
	user      *person
	worker    Worker
	session   *session
	speaker   *speaker        // of the login that was taken over, or nil
	stays     *speaker        // this conversation, once that login's session is open
	question  bool            // the front end owes an answer
	given     []capproto.Hash // capabilities
	noCaps    bool            // a capability was refused, and that is in the log
	localCall
}

func violation(format string, args ...any) *capproto.Error {
	return &capproto.Error{Code: capproto.CodeProtocol, Text: fmt.Sprintf(format, args...)}
}

// fatal is an error after which the conversation cannot go on, whatever its
// code.
type fatal struct{ e *capproto.Error }

func (f *fatal) Error() string { return f.e.Text }
func (f *fatal) Unwrap() error { return f.e }

var (
	errInternal = &capproto.Error{Code: capproto.CodeInternal, Text: "factotum failed; the administrator finds the reason in its log"}
	errGrace    = &capproto.Error{Code: capproto.CodeTimeout, Text: "the login took too long"}
)

// replyTime is how long a front end may take to make room for a reply.
const replyTime = 5 * time.Second

func (c *conversation) reply(m capproto.Msg) error {
	if err := c.wire.SetWriteDeadline(time.Now().Add(replyTime)); err != nil {
		return err
	}
	f := c.fresh
	c.fresh = nil
	if f == nil {
		return c.wire.Send(m)
	}
	// A line that does not drain makes the last one who closes it wait.
	defer c.leaving.Go(func() { f.Close() })
	return c.wire.Send(m, f)
}

// fail tells the front end of an error. It returns whether the conversation
// can go on.
func (c *conversation) fail(err error) bool {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
		return false
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.log.Warn("conversation ended: the front end stopped reading")
		return false
	}
	var e *capproto.Error
	if !errors.As(err, &e) {
		c.log.Error("conversation failed", "error", err.Error())
		e = errInternal
	}
	goesOn := false
	log := c.spoiled(e.Code)
	switch e.Code {
	case capproto.CodeProtocol:
		log.Event(status.Violation, "reason", e.Text)
	case capproto.CodeVersion:
		log.Warn("conversation ended: another version", "reason", e.Text)
	case capproto.CodeTimeout:
		log.Warn("conversation ended: timeout", "user", c.userInLog)
	case capproto.CodeLimit:
		// An open conversation keeps what it has.
		if goesOn = c.state&(open|become) != 0; !goesOn {
			log.Warn("conversation ended: limit", "user", c.userInLog, "reason", e.Text)
		}
	case capproto.CodeDenied, capproto.CodeAccount:
		goesOn = true
	}
	if f := (*fatal)(nil); errors.As(err, &f) {
		goesOn = false
	}
	return c.reply(e.Msg()) == nil && goesOn
}

// startWorker starts a worker. It has the terminal from then on.
func (c *conversation) startWorker() error {
	if err := c.startUp(); err != nil {
		return err
	}
	w, err := c.hire(c.gen.conf, c.log, c.tty, c.context)
	if err != nil {
		return c.workerFailed(err)
	}
	c.worker = w
	if c.tty != nil {
		c.tty.taken = true
	}
	return nil
}

// tell sends the worker a request.
func (c *conversation) tell(r pamwire.Request) error {
	if err := c.worker.Tell(r); err != nil {
		return c.workerFailed(err)
	}
	return nil
}

// await waits for the worker to say something. It fails when the worker, the
// front end or the time is gone before.
func (c *conversation) await() (pamwire.Event, error) {
	select {
	case e, ok := <-c.worker.Events():
		if !ok {
			return nil, c.workerFailed(errors.New("it has ended"))
		}
		return e, nil
	case <-c.grace.C:
		return nil, errGrace
	case err := <-c.gone:
		return nil, err
	}
}

// begin has the worker start its PAM transaction.
func (c *conversation) begin(b pamwire.Begin) error {
	b.ConfDir = c.gen.conf.PAMConfDir
	if err := c.tell(b); err != nil {
		return err
	}
	e, err := c.await()
	if err != nil {
		return err
	}
	begun, ok := e.(pamwire.Begun)
	if !ok {
		return c.unexpected(e)
	}
	if begun.LogName != "" {
		c.userInLog = begun.LogName
	}
	if b.Take != (begun.TTY != nil) {
		return c.workerFailed(errors.New("it has a fresh terminal where none was wanted, or none"))
	}
	c.fresh = begun.TTY
	return nil
}

// prompt passes on what PAM says to the person.
func (c *conversation) prompt(p pamwire.Prompt) *capproto.Msg {
	c.question = p.Style.Question()
	m := capproto.NewMsg(capproto.VerbOK, "style", string(p.Style), "text", p.Text)
	return &m
}

// unexpected is the error of a worker that says what it should not, or that it
// has failed.
func (c *conversation) unexpected(e pamwire.Event) error {
	if f, ok := e.(pamwire.Failed); ok {
		c.log.Event(status.WorkerFailed, "user", c.userInLog, "error", f.Text)
		return &fatal{&capproto.Error{Code: capproto.CodeInternal, Text: f.Text}} // which is for the person
	}
	return c.workerFailed(fmt.Errorf("it says %T in state %s", e, c.state))
}

// workerFailed logs why the worker is of no more use. It returns what the front end is told.
func (c *conversation) workerFailed(err error) error {
	c.log.Event(status.WorkerFailed, "user", c.userInLog, "error", err.Error())
	return &fatal{&capproto.Error{Code: capproto.CodeInternal, Text: "authentication failed: the PAM worker crashed; try again"}}
}

// dropWorker ends the worker. One that has a session goes on, and is counted
// among the sessions.
func (c *conversation) dropWorker() {
	if w := c.worker; w != nil {
		c.worker = nil
		w.Abandon()
		if c.session == nil {
			c.leaving.Go(func() { discard(w.Events()) })
		}
	}
	c.dropFresh()
	c.question = false
}

// setTTY takes a terminal, or none.
func (c *conversation) setTTY(t *tty) {
	if c.tty != nil && !c.tty.taken {
		c.tty.f.Close()
	}
	c.tty = t
}

func (c *conversation) ttyName() string {
	if c.tty == nil {
		return c.line
	}
	return c.tty.name
}

// end frees what the conversation had. A session that is open goes on.
func (c *conversation) end() {
	c.wire.Close()
	if c.sender != nil {
		c.core.caps.revoke(c.sender.Uid, c.given)
	}
	if c.proto != nil {
		c.proto.end()
	}
	if c.state&(open|become) == 0 {
		c.dropWorker()
	}
	c.stays.end()
	c.hangUp()
	c.setTTY(nil)
}

// leave frees the places of a conversation that has ended when its workers have gone:
// otherwise they could be had without end, by beginning and leaving again.
func (c *conversation) leave() {
	c.leaving.Wait()
	c.place.leave()
	c.startup.leave()
}
