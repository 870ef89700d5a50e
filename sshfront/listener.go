package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/privs"
	"p9auth/internal/sshdconf"
)

// A listener is the listener process.
type listener struct {
	opts options
	env  []string // of the processes it starts
	null *os.File

	mu      sync.Mutex
	conf    *sshdconf.Settings
	config  *os.File // memfd with connConfig
	limits  *limits
	sockets map[netip.AddrPort]*net.TCPListener
	once    bool          // -d: take one connection only
	ended   chan struct{} // closed when the only connection is over

	wg sync.WaitGroup // of what runs for connections
}

// listen is the listener's life. It returns when a signal ends it.
func listen(o options, c *sshdconf.Config) error {
	conf := c.Global()
	if o.logFile != "" {
		if err := logTo(o.logFile); err != nil {
			return err
		}
	}
	setupLog(o.logLevel(conf), conf.LogVerbose)

	// This order is the point of the program: the sockets first, which may
	// need rights, then the rights go, then connections are taken.
	passed, err := inherited()
	if err != nil {
		return err
	}
	if err := closeOnExec(); err != nil {
		return err
	}
	l := &listener{
		opts: o, conf: conf, limits: newLimits(conf), env: childEnv(os.Environ()),
		sockets: map[netip.AddrPort]*net.TCPListener{}, ended: make(chan struct{}),
	}
	var inetd *net.TCPConn
	switch {
	case o.inetd:
		inetd, err = stdinConn()
	case len(passed) > 0:
		for _, s := range passed {
			l.sockets[addrPort(s.Addr())] = s
		}
	default:
		err = l.open(conf)
	}
	if err != nil {
		return err
	}
	if err := privs.DropTo(o.user); err != nil {
		return err
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
	l.once = o.debug > 0
	for a, s := range l.sockets {
		logf(sshdconf.LogInfo, "Server listening on %s port %d.", a.Addr(), a.Port())
		go l.accept(s)
	}
	defer l.writePid(conf.PidFile)()
	daemon.SdNotify(false, daemon.SdNotifyReady)
	for {
		select {
		case <-l.ended:
			return nil
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				daemon.SdNotify(false, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
				if err := l.reload(len(passed) > 0); err != nil {
					logf(sshdconf.LogError, "Received SIGHUP; the configuration stays as it was: %v", err)
				}
				daemon.SdNotify(false, daemon.SdNotifyReady)
				continue
			}
			daemon.SdNotify(false, daemon.SdNotifyStopping)
			logf(sshdconf.LogInfo, "Received signal %d; terminating.", sig)
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

// childEnv is what other processes get of our environment: how to log, the time
// zone, and the Go runtime's settings.
func childEnv(environ []string) []string {
	return slices.DeleteFunc(environ, func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return k != "JOURNAL_STREAM" && k != "TZ" && !strings.HasPrefix(k, "GO")
	})
}

// open opens the sockets that a configuration asks for and that are not open,
// and closes the others. As with sshd, one that opens is enough.
func (l *listener) open(conf *sshdconf.Settings) error {
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
			logf(sshdconf.LogVerbose, "%v", err)
		default:
			logf(sshdconf.LogError, "%v", err)
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
func (l *listener) setConfig(conf *sshdconf.Settings) error {
	c := connConfig{RPC: l.opts.rpc, Capuse: l.opts.capuse, Settings: *conf, LogLevel: l.opts.logLevel(conf), Debug: l.opts.debug}
	f, err := c.memfd()
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
	c, err := l.opts.parse()
	if err != nil {
		return err
	}
	conf := c.Global()
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.sockets
	if !passed {
		if err := l.open(conf); err != nil {
			return err
		}
	}
	if err := l.setConfig(conf); err != nil {
		return err
	}
	setupLog(l.opts.logLevel(conf), conf.LogVerbose)
	logf(sshdconf.LogInfo, "Received SIGHUP; configuration read again.")
	for a, s := range l.sockets {
		if old[a] == nil {
			logf(sshdconf.LogInfo, "Server listening on %s port %d.", a.Addr(), a.Port())
			go l.accept(s)
		}
	}
	return nil
}

// writePid writes PidFile. It returns what removes it.
func (l *listener) writePid(name string) (remove func()) {
	if name == "" || l.once {
		return func() {}
	}
	if err := os.WriteFile(name, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		logf(sshdconf.LogError, "Couldn't create pid file: %v", err)
		return func() {}
	}
	return func() { os.Remove(name) }
}

// accept takes connections from one socket until it is closed.
func (l *listener) accept(s *net.TCPListener) {
	var b backoff
	for {
		c, err := s.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, unix.ECONNABORTED):
			continue
		case err != nil:
			if b.wait() {
				logf(sshdconf.LogError, "accept: %v", err)
			}
			continue
		}
		b.reset()
		if !l.take(c) {
			return
		}
	}
}

// take lets a connection in or drops it. It returns false when no other is to
// follow (-d).
func (l *listener) take(c *net.TCPConn) bool {
	defer c.Close()
	remote, local := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	if !remote.IsValid() || !local.IsValid() {
		return true // it has gone already
	}
	l.mu.Lock()
	p, ok := l.limits.admit(remote, local)
	if !ok {
		l.mu.Unlock()
		c.Write([]byte("Not allowed at this time\r\n")) // does not block: the socket is new
		return true
	}
	conn := &connection{
		l: l, remote: remote, local: local, place: p, early: true,
		grace: l.conf.LoginGraceTime, served: make(chan struct{}),
	}
	once := l.once
	if once {
		for _, s := range l.sockets {
			s.Close()
		}
	}
	config := l.config
	// Starting under the lock keeps the memfd from being closed by a reload.
	err := conn.start(c, config)
	l.mu.Unlock()
	if err != nil {
		logf(sshdconf.LogError, "no process for the connection from %s port %d: %v", remote.Addr(), remote.Port(), err)
		conn.left()
	}
	if once {
		go func() {
			l.wg.Wait()
			close(l.ended)
		}()
	}
	return !once
}

// serveInetd serves the one connection that the process was started for.
func (l *listener) serveInetd(c *net.TCPConn, signals <-chan os.Signal) error {
	l.once = true
	l.take(c)
	for {
		select {
		case <-l.ended:
			return nil
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				return nil
			}
		}
	}
}

// A connection is one connection process, seen from the listener.
type connection struct {
	l             *listener
	remote, local netip.AddrPort
	place         place
	grace         time.Duration

	process *os.Process
	control *capproto.Conn
	served  chan struct{} // closed when the control socket is

	// Guarded by the listener's lock.
	early   bool // not authenticated: takes up its place
	timeout bool // LoginGraceTime is over

	session bool // has asked for its session process; serve's alone
}

// id is the connection in sshd's words.
func (c *connection) id() string {
	return fmt.Sprintf("connection from %s to %s", c.remote.Addr(), c.local.Addr())
}

// start starts the process. The caller closes the files.
func (c *connection) start(tcp *net.TCPConn, config *os.File) error {
	sock, err := tcp.File()
	if err != nil {
		return err
	}
	defer sock.Close()
	ours, theirs, err := socketpair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	if c.control, err = capproto.FileConn(ours, maxControl); err != nil {
		return err
	}
	c.process, err = c.l.spawn("connection", c.remote.Addr(), sock, theirs, config)
	if err != nil {
		c.control.Close()
		return err
	}
	logf(sshdconf.LogVerbose, "Connection from %s port %d on %s port %d", c.remote.Addr(), c.remote.Port(), c.local.Addr(), c.local.Port())
	c.l.wg.Add(2)
	go c.serve()
	go c.wait()
	return nil
}

// socketpair makes a SOCK_SEQPACKET pair, both ends close-on-exec.
func socketpair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "socketpair"), os.NewFile(uintptr(fds[1]), "socketpair"), nil
}

// spawn starts this program in one of its modes, in a session of its own, with
// files from descriptor 3 on. The first argument is there for ps(1).
func (l *listener) spawn(mode string, peer netip.Addr, files ...*os.File) (*os.Process, error) {
	return os.StartProcess("/proc/self/exe", []string{"sshfront: " + peer.String(), mode}, &os.ProcAttr{
		Dir:   "/",
		Env:   l.env,
		Files: append([]*os.File{l.null, l.null, os.Stderr}, files...),
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

// left gives the connection's place back. It returns false when that was done
// before.
func (c *connection) left() bool {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if !c.early {
		return false
	}
	c.early = false
	c.l.limits.done(c.place)
	return true
}

func (c *connection) isEarly() bool {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	return c.early
}

// wait waits for the process to end, ends it when LoginGraceTime is over, and
// says what its source is due.
func (c *connection) wait() {
	defer c.l.wg.Done()
	if c.grace > 0 {
		t := time.AfterFunc(c.grace, c.graceOver)
		defer t.Stop()
	}
	st, err := c.process.Wait()
	if err != nil {
		logf(sshdconf.LogError, "wait: %v", err)
	}
	// It may have said that it is authenticated, and then ended. Nobody else
	// should have the socket's other end, and nobody is waited for.
	c.control.Unix().SetReadDeadline(time.Now().Add(time.Second))
	<-c.served
	c.l.mu.Lock()
	early, timeout := c.early, c.timeout
	c.l.mu.Unlock()
	if early && st != nil {
		if o, offended := c.judge(st, timeout); offended {
			c.l.mu.Lock()
			c.l.limits.penalize(c.remote.Addr(), o)
			c.l.mu.Unlock()
		}
	}
	c.left()
}

// graceOver kills the process unless it has authenticated.
func (c *connection) graceOver() {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if c.early {
		c.timeout = true
		c.process.Kill()
	}
}

// judge logs how a process ended that has not authenticated.
func (c *connection) judge(st *os.ProcessState, timeout bool) (o offence, offended bool) {
	ws := st.Sys().(syscall.WaitStatus)
	pid := st.Pid()
	if timeout || ws.Exited() && ws.ExitStatus() == exitGrace {
		// The words of sshd before 9.8, which have the port.
		logf(sshdconf.LogInfo, "Timeout before authentication for %s port %d, pid = %d", c.remote.Addr(), c.remote.Port(), pid)
		return offenceGrace, true
	}
	if ws.Signaled() {
		level := sshdconf.LogDebug1
		crash := slices.Contains([]syscall.Signal{
			unix.SIGSEGV, unix.SIGBUS, unix.SIGTRAP, unix.SIGSYS, unix.SIGFPE, unix.SIGILL, unix.SIGABRT}, ws.Signal())
		if crash {
			level = sshdconf.LogError
		}
		logf(level, "session process %d for %s killed by signal %d", pid, c.id(), ws.Signal())
		return offenceCrash, crash
	}
	switch ws.ExitStatus() {
	case exitOK, exitFailure:
		logf(sshdconf.LogDebug3, "preauth child %d for %s exited with status %d", pid, c.id(), ws.ExitStatus())
		return 0, false
	case exitCrash:
		logf(sshdconf.LogError, "Session process %d unpriv child crash for %s", pid, c.id())
		return offenceCrash, true
	case exitAuthFail:
		logf(sshdconf.LogDebug1, "preauth child %d for %s exited after unsuccessful auth attempt", pid, c.id())
		return offenceAuthFail, true
	case exitInvalidUser:
		logf(sshdconf.LogDebug1, "preauth child %d for %s exited after auth attempt by invalid user", pid, c.id())
		return offenceInvalidUser, true
	case exitRefused:
		logf(sshdconf.LogDebug1, "preauth child %d for %s prohibited by RefuseConnection", pid, c.id())
		return offenceRefused, true
	}
	logf(sshdconf.LogDebug1, "preauth child %d for %s exited with status %d", pid, c.id(), ws.ExitStatus())
	return offenceNoAuth, true
}

// serve answers the process on the control socket: see control.go.
func (c *connection) serve() {
	defer c.l.wg.Done()
	defer close(c.served)
	defer c.control.Wait()
	defer c.control.Close()
	for {
		p, err := c.control.Recv()
		if err != nil {
			if errors.Is(err, capproto.ErrPacket) {
				c.violation(err)
			}
			return // it has ended
		}
		err = c.handle(p)
		p.Close()
		if err != nil {
			c.violation(err)
			return
		}
	}
}

// violation ends a process that does not keep to the protocol.
func (c *connection) violation(err error) {
	logf(sshdconf.LogError, "session process %d for %s broke the rules and is killed: %v", c.process.Pid, c.id(), err)
	c.process.Kill()
}

// handle does what one message asks for. An error is a violation.
func (c *connection) handle(p capproto.Packet) error {
	switch p.Verb {
	case ctlAuthenticated:
		if err := p.Only("user"); err != nil || len(p.Files) > 0 || p.Get("user") == "" {
			return errors.New("authenticated is not as it should be")
		}
		if !c.left() {
			return errors.New("authenticated twice")
		}
		logf(sshdconf.LogDebug1, "%s is authenticated as %s, pid = %d", c.id(), p.Get("user"), c.process.Pid)
		return nil
	case ctlSession:
		if c.isEarly() || c.session {
			return errors.New("session out of turn")
		}
		if len(p.Attrs) > 0 || len(p.Files) != 1 || !seqpacket(p.Files[0]) {
			return errors.New("session without a link")
		}
		c.session = true
		pid, err := c.startSession(p.Files[0])
		if err != nil {
			logf(sshdconf.LogError, "no session process for %s: %v", c.id(), err)
			c.control.Send(capproto.NewMsg(capproto.VerbError, "text", "the session process could not be started"))
			return nil
		}
		c.control.Send(capproto.NewMsg(capproto.VerbOK, "pid", strconv.Itoa(pid)))
		return nil
	}
	return fmt.Errorf("%s is no verb", p.Verb)
}

// startSession starts the session process, which outlives the connection
// process for as long as it wants.
func (c *connection) startSession(link *os.File) (pid int, err error) {
	c.l.mu.Lock()
	process, err := c.l.spawn("session", c.remote.Addr(), link, c.l.config)
	c.l.mu.Unlock()
	if err != nil {
		return 0, err
	}
	c.l.wg.Add(1)
	go func() {
		defer c.l.wg.Done()
		if _, err := process.Wait(); err != nil && !errors.Is(err, fs.ErrClosed) {
			logf(sshdconf.LogError, "wait: %v", err)
		}
	}()
	return process.Pid, nil
}

// seqpacket says whether a file is a unix socket of the kind that a link is.
func seqpacket(f *os.File) bool {
	rc, err := f.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	rc.Control(func(fd uintptr) {
		domain, err1 := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		kind, err2 := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
		ok = errors.Join(err1, err2) == nil && domain == unix.AF_UNIX && kind == unix.SOCK_SEQPACKET
	})
	return ok
}
