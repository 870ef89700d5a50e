// Package daemon is the factotum process, but for its command line: the socket,
// the conversations, what may be asked in which state, the capabilities and the
// sessions.
//
// It runs as root, and is where what strangers send is judged. It believes the
// kernel and its workers, never the front end.
//
// The files, from the bottom up, each of which uses only those before it:
//
//	fault, log, syslog, tty, socket, caphash_*, pammodules   what factotum needs of the system
//	hostkeys, netns, generation                              the configuration at one moment
//	worker, sessions, places, capabilities, handover,        what is shared, with its locks
//	workerproc
//	conversation, strangers                                  one conversation: state, worker, replies; its limits
//	turns, local                                             those who are logged in: their limits, what they share
//	pam; ssh, sshuser, sshpam, sshproof; localsu; opened     the protocols, and what follows them
//	verbs                                                    the table of what may be asked when
//	serve, server, daemon                                    who is served
package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/status"
	"p9auth/internal/privs"
)

// Check finds out whether the configuration in file can work, without starting.
// It writes to warn what works, and should be otherwise.
func Check(file string, warn io.Writer) error {
	conf, err := config.Read(file)
	if err != nil {
		return err
	}
	gen, err := newGeneration(conf, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if gen.ssh != nil {
		for _, why := range gen.ssh.unused {
			fmt.Fprintf(warn, "factotum: warning: left out: %v\n", why)
		}
	}
	for _, why := range traceable(conf) {
		fmt.Fprintf(warn, "factotum: warning: %s\n", why)
	}
	return nil
}

// Start makes the server, with the sockets that the service manager has given,
// and sets the log up as the configuration in file says. When it fails, it tells
// those who wait at a socket that was given.
func Start(file string) (*Server, error) {
	given, err := inherited()
	if err != nil {
		return nil, err
	}
	s, err := start(file, given)
	if err != nil {
		turnAway(given)
	}
	return s, err
}

func start(file string, given []*net.UnixListener) (*Server, error) {
	conf, err := config.Read(file)
	if err != nil {
		return nil, err
	}
	level := new(slog.LevelVar)
	level.Set(conf.LogLevel)
	log := newLogger(os.Stderr, level)
	slog.SetDefault(log)
	gen, err := newGeneration(conf, log)
	if err != nil {
		return nil, err
	}
	// The host keys are in its memory: no core, and nobody traces it.
	if err := privs.Undumpable(); err != nil {
		return nil, err
	}
	s := newServer(gen, log)
	s.file, s.level = file, level
	if err := s.open(given); err != nil {
		s.Close()
		return nil, err
	}
	warnOfLost(conf, log)
	for _, why := range traceable(conf) {
		log.Warn("a front end can be traced", "reason", why)
	}
	log.Info("factotum is ready", "socket", conf.Socket, "backend", s.backend.name)
	return s, nil
}

// open takes what factotum needs: caphash first, then the sockets.
func (s *Server) open(given []*net.UnixListener) error {
	conf := s.gen.Load().conf
	b, err := openCapHash(conf, s.log, s.fail)
	if err != nil {
		return err
	}
	s.backend, s.caps.hash, s.caps.bind = *b, b.hash, b.bind
	if b.bind == nil {
		s.log.Warn(bindsNothing(conf.RequireBoundGrants))
	}
	if err := s.view(); err != nil {
		return err
	}
	s.lns, err = listeners(conf.Socket, given)
	return err
}

// Ending says in the log that a signal ends factotum.
func (s *Server) Ending(signal string) {
	s.log.Info("factotum ends; sessions go on", "signal", signal)
}

// Reload reads the configuration again, for the conversations that begin from
// here on. Where it is not good the old one stays, and the log says why.
func (s *Server) Reload() {
	err := s.reload()
	s.reloads.Count(err)
	if err != nil {
		s.log.Error("the configuration stays as it was", "error", err.Error())
		return
	}
	conf := s.gen.Load().conf
	s.level.Set(conf.LogLevel)
	warnOfLost(conf, s.log.Logger)
	s.log.Info("configuration read again")
}

func (s *Server) reload() error {
	conf, err := config.Read(s.file)
	if err != nil {
		return err
	}
	gen, err := newGeneration(conf, s.log.Logger)
	if err != nil {
		return err
	}
	if config.NeedsRestart(s.gen.Load().conf, conf) {
		return errors.New(config.NeedRestart)
	}
	s.gen.Store(gen)
	return nil
}

// ShowStatus is "factotum status": it prints what the running factotum says to w.
func ShowStatus(w io.Writer, file string) error {
	conf, err := config.Read(file)
	if err != nil {
		return err
	}
	if conf.StatusSocket == "" {
		return errors.New(file + " has StatusSocket none")
	}
	return status.Show(w, conf.StatusSocket)
}
