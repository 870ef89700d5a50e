package conversation

import (
	"errors"
	"log/slog"
	"os"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
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
	s.Root = r.Root
	opened, lastLogin, err := s.Open()
	if err != nil {
		c.end()
		return c.report(err)
	}
	if lastLogin != "" {
		// If nobody listens any more, saying opened fails too.
		c.say(pamwire.Prompt{Style: capproto.Info, Text: pamwire.Fit(lastLogin, pamwire.MaxText)})
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
	s := c.session(r.PID, files[0])
	s.Adopt()
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

// serve waits for the end of the session's process and closes the session. factotum
// may be gone by then, and need not hear of it.
func (c *Conversation) serve(s *session.Session) {
	s.Wait()
	if err := c.say(pamwire.Closing{}); err != nil {
		slog.Debug("factotum is gone", "error", err.Error())
	}
	c.closing = true
	s.Close()
	c.end()
	c.say(pamwire.Closed{})
}
