// Package session opens a PAM session for a process that has no part in it, and
// closes it when that process ends.
//
// pam_open_session(3) changes the process that calls it: limits, groups, umask,
// control groups. That is the worker. Open finds out what has changed and gives it
// to the session's process, or describes what that process has to set itself. It
// runs in the PAM worker, as root, and believes factotum that the pidfd is the
// pid's, and PAM's modules.
package session

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/msteinert/pam/v2"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/log"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/factotum/pam/internal/records"
	"p9auth/internal/logindefs"
	"p9auth/internal/loginshell"
)

// A Transaction is what a session needs of PAM's transaction.
type Transaction interface {
	SetCred(pam.Flags) error
	OpenSession(pam.Flags) error
	CloseSession(pam.Flags) error
	GetEnvList() (map[string]string, error)
	PutEnv(string) error
}

// A Session is a PAM session. Open it, or Adopt one that is open; then Wait and
// Close.
type Session struct {
	Transaction Transaction
	Account     *nss.Account
	PAMUser     string    // PAM_USER: see package nss
	Terminal    *Terminal // or nil
	PIDFD       *os.File  // of the session's process
	Login       records.Login
	PrintLast   bool              // the user is told of their last login
	SetGroups   func([]int) error // unix.Setgroups, but in tests
	Root        string            // ChrootDirectory of sshd_config(5), or ""
	Groups      []string          // in place of the account's, the primary one first
	Display     Display           // of the caller of su
	Credentials Credentials       // that a client of GSSAPI has delegated

	silent    pam.Flags
	keyring   shared
	known     records.Before           // the session's modules
	terminals map[string]records.Login // that are recorded, by their lines
	cache     string                   // the file of credentials that is removed at the end, or ""
}

// Open opens the session and records it. A pamwire.Refused error is PAM's no.
func (s *Session) Open() (o pamwire.Opened, err error) {
	defs, err := logindefs.Read(logindefs.Path)
	if err != nil {
		log.Warn("some settings are not used", "error", err.Error())
	}
	groups, err := s.groups()
	if err == nil {
		err = s.becomeGroups(groups)
	}
	if no := (pamwire.Refused{}); errors.As(err, &no) {
		return o, no
	} else if err != nil {
		return o, s.cannotGive(err)
	}
	before, err := readEffects()
	if err != nil {
		return o, err
	}
	origin, err := readOrigin()
	if err != nil {
		return o, err
	}
	s.known = s.Login.BeforeBegin()
	if !s.Login.Local && lookHome(s.Account, before.gids, defs).hush {
		s.silent = pam.Silent
	}
	s.storeCredentials()
	if err := s.Transaction.SetCred(pam.EstablishCred | s.silent); err != nil {
		s.removeCredentials()
		return o, s.refused(err)
	}
	if err := s.openSession(); err != nil {
		s.Transaction.SetCred(pam.DeleteCred | s.silent)
		s.removeCredentials()
		return o, s.refused(err)
	}
	// From here on the session must be closed, whatever happens.
	if o, err = s.opened(before, origin, defs); err != nil {
		s.Close()
		return o, err
	}
	s.Login.Begin(s.known, time.Now())
	return o, nil
}

// groups are those that the worker gets, and the user then: the account's, or those
// that root has named, of which the first is the primary one.
func (s *Session) groups() ([]uint32, error) {
	if len(s.Groups) == 0 {
		return s.Account.Groups()
	}
	var gids []uint32
	for _, name := range s.Groups {
		gid, ok, err := nss.GroupID(name)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, pamwire.Refused{Code: capproto.CodeAccount, Text: fmt.Sprintf("group %s does not exist", name)}
		}
		gids = append(gids, gid)
	}
	s.Account.GID = gids[0]
	return gids, nil
}

// becomeGroups gives the worker the user's groups, which modules add to.
func (s *Session) becomeGroups(gids []uint32) error {
	list := make([]int, len(gids))
	for i, g := range gids {
		list[i] = int(g)
	}
	if err := s.SetGroups(list); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	return nil
}

// refused is PAM's no to the session.
func (s *Session) refused(err error) error {
	text := ""
	if s.Login.Local {
		text = "cannot open session: " + err.Error()
	}
	return Refusal(s.Login.Service, capproto.CodeAccount, text, err)
}

// Refusal is PAM's no as it is told to the person: in these words, or in PAM's if
// text is empty.
func Refusal(service, code, text string, err error) pamwire.Refused {
	if errors.Is(err, pam.ErrConv) || errors.Is(err, pam.ErrAbort) || errors.Is(err, pam.ErrSystem) {
		log.Warn("PAM broke off", "service", service, "error", err.Error())
	}
	if text == "" {
		text = err.Error()
	}
	return pamwire.Refused{Code: code, Text: pamwire.Fit(text, pamwire.MaxText)}
}

// opened gives the session's process what the modules gave this one, and
// describes the rest.
func (s *Session) opened(before effects, origin origin, defs logindefs.Defs) (o pamwire.Opened, err error) {
	a := s.Account
	o = pamwire.Opened{User: a.Name, PAMUser: s.PAMUser, UID: a.UID, GID: a.GID, Home: a.Home, Shell: a.Shell, Hush: s.silent != 0, Cache: s.cache}
	s.Transaction.SetCred(pam.ReinitializeCred | s.silent) // whose result does not count: sshd asks likewise
	after, err := readEffects()
	if err != nil {
		return o, err
	}
	// A module may have made the home directory.
	home := a.Home
	if h := lookHome(a, after.gids, defs); h.err != nil {
		o.NoHome, home = pamwire.Fit(h.err.Error(), pamwire.MaxText), "/"
	}
	if s.Login.TTY != records.SSHTTY {
		if o.NoHome != "" && !s.Login.Local && !defs.Bool("DEFAULT_HOME", true) {
			return o, pamwire.Refused{Code: capproto.CodeAccount, Text: fmt.Sprintf("no home directory %s: %s", a.Home, o.NoHome)}
		}
		o.Login = loginshell.Environment(defs, a.Name, a.UID, home, a.Shell)
	}
	o.Groups = after.groups(a.GID)
	after.describe(before, &o)
	if s.Root != "" {
		// Not before, since a module may have made it.
		if o.Root, err = root(s.Root, a); err != nil {
			log.Error("fatal: "+err.Error(), "user", a.Name)
			return o, pamwire.Refused{Code: capproto.CodeAccount, Text: pamwire.Fit(err.Error(), pamwire.MaxText)}
		}
	}
	if o.Env, err = s.env(); err != nil {
		return o, err
	}
	if o.Process, err = s.readProcess(origin); err != nil {
		return o, s.cannotGive(err)
	}
	if s.Login.Local {
		// The process is the caller's, and must have nothing of the user's.
		after.describeAll(before, &o)
		if err := s.lowerPriority(before, after); err != nil {
			return o, s.cannotGive(err)
		}
		return o, nil
	}
	if o.Limits, err = after.apply(before, s.Login.PID, s.ended); err != nil {
		return o, s.cannotGive(err)
	}
	if s.Terminal != nil {
		// The modules may have taken their time.
		if !s.Terminal.isOf(s.Login.PID) {
			return o, pamwire.Refused{Code: capproto.CodeAccount, Text: "the terminal was taken over by another process; log in again"}
		}
		if err := s.Terminal.give(a, defs); err != nil {
			return o, err
		}
	}
	return o, nil
}

// cannotGive refuses a session whose process does not get the groups or what the modules
// have set.
func (s *Session) cannotGive(err error) error {
	log.Error("the session's process does not get what the administrator has set", "user", s.Account.Name, "error", err.Error())
	return pamwire.Refused{Code: capproto.CodeAccount, Text: pamwire.Fit("what the administrator has set for your sessions cannot be set: "+err.Error(), pamwire.MaxText)}
}

// env is PAM's environment, which the modules made for the user, up to a bound.
func (s *Session) env() ([]string, error) {
	vars, err := s.Transaction.GetEnvList()
	if err != nil {
		return nil, fmt.Errorf("pam_getenvlist: %w", err)
	}
	var env []string
	size := 0
	for k, v := range vars {
		if k == "" {
			continue
		}
		if size += len(k) + len(v); size > pamwire.MaxEnvSize || len(env) == pamwire.MaxEnv {
			log.Warn("PAM's environment is too large; some of it is left out", "user", s.Account.Name)
			break
		}
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	return env, nil
}

// Adopt takes over a session that a worker which has died had opened, with the
// terminals that it had recorded, and the file of credentials to be removed, or "".
func (s *Session) Adopt(lines []string, cache string) {
	s.cache = cache
	for _, line := range lines {
		s.note(line)
	}
	if s.Terminal != nil {
		s.Terminal.isOf(s.Login.PID) // and does it lead the terminal's session?
	}
}

// Wait waits for the end of the session's process, or until there is something to be
// read from a descriptor, if that is not -1. It returns true at the end.
func (s *Session) Wait(fd int) (ended bool) {
	for {
		fds := []unix.PollFd{{Fd: int32(s.PIDFD.Fd()), Events: unix.POLLIN}, {Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, -1)
		switch {
		case n > 0:
			return fds[0].Revents != 0
		case err != nil && err != unix.EINTR:
			log.Error("poll the session's process", "error", err.Error())
			return true
		}
	}
}

// Close gives the terminal back, closes PAM's session and records that, in the
// order that pam_open_session(3) and pam_setcred(3) ask for.
func (s *Session) Close() {
	known := s.Login.BeforeEnd()
	if s.Terminal != nil {
		if err := s.Terminal.back(s.Account); err != nil && !errors.Is(err, unix.ENOENT) {
			log.Warn("the terminal is not given back", "error", err.Error())
		}
	}
	if err := s.Transaction.CloseSession(s.silent); err != nil {
		log.Warn("pam_close_session", "user", s.Account.Name, "error", err.Error())
	}
	s.Transaction.SetCred(pam.DeleteCred | s.silent) // modules that keep no credentials have none to delete
	s.removeCredentials()
	s.revokeKeyring()
	now := time.Now()
	for line := range s.terminals {
		s.EndTerminal(line, now)
	}
	s.Login.End(known, now)
}
