package conversation

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/log"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/factotum/pam/internal/session"
)

// openSession opens the session, waits for its process to end, and closes it.
func (c *Conversation) openSession(r pamwire.OpenSession, files []*os.File) error {
	if c.account == nil || c.tx == nil {
		return c.report(outOfTurn(r))
	}
	c.opening = true
	s := c.session(r.PID, files[0])
	s.Credentials, c.delegated = c.delegated, session.Credentials{}
	s.Root, s.Groups, s.Display = r.Root, r.Groups, session.Display{Name: r.Display, Authority: r.XAuthority}
	opened, err := s.Open()
	if err != nil {
		c.end()
		return c.report(err)
	}
	if err := c.say(opened); err != nil {
		s.Close()
		c.end()
		return c.report(err)
	}
	c.serve(s)
	return nil
}

// adopt takes over the session of a worker that has died.
func (c *Conversation) adopt(r pamwire.Adopt, files []*os.File) error {
	if c.tx != nil {
		return c.report(outOfTurn(r))
	}
	if (len(files) > 1) != (r.Owner != nil) {
		return c.report(errors.New("adopt: a terminal has an owner"))
	}
	if len(files) > 1 {
		var err error
		if c.terminal, err = session.OpenTerminal(files[1]); err != nil {
			return c.report(err)
		}
		c.terminal.GiveBackTo(*r.Owner)
	}
	c.opening = true
	err := c.transaction(pamwire.Begin{Service: r.Service, User: r.User, TTY: r.TTY, RHost: r.RHost, ConfDir: r.ConfDir, Env: r.Env})
	if err != nil {
		return c.report(err)
	}
	if c.account, err = nss.Lookup(r.User); err != nil {
		return c.report(err)
	}
	c.pamUser = r.User
	c.login.Local = r.Local
	s := c.session(r.PID, files[0])
	s.Adopt(r.Lines, r.Cache)
	c.serve(s)
	return nil
}

// session is the session of a process.
func (c *Conversation) session(pid int, pidfd *os.File) *session.Session {
	l := c.login
	l.User, l.UID, l.PID = c.account.Name, c.account.UID, pid
	return &session.Session{
		Transaction: c.tx, Account: c.account, PAMUser: c.pamUser, Terminal: c.terminal, PIDFD: pidfd,
		Login: l, PrintLast: c.lastLog, SetGroups: c.setGroups,
	}
}

// serve waits for the end of the session's process and closes the session. Meanwhile
// it records the terminals that factotum tells it of. factotum may be gone before the
// end, and need not hear of it.
func (c *Conversation) serve(s *session.Session) {
	for heard := c.descriptor(); !s.Wait(heard); {
		if err := c.terminalOf(s); err != nil {
			heard = -1 // factotum is gone
		}
	}
	c.say(pamwire.Closing{})
	c.closing = true
	s.Close()
	c.end()
	if c.say(pamwire.Closed{}) != nil {
		// factotum, which would log it, has ended or was started anew since.
		log.Info("session closed", "user", c.account.Name, "service", c.login.Service)
	}
}

// descriptor is that of the socket to factotum, or -1.
func (c *Conversation) descriptor() int {
	n := -1
	if raw, err := c.conn.Socket().SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { n = int(fd) })
	}
	return n
}

// terminalOf answers one request about a terminal of the session.
func (c *Conversation) terminalOf(s *session.Session) error {
	r, files, err := c.receive()
	if err != nil {
		return err
	}
	defer closeAll(files)
	switch r := r.(type) {
	case pamwire.BeginTerminal:
		last, err := s.BeginTerminal(r.Line, files[0], time.Now())
		if err != nil {
			log.Warn("a terminal is not the user's as sshd would make it", "line", r.Line, "error", err.Error())
		}
		return c.say(pamwire.Recorded{Last: pamwire.Fit(last, pamwire.MaxText)})
	case pamwire.Signal:
		if !c.login.Local {
			break
		}
		unix.PidfdSendSignal(int(files[0].Fd()), unix.Signal(r.Number), nil, 0) // the process may have ended
		return c.say(pamwire.Recorded{})
	case pamwire.EndTerminal:
		s.EndTerminal(r.Line, time.Now())
		return c.say(pamwire.Recorded{})
	}
	return outOfTurn(r)
}
