package daemon

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"p9auth/factotum/internal/config"
)

// networks are the network namespaces whose addresses are believed, each by the
// number that the kernel has given it for good (SO_NETNS_COOKIE, Linux 5.14). In a
// namespace of one's own anybody can connect from any address. nil: the kernel does
// not say of which one a socket is.
type networks []uint64

// loadNetworks finds the number of factotum's own namespace, and of those that
// NetworkNamespace names.
func loadNetworks(c config.Config, log *slog.Logger) (networks, error) {
	own, err := cookieHere()
	if err == unix.ENOPROTOOPT && len(c.NetworkNamespaces) == 0 {
		log.Warn("the kernel does not say of which network namespace a socket is, as Linux 5.14 does: a front end for ssh can lie about addresses")
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the number of the network namespace: %w", err)
	}
	nets := networks{own}
	for _, path := range c.NetworkNamespaces {
		n, err := cookieOf(path)
		if err != nil {
			return nil, fmt.Errorf("NetworkNamespace %s: %w", path, err)
		}
		nets = append(nets, n)
	}
	return nets, nil
}

// believe checks that a socket is of one of the namespaces.
func (n networks) believe(fd int) error {
	if n == nil {
		return nil
	}
	cookie, err := cookie(fd)
	if err != nil {
		return fmt.Errorf("the socket's network namespace: %w", err)
	}
	if !slices.Contains(n, cookie) {
		return fmt.Errorf("the connection is of a network namespace that is neither factotum's nor one that NetworkNamespace names")
	}
	return nil
}

// cookie is the number of a socket's network namespace. It does not take the
// socket's lock.
func cookie(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}

// cookieHere is the number of the calling thread's network namespace.
func cookieHere() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return cookie(fd)
}

// cookieOf is the number of the network namespace that a file stands for, such as
// /run/netns/NAME of ip-netns(8).
func cookieOf(path string) (n uint64, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is in the other namespace then, and ends with the goroutine.
		runtime.LockOSThread()
		if err = unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("setns: %w; factotum.service permits it with RestrictNamespaces=net", err)
			return
		}
		n, err = cookieHere()
	}()
	<-done
	return n, err
}
