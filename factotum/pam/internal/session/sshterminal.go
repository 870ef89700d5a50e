package session

import (
	"fmt"
	"os"
	"time"

	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/factotum/pam/internal/records"
	"p9auth/internal/logindefs"
)

// A session by SSH opens terminals as long as it lasts. sshd(8) makes them the user's
// and records each, and so does the worker, which factotum tells of them.

// BeginTerminal gives a terminal to the user and records it. If last is not empty, it
// tells the user of their last login. The error is one of the terminal's owner and mode.
func (s *Session) BeginTerminal(line string, tty *os.File, now time.Time) (last string, err error) {
	err = share(tty, s.Account)
	l := s.note(line)
	l.BeginTerminal(now)
	defs, _ := logindefs.Read(logindefs.Path) // Open has complained
	last = l.Last(s.known, defs, now)
	s.known = l.BeforeBegin()
	if !s.PrintLast || s.silent != 0 {
		last = ""
	}
	return last, err
}

// EndTerminal records the end of a terminal.
func (s *Session) EndTerminal(line string, now time.Time) {
	if l, ok := s.terminals[line]; ok {
		delete(s.terminals, line)
		l.End(l.BeforeEnd(), now)
	}
}

// note notes a terminal until its end.
func (s *Session) note(line string) records.Login {
	if s.terminals == nil {
		s.terminals = map[string]records.Login{}
	}
	l := s.Login
	l.TTY = line
	s.terminals[line] = l
	return l
}

// share gives a terminal the owner, group and mode that sshd(8) does (sshpty.c,
// pty_setowner): write(1) and wall(1) reach it by the group tty, where there is one.
func share(tty *os.File, a *nss.Account) error {
	t, err := OpenTerminal(tty)
	if err != nil {
		return err
	}
	defer t.f.Close()
	o := pamwire.Owner{UID: a.UID, GID: a.GID, Mode: 0o600}
	gid, ok, err := nss.GroupID("tty")
	if err != nil {
		return fmt.Errorf("the group tty: %w", err)
	}
	if ok {
		o.GID, o.Mode = gid, 0o620
	}
	if t.owner == o {
		return nil
	}
	return t.set(o)
}
