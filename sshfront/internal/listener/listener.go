// Package listener is the listener process of sshfront. It runs as _sshfront.
// Started as root, it binds its sockets and becomes _sshfront, with no
// capabilities and no way back, before it reads from any socket. It accepts
// connections, limits them, and starts the connection processes and the
// redeemers. It never reads from the network.
//
// It trusts factotum and the kernel. It does not believe a connection process
// anything that could hurt another one: package control has all that they can
// say to each other. Its tables are bounded by MaxStartups and
// PerSourcePenalties.
package listener

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"p9auth/internal/privs"
	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
	"p9auth/sshfront/internal/control"
	"p9auth/sshfront/internal/sshlog"
)

// Options are what the command line says.
type Options struct {
	// Conf reads the configuration: at the start, and again at SIGHUP.
	Conf    func() (*sshdconf.Listen, error)
	User    string // to become when root has started us
	RPC     string // factotum's socket
	Capuse  string // see internal/capuse
	LogFile string // to use in place of standard error; empty: none
	Debug   int    // how many -d: above 0, one connection and then the end
	Quiet   bool
	Inetd   bool // serve the one connection on standard input
}

// ErrNoLogin is what Run returns when the one connection of Inetd has ended and nobody
// has logged in by it. sshd(8) exits with status 255 then.
var ErrNoLogin = errors.New("the connection has ended without a login")

// logLevel is what -d and -q make of the configuration's LogLevel.
func (o *Options) logLevel(s *sshdconf.Listen) sshdconf.LogLevel {
	switch {
	case o.Debug > 0:
		return sshdconf.LogDebug1 + sshdconf.LogLevel(o.Debug-1)
	case o.Quiet:
		return sshdconf.LogQuiet
	}
	return s.LogLevel
}

// spareThreads is how many system calls that take long there are at once, at most: see
// sys.KeepThreads. Processes are started one at a time.
const spareThreads = 16

// A listener is the listener process.
type listener struct {
	opts Options
	env  []string // of the processes it starts
	null *os.File

	mu       sync.Mutex
	conf     *sshdconf.Listen
	config   *os.File // memfd with control.Config
	limits   *limits
	sockets  map[netip.AddrPort]*net.TCPListener
	children map[*child]bool // that have not ended
	leaving  bool            // another process goes on with some of them
	once     bool            // -d: take one connection only
	login    bool            // somebody has logged in
	ended    chan struct{}   // closed when the only connection is over

	acceptors sync.WaitGroup // of what accepts connections
	wg        sync.WaitGroup // of what runs for connections
}

// Run is the listener's life. It returns when a signal ends it.
func Run(o Options) error {
	conf, err := o.Conf()
	if err != nil {
		return err
	}
	if o.LogFile != "" {
		if err := logTo(o.LogFile); err != nil {
			return err
		}
	}
	sshlog.Setup(o.logLevel(conf), conf.LogVerbose)

	// This order is the point of the program: the sockets first, which may
	// need rights, then the rights go, then connections are taken.
	passed, err := inherited()
	if err != nil {
		return err
	}
	if err := sys.CloseOnExec(); err != nil {
		return err
	}
	l := &listener{
		opts: o, conf: conf, limits: newLimits(conf), env: childEnv(os.Environ()),
		sockets: map[netip.AddrPort]*net.TCPListener{}, ended: make(chan struct{}), children: map[*child]bool{},
	}
	var inetd stream
	switch {
	case o.Inetd:
		inetd, err = l.stdinConn()
	case len(passed) > 0:
		for _, s := range passed {
			l.sockets[sockets.AddrPort(s.Addr())] = s
		}
	default:
		err = l.open(conf)
	}
	if err != nil {
		return err
	}
	if err := privs.DropTo(o.User); err != nil {
		return err
	}
	if inetd == nil {
		if err := sys.KeepThreads(spareThreads); err != nil {
			return err
		}
	}
	if l.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return err
	}
	if err := l.setConfig(conf); err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP)
	if inetd != nil {
		return l.serveInetd(inetd, signals)
	}
	l.once = o.Debug > 0
	for a, s := range l.sockets {
		sshlog.Printf(sshdconf.LogInfo, "Server listening on %s port %d.", a.Addr(), a.Port())
		l.acceptors.Go(func() { l.accept(s) })
	}
	l.writePid("", conf.PidFile)
	defer func() { l.writePid(l.conf.PidFile, "") }()
	daemon.SdNotify(false, daemon.SdNotifyReady)
	for {
		select {
		case <-l.ended:
			return nil
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				daemon.SdNotify(false, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
				if err := l.reload(len(passed) > 0); err != nil {
					sshlog.Printf(sshdconf.LogError, "Received SIGHUP; the configuration stays as it was: %v", err)
				}
				daemon.SdNotify(false, daemon.SdNotifyReady)
				continue
			}
			daemon.SdNotify(false, daemon.SdNotifyStopping)
			sshlog.Printf(sshdconf.LogInfo, "Received signal %d; terminating.", sig)
			if !l.once {
				l.bequeath()
			}
			if sig != syscall.SIGTERM {
				return fmt.Errorf("ended by %v; the sessions go on", sig)
			}
			return nil
		}
	}
}

// logTo makes a file standard error, also of the processes to come.
func logTo(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOCTTY, 0o600)
	if err != nil {
		return fmt.Errorf("-E: %w", err)
	}
	defer f.Close()
	if err := unix.Dup3(int(f.Fd()), 2, 0); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	return os.Unsetenv("JOURNAL_STREAM")
}

// childEnv is what other processes get of our environment, the time zone, and the Go
// runtime's settings, of which those that somebody has made for us are the last word.
func childEnv(environ []string) []string {
	ours := slices.DeleteFunc(environ, func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return k != "TZ" && !strings.HasPrefix(k, "GO")
	})
	return append(slices.Clone(sys.SmallRuntime), ours...)
}

// open opens the sockets that a configuration asks for and that are not open,
// and closes the others. As with sshd, one that opens is enough.
func (l *listener) open(conf *sshdconf.Listen) error {
	want, err := addresses(conf)
	if err != nil {
		return err
	}
	sockets := map[netip.AddrPort]*net.TCPListener{}
	for _, a := range want {
		s := l.sockets[a]
		if s == nil {
			s, err = bind(a)
		}
		switch {
		case s != nil:
			sockets[a] = s
		case errors.Is(err, unix.EAFNOSUPPORT):
			sshlog.Printf(sshdconf.LogVerbose, "%v", err)
		default:
			sshlog.Printf(sshdconf.LogError, "%v", err)
		}
	}
	if len(sockets) == 0 {
		return errors.New("cannot bind any address")
	}
	for a, s := range l.sockets {
		if sockets[a] == nil {
			s.Close()
		}
	}
	l.sockets = sockets
	return nil
}

// setConfig makes a configuration the one that counts for new connections.
func (l *listener) setConfig(conf *sshdconf.Listen) error {
	c := control.Config{RPC: l.opts.RPC, Capuse: l.opts.Capuse, TCPKeepAlive: conf.TCPKeepAlive,
		LogLevel: l.opts.logLevel(conf), LogVerbose: conf.LogVerbose, LogFixed: l.opts.Debug > 0 || l.opts.Quiet, Debug: l.opts.Debug > 0}
	f, err := c.Memfd()
	if err != nil {
		return err
	}
	if l.config != nil {
		l.config.Close()
	}
	l.config, l.conf, l.limits.conf = f, conf, conf
	return nil
}

// reload reads the configuration again. Connections are not touched; sockets
// that are wanted still stay open all along.
func (l *listener) reload(passed bool) error {
	conf, err := l.opts.Conf()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old, pidFile := l.sockets, l.conf.PidFile
	if !passed {
		if err := l.open(conf); err != nil {
			return err
		}
	}
	if err := l.setConfig(conf); err != nil {
		return err
	}
	sshlog.Setup(l.opts.logLevel(conf), conf.LogVerbose)
	l.writePid(pidFile, conf.PidFile)
	sshlog.Printf(sshdconf.LogInfo, "Received SIGHUP; configuration read again.")
	for a, s := range l.sockets {
		if old[a] == nil {
			sshlog.Printf(sshdconf.LogInfo, "Server listening on %s port %d.", a.Addr(), a.Port())
			l.acceptors.Go(func() { l.accept(s) })
		}
	}
	return nil
}

// writePid writes PidFile, after that of the configuration before has been removed: a
// restarted sshd(8), which is what a SIGHUP makes of it, writes it again too. Either
// name may be empty.
func (l *listener) writePid(old, name string) {
	if l.once {
		return
	}
	if old != "" {
		os.Remove(old)
	}
	if name == "" {
		return
	}
	if err := os.WriteFile(name, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		sshlog.Printf(sshdconf.LogError, "Couldn't create pid file: %v", err)
	}
}
