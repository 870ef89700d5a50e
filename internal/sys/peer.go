package sys

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// PeerCred returns who made a connection or, of an accepted one, who connected:
// SO_PEERCRED in unix(7).
func PeerCred(u syscall.Conn) (*unix.Ucred, error) {
	rc, err := u.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	cerr := rc.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(cerr, os.NewSyscallError("SO_PEERCRED", err))
}
