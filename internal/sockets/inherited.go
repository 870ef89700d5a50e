// Package sockets is what both daemons ask of sockets: those that the service manager
// passes, and the addresses of a TCP connection.
package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// firstInherited is SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstInherited = 3

// Inherited returns the sockets that the service manager listens on for us
// (LISTEN_FDS, sd_listen_fds(3)), or none. The descriptors are ours and
// close-on-exec, and the variables are gone from the environment. It reads the
// variables itself, as go-systemd's package for that brings crypto/tls into every
// program that imports this one.
func Inherited() (list []net.Listener, err error) {
	for _, f := range inheritedFiles() {
		l, e := net.FileListener(f)
		f.Close()
		if e != nil {
			err = errors.Join(err, fmt.Errorf("a socket that the service manager passed: %w", e))
			continue
		}
		list = append(list, l)
	}
	if err != nil {
		for _, l := range list {
			l.Close()
		}
		return nil, err
	}
	return list, nil
}

func inheritedFiles() []*os.File {
	pid, err1 := strconv.Atoi(os.Getenv("LISTEN_PID"))
	n, err2 := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if errors.Join(err1, err2) != nil || pid != os.Getpid() {
		return nil
	}
	var files []*os.File
	for fd := firstInherited; fd < firstInherited+min(n, 1024); fd++ {
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd)))
	}
	return files
}
