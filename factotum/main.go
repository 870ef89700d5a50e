// Factotum is the only privileged daemon of p9auth. It authenticates people,
// through PAM workers that it starts, and gives the front ends capabilities
// to become them.
//
// It runs as root, in the foreground. It listens on the rpc socket (package
// capproto has the grammar, p9auth-rpc(7) the protocol, internal/daemon/verbs.go
// the table of what may be asked when), writes the hashes of capabilities to
// caphash, and serves the capability files (internal/capfs) where the kernel
// has none.
//
// It trusts the kernel: who a peer is (SO_PEERCRED, SCM_CREDENTIALS), what a
// descriptor is (fstat), whether a process lives (pidfds). It trusts its
// workers' verdicts, and nothing that a front end says. It loads no PAM module
// and runs no user's code.
//
// This file has the command line, the signals and what the service manager is
// told; internal/daemon has the rest.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/daemon"
	"p9auth/factotum/internal/rights"
	"p9auth/internal/sys"
	_ "p9auth/internal/undumpable" // the host keys are in its memory
	"p9auth/internal/version"
)

const usage = `usage: factotum [-t] [-f file]
       factotum [-f file] status
       factotum serve-caps dir
       factotum -V

  -f file         read the configuration from file (default ` + config.DefaultFile + `)
  -t              check the configuration and exit
  -V              print the version and exit
  status          print what the running factotum is doing, as root
  serve-caps dir  only serve the capability files at dir, for trying them from
                  a shell: another root process can open caphash, see capuse(4).
                  -c dir does the same
`

// spareThreads is how many system calls that take long there are at once, at most: see
// sys.KeepThreads.
const spareThreads = 24

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
	file := fl.String("f", config.DefaultFile, "")
	test := fl.Bool("t", false, "")
	caps := fl.String("c", "", "")
	showVersion := fl.Bool("V", false, "")
	if err := fl.Parse(args); err != nil {
		return fmt.Errorf("%w; see factotum(8)", err)
	}
	verb := fl.Arg(0)
	switch {
	case *showVersion:
		_, err := fmt.Print(version.Text("factotum", version.Library))
		return err
	case *caps != "" && (fl.NFlag() > 1 || verb != ""):
		return errors.New("-c goes with no other option; see factotum(8)")
	case *caps != "":
		return serveCaps(*caps)
	case verb == "serve-caps" && fl.NArg() == 2 && fl.NFlag() == 0:
		return serveCaps(fl.Arg(1))
	case verb == "status" && fl.NArg() == 1 && !*test:
		return daemon.ShowStatus(os.Stdout, *file)
	case verb != "":
		return fmt.Errorf("%q is not expected; see factotum(8)", verb)
	case *test:
		return daemon.Check(*file, os.Stderr)
	}
	// Before factotum says in the log that it is ready: SIGHUP would end it.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	s, err := daemon.Start(*file)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := rights.Enter(slog.Default(), s.Device()); err != nil {
		return fmt.Errorf("give up rights: %w", err)
	}
	if err := sys.KeepThreads(spareThreads); err != nil {
		return err
	}
	return serve(s, signals)
}

// serve serves until a signal ends it: SIGHUP has the configuration read again,
// SIGTERM and SIGINT end factotum, and not the sessions.
func serve(s *daemon.Server, signals <-chan os.Signal) error {
	failed := make(chan error, 1)
	go func() { failed <- s.Serve() }()
	sd.SdNotify(false, sd.SdNotifyReady)
	if err := watchdog(s); err != nil {
		return err
	}
	for {
		select {
		case err := <-failed:
			return err
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				sd.SdNotify(false, sd.SdNotifyStopping)
				s.Ending(sig.String())
				return nil
			}
			sd.SdNotify(false, sd.SdNotifyReloading)
			s.Reload()
			sd.SdNotify(false, sd.SdNotifyReady)
		}
	}
}

// watchdog tells the service manager that factotum serves, if it wants to know, twice
// in the time that it gives: WatchdogSec in systemd.service(5).
func watchdog(s *daemon.Server) error {
	within, err := sd.SdWatchdogEnabled(true)
	if err != nil {
		return fmt.Errorf("the service manager's watchdog: %w", err)
	}
	if within > 0 {
		go s.KeepAlive(within/2, func() { sd.SdNotify(false, sd.SdNotifyWatchdog) }, nil)
	}
	return nil
}

// serveCaps serves the capability files, and nothing else, until a signal ends
// it.
func serveCaps(dir string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	unmount, err := daemon.MountCaps(dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "factotum: serving caphash and capuse at %s\n", dir)
	<-signals
	return unmount()
}
