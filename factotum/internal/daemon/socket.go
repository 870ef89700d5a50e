package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/sockets"
)

// The rpc socket. A service manager may give it (LISTEN_FDS, see
// sd_listen_fds(3)); then it is there before factotum and after it, and anyone
// who connects while factotum is restarted waits. Otherwise factotum makes it.

// inherited returns the sockets that the service manager has given.
func inherited() ([]*net.UnixListener, error) {
	all, err := sockets.Inherited()
	if err != nil {
		return nil, err
	}
	var list []*net.UnixListener
	for _, ln := range all {
		u, ok := ln.(*net.UnixListener)
		if !ok || u.Addr().Network() != "unixpacket" {
			err = fmt.Errorf("the service manager gave the socket %s, which is not of type SOCK_SEQPACKET (ListenSequentialPacket= in systemd.socket(5))", ln.Addr())
			break
		}
		if err = passCred(u); err != nil {
			break
		}
		list = append(list, u)
	}
	if err != nil {
		for _, ln := range all {
			ln.Close()
		}
		return nil, err
	}
	return list, nil
}

// listeners are the sockets to serve: those that were given, and one at path
// if it is not among them.
func listeners(path string, given []*net.UnixListener) ([]*net.UnixListener, error) {
	if slices.ContainsFunc(given, func(u *net.UnixListener) bool { return u.Addr().String() == path }) {
		return given, nil
	}
	ln, err := listen(path)
	if err != nil {
		return nil, err
	}
	return append(slices.Clone(given), ln), nil
}

// listen makes the rpc socket. A socket that nobody answers at is replaced.
func listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	addr := &net.UnixAddr{Name: path, Net: "unixpacket"}
	if c, err := net.DialUnix("unixpacket", nil, addr); err == nil {
		c.Close()
		return nil, fmt.Errorf("another factotum answers at %s, or the service manager does for it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.ListenUnix("unixpacket", addr)
	if err != nil {
		return nil, err
	}
	// Any user can connect; accept refuses those whose uid is not a front end.
	if err := os.Chmod(path, 0o666); err != nil {
		ln.Close()
		return nil, err
	}
	if err := passCred(ln); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// passCred has the kernel say who sends each packet. Accepted sockets inherit
// it, so the first packet has its sender too: since Linux 6.16 they do when
// somebody connects, so that a service manager has to set it as well.
func passCred(ln *net.UnixListener) error {
	raw, err := ln.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		}), err)
	}
	if err != nil {
		return fmt.Errorf("SO_PASSCRED: %w", err)
	}
	return nil
}

// turnAway tells those who wait at the sockets that were given that factotum
// cannot start. They would wait for nothing.
func turnAway(given []*net.UnixListener) {
	l := startLetGo()
	m := (&capproto.Error{Code: capproto.CodeInternal, Text: "factotum cannot start; the administrator finds the reason in its log"}).Msg()
	for _, ln := range given {
		ln.SetDeadline(time.Now().Add(100 * time.Millisecond))
		for {
			u, err := ln.AcceptUnix()
			if err != nil {
				break
			}
			c := capproto.NewConn(u, capproto.MaxRequest)
			c.Send(m)
			l.wire(c)
		}
		ln.Close()
	}
}
