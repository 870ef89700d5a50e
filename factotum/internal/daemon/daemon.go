// Package daemon is the factotum process, but for its command line: the socket,
// the conversations, what may be asked in which state, the capabilities and the
// sessions.
//
// It runs as root and is the one package that a stranger's bytes reach in that
// process, by package capproto. It believes the kernel and its workers, never
// the front end.
package daemon

import (
	"fmt"
	"log/slog"
	"net"
	"os"

	"p9auth/factotum/internal/config"
	"p9auth/internal/privs"
)

// Check finds out whether the configuration in file can work, without starting.
func Check(file string) error {
	conf, err := config.Read(file)
	if err != nil {
		return err
	}
	return check(conf)
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
	if err := check(conf); err != nil {
		return nil, err
	}
	level := new(slog.LevelVar)
	level.Set(conf.LogLevel)
	log := newLogger(os.Stderr, level)
	slog.SetDefault(log)
	// The host keys are in its memory: no core, and nobody traces it.
	if err := privs.Undumpable(); err != nil {
		return nil, err
	}
	s, err := newServer(conf, given, log.Handler())
	if err != nil {
		return nil, err
	}
	s.file, s.level = file, level
	return s, nil
}

// Serve accepts conversations until the server is closed or fails.
func (s *Server) Serve() error {
	warnOfLost(s.conf, s.log)
	s.log.Info("factotum is ready", "socket", s.conf.Socket, "backend", backend)
	return s.serve()
}

// Ending says in the log that a signal ends factotum.
func (s *Server) Ending(signal string) {
	s.log.Info("factotum ends; sessions go on", "signal", signal)
}

// Reload reads the configuration again. Where it is not good the old one stays,
// and the log says why.
func (s *Server) Reload() {
	c, err := config.Read(s.file)
	if err == nil {
		err = s.reload(c)
	}
	if err != nil {
		s.log.Error("the configuration stays as it was", "error", err.Error())
		return
	}
	s.level.Set(c.LogLevel)
	warnOfLost(c, s.log)
	s.log.Info("configuration read again")
}

// check finds out whether a configuration can work, without starting.
func check(c config.Config) error {
	if _, err := lookupFrontEnds(c); err != nil {
		return err
	}
	if _, err := loadSSH(c, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	programs := []string{c.PAMWorker}
	if backend == "fuse" {
		programs = append(programs, c.Become)
	}
	for _, p := range programs {
		st, err := os.Stat(p)
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
			return fmt.Errorf("%s is not a program", p)
		}
	}
	return nil
}
