package main

import (
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// A conv is one conversation: a connection from a front end. All of it runs
// in one goroutine, run.
type conv struct {
	s    *server
	conf config
	conn *capproto.Conn
	peer *unix.Ucred // who made the connection
	log  *slog.Logger

	sender    *unix.Ucred // who sends the packets
	service   string      // the PAM service of that front end
	state     state
	tries     int
	userTyped string
	rhost     string
	tty       *tty
	user      *person
	worker    *worker
	caps      []capproto.Hash

	reading  bool           // a read waits for its answer
	question bool           // the front end owes an answer
	queue    []capproto.Msg // what the worker said while nobody read
}

// A person is who was proven to be there.
type person struct {
	name   string
	uid    uint32
	groups []uint32
	info   capproto.Msg // what the worker said on opening the session
}

// errLater says that the answer comes later.
var errLater = errors.New("later")

// maxQueue bounds what a chatty module may say while nobody reads.
const maxQueue = 256

// run carries on the conversation until one side ends it.
func (c *conv) run() {
	c.state = idle
	defer c.end()
	requests := make(chan capproto.Packet)
	gone := make(chan error, 1)
	quit := make(chan struct{})
	defer close(quit)
	go func() {
		for {
			p, err := c.conn.Recv()
			if err != nil {
				gone <- err
				return
			}
			select {
			case requests <- p:
			case <-quit:
				p.Close()
				return
			}
		}
	}()
	grace := time.NewTimer(c.conf.LoginGraceTime)
	defer grace.Stop()
	for {
		var said <-chan capproto.Msg
		if c.worker != nil {
			said = c.worker.said
		}
		var err error
		select {
		case p := <-requests:
			err = c.request(p)
		case m, ok := <-said:
			if ok {
				err = c.heard(m)
			} else if c.state != open {
				err = c.workerFailed(errors.New("it has ended"))
			} else {
				c.worker = nil // the session is somebody else's business now
			}
		case <-grace.C:
			if c.state != open {
				err = &capproto.Error{Code: capproto.CodeTimeout, Text: "the login took too long"}
			}
		case err := <-gone:
			if !errors.Is(err, io.EOF) {
				c.fail(violation("%v", err))
			}
			return
		}
		if err != nil && !c.fail(err) {
			return
		}
	}
}

// request answers one packet, now or later.
func (c *conv) request(p capproto.Packet) error {
	defer p.Close()
	if c.reading {
		return violation("%s while a read waits", p.Verb)
	}
	m, err := c.answer(p)
	switch {
	case err == nil:
		return c.conn.Send(m)
	case errors.Is(err, errLater):
		return c.flush()
	}
	return err
}

// heard queues what the worker says.
func (c *conv) heard(m capproto.Msg) error {
	if len(c.queue) >= maxQueue {
		return c.workerFailed(errors.New("it says too much"))
	}
	c.queue = append(c.queue, m)
	return c.flush()
}

// flush answers a waiting read with the next thing that the worker said.
func (c *conv) flush() error {
	if !c.reading || len(c.queue) == 0 {
		return nil
	}
	m := c.queue[0]
	c.queue = c.queue[1:]
	c.reading = false
	switch {
	case m.Verb == "prompt":
		style := capproto.Style(m.Get("style"))
		c.question = style.Question()
		return c.conn.Send(capproto.NewMsg(capproto.VerbOK, "style", string(style), "text", m.Get("text")))
	case m.Verb == capproto.VerbDone && c.state == talking:
		c.user = &person{name: m.Get("user")}
		c.state = proven
		c.log.Info("user authenticated", "user", c.user.name, "rhost", c.rhost, "tty", c.ttyName())
		return c.conn.Send(capproto.NewMsg(capproto.VerbDone))
	case m.Verb == "opened" && c.state == opening:
		if err := c.opened(m); err != nil {
			return c.workerFailed(err)
		}
		c.state = open
		c.log.Info("session opened", "user", c.user.name, "to", c.user.uid, "tty", c.ttyName(), "rhost", c.rhost, "worker", c.worker.pid())
		return c.conn.Send(capproto.NewMsg(capproto.VerbDone))
	case m.Verb == capproto.VerbError:
		return c.refused(&capproto.Error{Code: m.Get("code"), Text: m.Get("text")})
	}
	return c.workerFailed(errors.New("it says " + m.Verb + " in state " + c.state.String()))
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
	c.worker.opened(m)
	return nil
}

// refused passes on the worker's verdict. The front end may try again.
func (c *conv) refused(e *capproto.Error) error {
	attrs := []any{"user", c.userTyped, "reason", e.Text, "code", e.Code, "rhost", c.rhost, "tty", c.ttyName(), "attempt", c.tries}
	c.log.Warn("login refused", attrs...)
	c.dropWorker()
	if c.state == opening || e.Code == capproto.CodeInternal {
		return e
	}
	c.state, c.user = idle, nil
	return c.conn.Send(e.Msg())
}

// workerFailed logs why the worker is of no more use and returns what the
// front end is told.
func (c *conv) workerFailed(err error) error {
	c.log.Error("the PAM worker failed", "user", c.userTyped, "error", err.Error())
	return &capproto.Error{Code: capproto.CodeInternal, Text: "authentication broke off: the PAM worker failed; try again"}
}

// fail tells the front end of an error. It returns whether the conversation
// can go on.
func (c *conv) fail(err error) bool {
	var e *capproto.Error
	if !errors.As(err, &e) {
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
			return false
		}
		c.log.Error("conversation failed", "error", err.Error())
		e = &capproto.Error{Code: capproto.CodeInternal, Text: "factotum failed; the administrator finds the reason in its log"}
	}
	switch e.Code {
	case capproto.CodeProtocol:
		c.log.Warn("conversation ended: protocol violation", "reason", e.Text)
	case capproto.CodeTimeout:
		c.log.Warn("conversation ended: timeout", "user", c.userTyped)
	case capproto.CodeLimit:
		// An open conversation keeps what it has.
		if c.state == open {
			return c.conn.Send(e.Msg()) == nil
		}
		c.log.Warn("conversation ended: limit", "reason", e.Text)
	case capproto.CodeDenied, capproto.CodeAccount:
		return c.conn.Send(e.Msg()) == nil
	}
	c.conn.Send(e.Msg())
	return false
}

// end frees what the conversation had. A session that is open goes on.
func (c *conv) end() {
	c.conn.Close()
	if c.sender != nil {
		c.s.revoke(c.sender.Uid, c.caps)
	}
	if c.state != open {
		c.dropWorker()
	}
	c.setTTY(nil)
}

func (c *conv) dropWorker() {
	if c.worker != nil {
		c.worker.abandon()
		c.worker = nil
	}
	c.queue, c.question = nil, false
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
