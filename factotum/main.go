// Factotum is the only privileged daemon of p9auth. It authenticates people,
// through PAM workers that it starts, and gives the front ends capabilities
// to become them.
//
// It runs as root, in the foreground. It listens on the rpc socket (package
// capproto has the protocol; verbs.go has the table of what may be asked
// when), writes the hashes of capabilities to caphash, and serves the
// capability files (internal/capfs) where the kernel has none.
//
// It trusts the kernel: who a peer is (SO_PEERCRED, SCM_CREDENTIALS), what a
// descriptor is (fstat), whether a process lives (pidfds). It trusts its
// workers' verdicts, and nothing that a front end says. It loads no PAM module
// and runs no user's code.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

const usage = `usage: factotum [-t] [-f file]
       factotum [-f file] status
       factotum -c dir

  -f file   read the configuration from file (default ` + defaultConfig + `)
  -t        check the configuration and exit
  status    print what the running factotum is doing, as root
  -c dir    only serve the capability files at dir, for trying them from a
            shell: another process of root's may open caphash, see capuse(4)
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(os.Stdout, usage)
			return
		}
		fmt.Fprintf(os.Stderr, "factotum: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fl := flag.NewFlagSet("factotum", flag.ContinueOnError)
	fl.SetOutput(io.Discard)
	file := fl.String("f", defaultConfig, "")
	test := fl.Bool("t", false, "")
	caps := fl.String("c", "", "")
	if err := fl.Parse(args); err != nil {
		return fmt.Errorf("%w; see factotum(8)", err)
	}
	if fl.NArg() == 1 && fl.Arg(0) == "status" && !*test && *caps == "" {
		return showStatus(*file)
	}
	if fl.NArg() > 0 {
		return fmt.Errorf("%q is not expected; see factotum(8)", fl.Arg(0))
	}
	if *caps != "" && fl.NFlag() > 1 {
		return errors.New("-c goes with no other option; see factotum(8)")
	}
	if *caps != "" {
		return serveCaps(*caps)
	}
	if *test {
		conf, err := readConfig(*file)
		if err != nil {
			return err
		}
		return check(conf)
	}
	given, err := inherited()
	if err != nil {
		return err
	}
	s, level, err := start(*file, given)
	if err != nil {
		turnAway(given)
		return err
	}
	defer s.close()
	return s.run(*file, level)
}

// start makes the server, and sets the log up as the configuration says.
func start(file string, given []*net.UnixListener) (*server, *slog.LevelVar, error) {
	conf, err := readConfig(file)
	if err != nil {
		return nil, nil, err
	}
	if err := check(conf); err != nil {
		return nil, nil, err
	}
	level := new(slog.LevelVar)
	level.Set(conf.LogLevel)
	log := newLogger(os.Stderr, level)
	slog.SetDefault(log)
	// The host keys are in its memory: no core, and nobody traces it.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("prctl(PR_SET_DUMPABLE): %w", err)
	}
	s, err := newServer(conf, given, log.Handler())
	return s, level, err
}

// run serves until a signal ends it.
func (s *server) run(file string, level *slog.LevelVar) error {
	log, conf := s.log, s.conf
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	failed := make(chan error, 1)
	go func() { failed <- s.serve() }()
	warnOfLost(conf, log)
	log.Info("factotum is ready", "socket", conf.Socket, "backend", backend)
	daemon.SdNotify(false, daemon.SdNotifyReady)

	for {
		select {
		case err := <-failed:
			return err
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				daemon.SdNotify(false, daemon.SdNotifyStopping)
				log.Info("factotum ends; sessions go on", "signal", sig.String())
				return nil
			}
			daemon.SdNotify(false, daemon.SdNotifyReloading)
			if c, err := readConfig(file); err != nil {
				log.Error("the configuration stays as it was", "error", err.Error())
			} else if err := s.reload(c); err != nil {
				log.Error("the configuration stays as it was", "error", err.Error())
			} else {
				level.Set(c.LogLevel)
				warnOfLost(c, log)
				log.Info("configuration read again")
			}
			daemon.SdNotify(false, daemon.SdNotifyReady)
		}
	}
}

// check finds out whether a configuration can work, without starting.
func check(c config) error {
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
