package daemon

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
)

// A conv is one conversation: a connection from a front end. All of it runs
// in one goroutine, run, which answers one request after the other.
type conv struct {
	s    *Server
	conf config.Config
	conn *capproto.Conn
	peer *unix.Ucred // who made the connection
	log  *slog.Logger

	requests chan capproto.Packet
	gone     chan error // why no more requests come
	grace    *time.Timer
	leaving  sync.WaitGroup // workers that were told to end, and who reads requests

	sender    *unix.Ucred    // who sends the packets
	front     config.Binding // what that front end may do
	heard     bool           // there was a request
	first     bool           // this is the first one
	state     state
	tries     int
	userInLog string // as the log may have it: a name may be a password typed too early
	rhost     string
	tty       *tty
	user      *person
	worker    *worker
	question  bool          // the front end owes an answer
	held      *capproto.Msg // what the worker said and nobody has read yet
	caps      []capproto.Hash
	noCaps    bool     // a capability was refused, and that is in the log
	ssh       *sshConv // of an SSH connection, or nil
}

// A person is who was proven to be there.
type person struct {
	name   string
	uid    uint32
	groups []uint32
	info   capproto.Msg    // what the worker said on opening the session
	ssh    []capproto.Attr // what authinfo says of an ssh login
}

// maxQueue bounds what a chatty module may say while nobody reads.
const maxQueue = 256

// run carries on the conversation until one side ends it.
func (c *conv) run() {
	c.state = idle
	defer c.end()
	c.requests = make(chan capproto.Packet)
	c.gone = make(chan error, 1)
	quit := make(chan struct{})
	defer close(quit)
	c.leaving.Go(func() {
		defer c.conn.Wait()
		for {
			p, err := c.conn.Recv()
			if err != nil {
				c.gone <- err
				return
			}
			select {
			case c.requests <- p:
			case <-quit:
				p.Close()
				return
			}
		}
	})
	c.grace = time.NewTimer(c.conf.LoginGraceTime)
	defer c.grace.Stop()
	for {
		var err error
		select {
		case p := <-c.requests:
			err = c.request(p)
		case <-c.grace.C:
			if c.state&(open|spent) == 0 {
				err = errGrace
			}
		case err := <-c.gone:
			// net.ErrClosed: factotum itself has closed, as it ends.
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				c.fail(violation("%v", err))
			}
			return
		}
		if err != nil && !c.fail(err) {
			return
		}
	}
}

var errGrace = &capproto.Error{Code: capproto.CodeTimeout, Text: "the login took too long"}

// request answers one packet.
func (c *conv) request(p capproto.Packet) error {
	defer p.Close()
	m, err := c.answer(p)
	if err != nil {
		return err
	}
	return c.reply(m)
}

// replyTime is how long a front end may take to make room for a reply.
const replyTime = 5 * time.Second

func (c *conv) reply(m capproto.Msg) error {
	if err := c.conn.Unix().SetWriteDeadline(time.Now().Add(replyTime)); err != nil {
		return err
	}
	return c.conn.Send(m)
}

// await waits for the worker to say something. It fails when the worker, the
// front end or the time is gone before.
func (c *conv) await() (capproto.Msg, error) {
	if m := c.held; m != nil {
		c.held = nil
		return *m, nil
	}
	select {
	case m, ok := <-c.worker.said:
		if !ok {
			return m, c.workerFailed(errors.New("it has ended"))
		}
		return m, nil
	case <-c.grace.C:
		return capproto.Msg{}, errGrace
	case err := <-c.gone:
		return capproto.Msg{}, err
	}
}

// tell sends the worker a request.
func (c *conv) tell(m capproto.Msg) error {
	if err := c.worker.conn.Send(m); err != nil {
		return c.workerFailed(err)
	}
	return nil
}

// prompt passes on what the worker says to the person.
func (c *conv) prompt(m capproto.Msg) capproto.Msg {
	style := capproto.Style(m.Get("style"))
	c.question = style.Question()
	return capproto.NewMsg(capproto.VerbOK, "style", string(style), "text", m.Get("text"))
}

// opened reads who the user is from the worker's words.
func (c *conv) opened(m capproto.Msg) error {
	name := m.Get("user")
	if name != c.user.name {
		return errors.New("it opened a session for " + name)
	}
	uid, err := strconv.ParseUint(m.Get("uid"), 10, 32)
	if err != nil {
		return err
	}
	c.user.uid = uint32(uid)
	for g := range strings.SplitSeq(m.Get("groups"), ",") {
		gid, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return err
		}
		c.user.groups = append(c.user.groups, uint32(gid))
	}
	c.user.info = m
	return nil
}

// refused passes on the worker's verdict. The front end may try again.
func (c *conv) refused(m capproto.Msg) error {
	e := &capproto.Error{Code: m.Get("code"), Text: m.Get("text")}
	c.log.Warn("login refused", "user", c.userInLog, "reason", e.Text, "code", e.Code, "rhost", c.rhost, "tty", c.ttyName(), "attempt", c.tries)
	c.dropWorker()
	if c.state == opening || e.Code == capproto.CodeInternal {
		return &fatal{e}
	}
	c.state, c.user = idle, nil
	return e
}

// workerFailed logs why the worker is of no more use and returns what the
// front end is told.
func (c *conv) workerFailed(err error) error {
	c.log.Error("the PAM worker failed", "user", c.userInLog, "error", err.Error())
	return &capproto.Error{Code: capproto.CodeInternal, Text: "authentication broke off: the PAM worker failed; try again"}
}

// fatal is an error after which the conversation cannot go on, whatever its
// code.
type fatal struct{ e *capproto.Error }

func (f *fatal) Error() string { return f.e.Text }
func (f *fatal) Unwrap() error { return f.e }

// fail tells the front end of an error. It returns whether the conversation
// can go on.
func (c *conv) fail(err error) bool {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return false
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.log.Warn("conversation ended: the front end does not read")
		return false
	}
	var e *capproto.Error
	if !errors.As(err, &e) {
		c.log.Error("conversation failed", "error", err.Error())
		e = &capproto.Error{Code: capproto.CodeInternal, Text: "factotum failed; the administrator finds the reason in its log"}
	}
	goesOn := false
	switch e.Code {
	case capproto.CodeProtocol:
		c.log.Warn("conversation ended: protocol violation", "reason", e.Text)
	case capproto.CodeTimeout:
		c.log.Warn("conversation ended: timeout", "user", c.userInLog)
	case capproto.CodeLimit:
		// An open conversation keeps what it has.
		if goesOn = c.state == open; !goesOn {
			c.log.Warn("conversation ended: limit", "reason", e.Text)
		}
	case capproto.CodeDenied, capproto.CodeAccount:
		goesOn = true
	}
	if f := (*fatal)(nil); errors.As(err, &f) {
		goesOn = false
	}
	return c.reply(e.Msg()) == nil && goesOn
}

// end frees what the conversation had. A session that is open goes on.
func (c *conv) end() {
	c.conn.Close()
	if c.sender != nil {
		c.s.revoke(c.sender.Uid, c.caps)
	}
	if c.ssh != nil && c.ssh.ticket != nil {
		c.s.dropTicket(c.ssh.ticket)
	}
	if c.state != open {
		c.dropWorker()
	}
	c.setTTY(nil)
}

func (c *conv) dropWorker() {
	if w := c.worker; w != nil {
		w.abandon()
		if w.leader == nil { // else it is counted among the sessions
			c.leaving.Go(func() {
				for range w.said {
				}
			})
		}
		c.worker = nil
	}
	c.held, c.question = nil, false
}

func (c *conv) setTTY(t *tty) {
	if c.tty != nil && (c.worker == nil || c.worker.tty != c.tty) {
		c.tty.f.Close()
	}
	c.tty = t
}

func (c *conv) ttyName() string {
	if c.tty == nil {
		return ""
	}
	return c.tty.name
}
