package listener

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
)

// maxSockets is how many sockets the listener listens on; sshd has 16.
const maxSockets = 64

// inherited returns the TCP sockets that the service manager listens on for us,
// or none.
func inherited() ([]*net.TCPListener, error) {
	passed, err := sockets.Inherited()
	if err != nil {
		return nil, err
	}
	var list []*net.TCPListener
	for _, s := range passed {
		t, ok := s.(*net.TCPListener)
		if !ok {
			return nil, fmt.Errorf("the service manager passed the socket %s, which is not a TCP socket", s.Addr())
		}
		list = append(list, t)
	}
	return list, nil
}

// addresses resolves what the configuration says to listen on.
func addresses(s *sshdconf.Listen) ([]netip.AddrPort, error) {
	network := map[sshdconf.Family]string{sshdconf.FamilyInet: "ip4", sshdconf.FamilyInet6: "ip6"}[s.AddressFamily]
	if network == "" {
		network = "ip"
	}
	var list []netip.AddrPort
	seen := map[netip.AddrPort]bool{}
	for _, h := range s.Addresses() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		addrs, err := hostsOnly.LookupNetIP(ctx, network, h.Host)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("ListenAddress %s: %w", h, err)
		}
		for _, a := range addrs {
			if a = a.Unmap(); a.Is4() && network == "ip6" || a.Is6() && network == "ip4" {
				continue
			}
			ap := netip.AddrPortFrom(a, uint16(h.Port))
			if !seen[ap] {
				seen[ap] = true
				list = append(list, ap)
			}
		}
	}
	if len(list) > maxSockets {
		return nil, fmt.Errorf("%d addresses to listen on, at most %d are possible", len(list), maxSockets)
	}
	return list, nil
}

// hostsOnly resolves by /etc/hosts alone: the listener may have rights yet, and
// never reads from the network.
var hostsOnly = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("a name must be in /etc/hosts, as the listener asks no name server")
}}

// bind opens a listening socket.
func bind(a netip.AddrPort) (*net.TCPListener, error) {
	network := "tcp6"
	if a.Addr().Is4() {
		network = "tcp4"
	}
	lc := net.ListenConfig{KeepAlive: -1} // see setKeepAlive
	lc.SetMultipathTCP(false)
	s, err := lc.Listen(context.Background(), network, a.String())
	if err != nil {
		if errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("bind to port %d on %s failed: Permission denied: "+
				"start by socket activation or as root, or lower net.ipv4.ip_unprivileged_port_start", a.Port(), a.Addr())
		}
		return nil, fmt.Errorf("bind to port %d on %s failed: %w", a.Port(), a.Addr(), err)
	}
	return s.(*net.TCPListener), nil
}

// A stream is a client's connection: of TCP, or one of unix(7).
type stream interface {
	net.Conn
	File() (*os.File, error)
}

// stdinConn takes the connection on standard input (inetd), and puts /dev/null
// in its place. What is no TCP connection (pipes, a socket of another kind) comes
// through a relay, as a client whose address is not known.
func (l *listener) stdinConn() (stream, error) {
	if sameFile(0, 2) {
		return nil, errors.New("-i: standard error is the connection too: say with -E where to log")
	}
	c, err := net.FileConn(os.Stdin)
	s, ok := c.(*net.TCPConn)
	if err != nil || !ok {
		return l.relayStdin()
	}
	return s, discardStdin()
}

// relayStdin moves what comes on standard input and goes to standard output, unread,
// from and to the connection that it returns.
func (l *listener) relayStdin() (stream, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "relay")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			return nil, err
		}
		ends[i] = c.(*net.UnixConn)
	}
	var files [2]*os.File
	for i := range files {
		fd, err := unix.FcntlInt(uintptr(i), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		files[i] = os.NewFile(uintptr(fd), "standard input or output")
	}
	go func() {
		io.Copy(ends[0], files[0])
		ends[0].CloseWrite()
	}()
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		io.Copy(files[1], ends[0])
		ends[0].Close()
	}()
	return ends[1], discardStdin()
}

// discardStdin puts /dev/null in the place of standard input and output.
func discardStdin() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for _, fd := range []int{0, 1} {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}

func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}
