package user

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/sshfront/internal/userlink"
)

// maxListeners bounds what Listen, ListenUnix, ForwardAgent and ForwardX11 make.
const maxListeners = 256

// A listener is what Listen, ListenUnix, ForwardAgent and ForwardX11 make. Connections wait
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
func (u *userProcess) add(id uint32, l *listener) error {
	err := keep(u, id, u.listeners, l, maxListeners)
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

// listen answers the request: RFC 4254 section 7.1.
func (u *userProcess) listen(id uint32, r userlink.Listen) (userlink.Answer, error) {
	port, err := port(r.Port)
	if err == nil {
		err = u.info.mayListen(r.Host, port)
	}
	if err != nil {
		return userlink.Answer{}, err
	}
	ls, port, err := listenTCP(bindHosts(r.Host, u.info.Settings.GatewayPorts, u.info.Settings.AddressFamily), port)
	if err != nil {
		return userlink.Answer{}, userlink.Failedf("%v", err)
	}
	return userlink.Answer{Port: uint32(port)}, u.add(id, newListener(ls...))
}

// listenUnix answers the request: PROTOCOL of OpenSSH, section 2.4.
func (u *userProcess) listenUnix(id uint32, r userlink.ListenUnix) error {
	if err := u.info.mayListenUnix(); err != nil {
		return err
	}
	path := socketPath(r.Path)
	if u.info.Settings.StreamLocalBindUnlink {
		unix.Unlink(path) // os.Remove would take a directory, too
	}
	l, err := u.bindUnix(path, u.info.Settings.StreamLocalBindMask)
	if err != nil {
		return userlink.Failedf("%v", err)
	}
	return u.add(id, newListener(l))
}

// bindUnix listens on a unix socket made under a umask.
func (u *userProcess) bindUnix(path string, mask uint32) (net.Listener, error) {
	u.forks.Lock()
	defer u.forks.Unlock()
	defer unix.Umask(unix.Umask(int(mask)))
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}

// agent answers the request ForwardAgent. The socket is the connection's; every
// program that begins later has its name.
func (u *userProcess) agent(id uint32) error {
	opt := u.info.options()
	if u.info.Settings.MaxSessions == 0 || !u.info.Settings.AllowAgentForwarding || u.info.Settings.DisableForwarding || !opt.AgentForwarding {
		return userlink.Prohibitedf("agent forwarding is not permitted")
	}
	u.mu.Lock()
	have := u.agentPath != ""
	u.mu.Unlock()
	if have {
		return userlink.Failedf("the agent is forwarded already")
	}
	dir, err := os.MkdirTemp("/tmp", "ssh-")
	if err != nil {
		return err
	}
	path := fmt.Sprintf("%s/agent.%d", dir, os.Getpid())
	l, err := u.bindUnix(path, 0o177)
	if err != nil {
		os.Remove(dir)
		return err
	}
	if err := u.add(id, newListener(l)); err != nil {
		os.Remove(dir)
		return err
	}
	u.mu.Lock()
	u.agentPath = path
	u.remove = append(u.remove, dir)
	u.mu.Unlock()
	return nil
}

// accept answers the request.
func (u *userProcess) accept(r userlink.Accept) (userlink.Answer, error) {
	l, err := object(u, r.Listener, u.listeners)
	if err != nil {
		return userlink.Answer{}, err
	}
	select {
	case c := <-l.accepted:
		if l.single {
			l.close()
		}
		a, err := connected(c, nil)
		if t, ok := c.RemoteAddr().(*net.TCPAddr); ok && err == nil {
			ap := t.AddrPort()
			a.Host, a.Port = ap.Addr().Unmap().String(), uint32(ap.Port())
		}
		return a, err
	case <-l.closed:
		return userlink.Answer{}, userlink.ErrGone
	}
}

// cancel answers the request.
func (u *userProcess) cancel(r userlink.Cancel) error {
	l, err := object(u, r.Listener, u.listeners)
	if err != nil {
		return err
	}
	l.close()
	u.mu.Lock()
	delete(u.listeners, r.Listener)
	u.mu.Unlock()
	return nil
}
