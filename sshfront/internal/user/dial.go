package user

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/internal/sshdconf"
	"p9auth/internal/words"
	"p9auth/sshfront/internal/userlink"
)

// dial answers the request: RFC 4254 section 7.2.
func (u *userProcess) dial(r userlink.Dial) (userlink.Answer, error) {
	port, err := port(r.Port)
	if err == nil {
		err = u.info.mayDial(r.Host, port)
	}
	if err != nil {
		return userlink.Answer{}, err
	}
	network := "tcp"
	switch u.info.Settings.AddressFamily {
	case sshdconf.FamilyInet:
		network = "tcp4"
	case sshdconf.FamilyInet6:
		network = "tcp6"
	}
	d := net.Dialer{KeepAlive: -1}
	d.SetMultipathTCP(false)
	c, err := u.dialHost(&d, network, r.Host, strconv.Itoa(port))
	return connected(c, err)
}

// port is a port that exists.
func port(n uint32) (int, error) {
	if n > 65535 {
		return 0, userlink.Failedf("port %d is too large", n)
	}
	return int(n), nil
}

// dialUnix answers the request: PROTOCOL of OpenSSH, section 2.4.
func (u *userProcess) dialUnix(r userlink.DialUnix) (userlink.Answer, error) {
	if err := u.info.mayDialUnix(r.Path); err != nil {
		return userlink.Answer{}, err
	}
	c, err := net.Dial("unix", socketPath(r.Path))
	return connected(c, err)
}

// socketPath makes a path absolute, since Go has abstract sockets begin with @.
func socketPath(path string) string { return filepath.Join("/", path) }

// connected is the answer that hands over a connection, or says what failed in
// the kernel's words.
func connected(c net.Conn, err error) (userlink.Answer, error) {
	if err != nil {
		var e syscall.Errno
		if errors.As(err, &e) {
			err = e
		}
		return userlink.Answer{}, userlink.Failedf("%s", words.Clip(err.Error(), 255))
	}
	defer c.Close()
	f, err := descriptor(c)
	if err != nil {
		return userlink.Answer{}, err
	}
	return userlink.Answer{Files: []*os.File{f}}, nil
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
