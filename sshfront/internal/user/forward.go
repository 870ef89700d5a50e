package user

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/internal/sshdconf"
	"p9auth/internal/words"
)

// reserved is the first port that every user may listen on, whatever the
// kernel says.
const reserved = 1024

// mayForward says whether a kind of forwarding is permitted at all.
func (i *Info) mayForward(permitted bool) error {
	opt := i.options()
	if !permitted || i.Settings.DisableForwarding || !opt.PortForwarding {
		return prohibited("forwarding is not permitted")
	}
	return nil
}

// mayDial says whether the user may have us connect to a TCP port.
func (i *Info) mayDial(host string, port int) error {
	if err := i.mayForward(i.Settings.AllowTcpForwarding.Local()); err != nil {
		return err
	}
	opt := i.options()
	key := sshdconf.Permits{List: opt.PermitOpen}
	if !i.Settings.PermitOpen.AllowsOpen(host, port) || !key.AllowsOpen(host, port) {
		return prohibited("connecting to %.255s port %d is not permitted", host, port)
	}
	return nil
}

// mayListen says whether the user may have us listen on a TCP port.
func (i *Info) mayListen(host string, port int) error {
	if err := i.mayForward(i.Settings.AllowTcpForwarding.Remote()); err != nil {
		return err
	}
	opt := i.options()
	key := sshdconf.Permits{List: opt.PermitListen}
	if !i.Settings.PermitListen.AllowsListen(host, port) || !key.AllowsListen(host, port) {
		return prohibited("listening on %.255s port %d is not permitted", host, port)
	}
	if port != 0 && port < reserved && i.UID != 0 {
		return prohibited("port %d is reserved", port)
	}
	return nil
}

// mayListenUnix says whether the user may have us listen on a unix socket. A
// list of ports to listen on means only those.
func (i *Info) mayListenUnix() error {
	if err := i.mayForward(i.Settings.AllowStreamLocalForwarding.Remote()); err != nil {
		return err
	}
	opt := i.options()
	if l := i.Settings.PermitListen; l.None || len(l.List) > 0 || len(opt.PermitListen) > 0 {
		return prohibited("listening is permitted on certain ports only")
	}
	return nil
}

// bindHosts says where to listen for a forward of the host that the client
// named: channels.c, channel_fwd_bind_addr.
func bindHosts(host string, g sshdconf.Gateway, f sshdconf.Family) []string {
	loopback, wildcard := []string{"127.0.0.1", "::1"}, []string{"0.0.0.0", "::"}
	switch f {
	case sshdconf.FamilyInet:
		loopback, wildcard = loopback[:1], wildcard[:1]
	case sshdconf.FamilyInet6:
		loopback, wildcard = loopback[1:], wildcard[1:]
	}
	switch {
	case g == sshdconf.GatewayYes:
		return wildcard
	case g == sshdconf.GatewayClientSpecified && (host == "" || host == "*"):
		return wildcard
	case g == sshdconf.GatewayClientSpecified && host != "localhost":
		return []string{host}
	case host == "127.0.0.1" || host == "::1":
		return []string{host}
	}
	return loopback
}

// dial answers the verb: RFC 4254 section 7.2.
func (s *server) dial(r request) (answer, error) {
	host := r.Get("host")
	port, err := parsePort(r.Msg)
	if err == nil {
		err = s.info.mayDial(host, port)
	}
	if err != nil {
		return answer{}, err
	}
	network := "tcp"
	switch s.info.Settings.AddressFamily {
	case sshdconf.FamilyInet:
		network = "tcp4"
	case sshdconf.FamilyInet6:
		network = "tcp6"
	}
	d := net.Dialer{KeepAlive: -1}
	d.SetMultipathTCP(false)
	c, err := d.Dial(network, net.JoinHostPort(host, strconv.Itoa(port)))
	return connected(c, err)
}

// dialUnix answers the verb: PROTOCOL of OpenSSH, section 2.4.
func (s *server) dialUnix(r request) (answer, error) {
	if err := s.info.mayForward(s.info.Settings.AllowStreamLocalForwarding.Local()); err != nil {
		return answer{}, err
	}
	c, err := net.Dial("unix", socketPath(r.Get("path")))
	return connected(c, err)
}

// socketPath makes a path absolute, since Go has abstract sockets begin with @.
func socketPath(path string) string { return filepath.Join("/", path) }

// connected is the answer that hands over a connection, or says what failed in
// the kernel's words.
func connected(c net.Conn, err error) (answer, error) {
	if err != nil {
		var e syscall.Errno
		if errors.As(err, &e) {
			err = e
		}
		return answer{}, failed("%s", words.Clip(err.Error(), 255))
	}
	defer c.Close()
	f, err := descriptor(c)
	if err != nil {
		return answer{}, err
	}
	return answer{files: []*os.File{f}}, nil
}

// descriptor duplicates a connection's descriptor and leaves it in
// non-blocking mode, which File of package net would not.
func descriptor(c net.Conn) (f *os.File, err error) {
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := rc.Control(func(fd uintptr) {
		var n int
		if n, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3); err == nil {
			f = os.NewFile(uintptr(n), "socket")
		}
	})
	if cerr != nil {
		return nil, cerr
	}
	return f, err
}

// A listener is what listen, listen-unix, agent and x11 make. Connections wait
// in the kernel until accept asks for them.
type listener struct {
	sockets []net.Listener
	single  bool     // one connection, then no more
	x11     *display // of x11, else nil

	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func newListener(sockets ...net.Listener) *listener {
	l := &listener{sockets: sockets, accepted: make(chan net.Conn), closed: make(chan struct{})}
	for _, s := range sockets {
		go func() {
			for {
				c, err := s.Accept()
				if err != nil {
					if errors.Is(err, net.ErrClosed) {
						return
					}
					select {
					case <-l.closed:
						return
					case <-pause(): // out of descriptors, most likely
						continue
					}
				}
				select {
				case l.accepted <- c:
				case <-l.closed:
					c.Close()
					return
				}
			}
		}()
	}
	return l
}

func (l *listener) close() {
	l.once.Do(func() {
		close(l.closed)
		for _, s := range l.sockets {
			s.Close()
		}
	})
}

// add registers a listener, or closes it.
func (s *server) add(id uint32, l *listener) error {
	err := keep(s, id, s.listeners, l, maxListeners)
	if err != nil {
		l.close()
	}
	return err
}

// listenTCP listens on the hosts, on one port; 0 takes any that is free. It
// succeeds if one of the hosts does, unless the port of another is in use.
func listenTCP(hosts []string, port int) (ls []net.Listener, got int, err error) {
	for range 8 {
		ls, got, err = tryListenTCP(hosts, port)
		// What is free for one host need not be for the next.
		if port != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return ls, got, err
}

func tryListenTCP(hosts []string, port int) ([]net.Listener, int, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	var out []net.Listener
	var first error
	for _, h := range hosts {
		network := "tcp"
		switch {
		case strings.Contains(h, ":"):
			network = "tcp6"
		case net.ParseIP(h) != nil:
			network = "tcp4"
		}
		l, err := lc.Listen(context.Background(), network, net.JoinHostPort(h, strconv.Itoa(port)))
		if err != nil {
			if first == nil {
				first = err
			}
			if errors.Is(err, syscall.EADDRINUSE) {
				break
			}
			continue
		}
		out = append(out, l)
		port = l.Addr().(*net.TCPAddr).Port
	}
	if len(out) == 0 || errors.Is(first, syscall.EADDRINUSE) {
		for _, l := range out {
			l.Close()
		}
		return nil, 0, first
	}
	return out, port, nil
}

// listen answers the verb: RFC 4254 section 7.1.
func (s *server) listen(r request) (answer, error) {
	host := r.Get("host")
	port, err := parsePort(r.Msg)
	if err == nil {
		err = s.info.mayListen(host, port)
	}
	if err != nil {
		return answer{}, err
	}
	ls, port, err := listenTCP(bindHosts(host, s.info.Settings.GatewayPorts, s.info.Settings.AddressFamily), port)
	if err != nil {
		return answer{}, failed("%v", err)
	}
	return answer{attrs: []string{"port", utoa(port)}}, s.add(r.id, newListener(ls...))
}

// listenUnix answers the verb: PROTOCOL of OpenSSH, section 2.4.
func (s *server) listenUnix(r request) (answer, error) {
	if err := s.info.mayListenUnix(); err != nil {
		return answer{}, err
	}
	path := socketPath(r.Get("path"))
	if s.info.Settings.StreamLocalBindUnlink {
		os.Remove(path)
	}
	l, err := s.bindUnix(path, s.info.Settings.StreamLocalBindMask)
	if err != nil {
		return answer{}, failed("%v", err)
	}
	return answer{}, s.add(r.id, newListener(l))
}

// bindUnix listens on a unix socket made under a umask.
func (s *server) bindUnix(path string, mask uint32) (net.Listener, error) {
	s.forks.Lock()
	defer s.forks.Unlock()
	defer unix.Umask(unix.Umask(int(mask)))
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}

// agent answers the verb. The socket is the connection's; every session that
// begins later has its name.
func (s *server) agent(r request) (answer, error) {
	opt := s.info.options()
	if !s.info.Settings.AllowAgentForwarding || s.info.Settings.DisableForwarding || !opt.AgentForwarding {
		return answer{}, prohibited("agent forwarding is not permitted")
	}
	s.mu.Lock()
	have := s.agentPath != ""
	s.mu.Unlock()
	if have {
		return answer{}, failed("the agent is forwarded already")
	}
	dir, err := os.MkdirTemp("/tmp", "ssh-")
	if err != nil {
		return answer{}, err
	}
	path := fmt.Sprintf("%s/agent.%d", dir, os.Getpid())
	l, err := s.bindUnix(path, 0o177)
	if err != nil {
		os.Remove(dir)
		return answer{}, err
	}
	if err := s.add(r.id, newListener(l)); err != nil {
		os.Remove(dir)
		return answer{}, err
	}
	s.mu.Lock()
	s.agentPath = path
	s.remove = append(s.remove, dir)
	s.mu.Unlock()
	return answer{}, nil
}

// accept answers the verb.
func (s *server) accept(r request) (answer, error) {
	l, err := object(s, r, "listener", s.listeners)
	if err != nil {
		return answer{}, err
	}
	select {
	case c := <-l.accepted:
		if l.single {
			l.close()
		}
		a, err := connected(c, nil)
		if t, ok := c.RemoteAddr().(*net.TCPAddr); ok && err == nil {
			ap := t.AddrPort()
			a.attrs = []string{"host", ap.Addr().Unmap().String(), "port", utoa(int(ap.Port()))}
		}
		return a, err
	case <-l.closed:
		return answer{}, errNoSuch
	}
}

// cancel answers the verb.
func (s *server) cancel(r request) (answer, error) {
	l, err := object(s, r, "listener", s.listeners)
	if err != nil {
		return answer{}, err
	}
	l.close()
	id, _ := parseUint(r.Msg, "listener")
	s.mu.Lock()
	delete(s.listeners, id)
	s.mu.Unlock()
	return answer{}, nil
}
