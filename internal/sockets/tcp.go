package sockets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Unknown is the address of whoever is not connected by TCP: the one that stands for
// the absence of an address (RFC 4291, section 2.5.2), which no TCP connection has.
var Unknown = netip.AddrPortFrom(netip.IPv6Unspecified(), 65535)

// Host is an address in sshd's words.
func Host(a netip.Addr) string {
	if a == Unknown.Addr() {
		return "UNKNOWN"
	}
	return a.String()
}

// HostPort is an address and its port in sshd's words, for a log.
func HostPort(a netip.AddrPort) string { return fmt.Sprintf("%s port %d", Host(a.Addr()), a.Port()) }

// TCPAddrs returns the two ends of a connected TCP socket, as the kernel has
// them. It asks by system calls of its own, as package net would change the
// socket's options and wait on it.
func TCPAddrs(fd int) (remote, local netip.AddrPort, err error) {
	if t, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || t != unix.IPPROTO_TCP {
		return remote, local, errors.New("the descriptor is not a TCP socket")
	}
	r, err1 := unix.Getpeername(fd)
	l, err2 := unix.Getsockname(fd)
	if err1 == nil && err2 == nil {
		remote, local = addrPortOf(r), addrPortOf(l)
	}
	if !remote.IsValid() || !local.IsValid() {
		return remote, local, errors.New("the descriptor is not a TCP connection")
	}
	return remote, local, nil
}

// AddrPort is the address of a net.TCPAddr, Unknown for a net.UnixAddr, or an invalid
// one for others. An IPv4 address in IPv6's form becomes one of IPv4; the zone of a
// link-local address stays, as sshd logs it.
func AddrPort(a net.Addr) netip.AddrPort {
	if _, ok := a.(*net.UnixAddr); ok {
		return Unknown
	}
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 && a.Is6() {
			zone := strconv.Itoa(int(sa.ZoneId))
			if i, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
				zone = i.Name
			}
			a = a.WithZone(zone)
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}
