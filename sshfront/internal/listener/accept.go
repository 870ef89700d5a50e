package listener

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/sshlog"
)

// accept takes connections from one socket until it is closed.
func (l *listener) accept(s *net.TCPListener) {
	var b sockets.Backoff
	for {
		c, err := s.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, unix.ECONNABORTED):
			continue
		case err != nil:
			if b.Wait() {
				sshlog.Printf(sshdconf.LogError, "accept: %v", err)
			}
			continue
		}
		b.Reset()
		if !l.take(c) {
			return
		}
	}
}

// take lets a connection in or drops it. It returns false when no other is to
// follow (-d).
func (l *listener) take(c stream) bool {
	defer c.Close()
	remote, local := sockets.AddrPort(c.RemoteAddr()), sockets.AddrPort(c.LocalAddr())
	if !remote.IsValid() || !local.IsValid() {
		sshlog.Printf(sshdconf.LogInfo, "Connection closed: the kernel has no address of it any more")
		return true
	}
	l.mu.Lock()
	p, ok := l.limits.admit(remote, local)
	if !ok {
		l.mu.Unlock()
		c.Write([]byte("Not allowed at this time\r\n")) // does not block: the socket is new
		return true
	}
	conn := &child{
		l: l, remote: remote, local: local, place: p, early: true,
		began: time.Now(), grace: l.conf.LoginGraceTime, served: make(chan struct{}),
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
		sshlog.Printf(sshdconf.LogError, "no process for the connection from %s: %v", sockets.HostPort(remote), err)
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
func (l *listener) serveInetd(c stream, signals <-chan os.Signal) error {
	l.once = true
	l.take(c)
	for {
		select {
		case <-l.ended:
			l.mu.Lock()
			defer l.mu.Unlock()
			if !l.login {
				return ErrNoLogin
			}
			return nil
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				return nil
			}
		}
	}
}

// spawn starts this program in one of its modes, in a session of its own, with
// files from descriptor 3 on. The first argument is there for ps(1). What the process
// writes to its standard error is relayed. The caller holds the listener's lock.
func (c *child) spawn(mode string, files ...*os.File) (*os.Process, error) {
	said, say, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer say.Close()
	process, err := os.StartProcess("/proc/self/exe", []string{"sshfront: " + sockets.Host(c.remote.Addr()), mode}, &os.ProcAttr{
		Dir:   "/",
		Env:   c.l.env,
		Files: append([]*os.File{c.l.null, c.l.null, say}, files...),
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		said.Close()
		return nil, err
	}
	if mode == "connection" {
		c.said = said
	}
	c.relay(mode, process.Pid, said)
	return process, nil
}

// relay has what a process says logged. The caller holds the listener's lock.
func (c *child) relay(mode string, pid int, said *os.File) {
	r := c.relayOf(mode, pid)
	c.l.wg.Add(1)
	go func() {
		defer c.l.wg.Done()
		r.run(said)
	}()
}
