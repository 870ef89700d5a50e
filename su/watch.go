package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// capabilityFD is where the child finds the capability. It is above what the caller's
// descriptors are likely to be; one that is not is left out.
const capabilityFD = 255

// openDescriptors are those above 2 that the caller has left open, ascending, as far as
// the child and the grant have room for them.
func openDescriptors() (fds []int, err error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 || fd >= capabilityFD {
			continue
		}
		// Go's own are closed on exec, and so are those that the caller wants closed.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	slices.Sort(fds)
	return fds[:min(len(fds), maxFDs)], nil
}

// maxFDs is how many descriptors may stay open besides the first three.
const maxFDs = 61

// watch starts the child and waits for it.
func watch(_ *capproto.Client, a *capproto.AuthInfo, o options, fds []int) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{childName}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = make([]*os.File, capabilityFD-2)
	for _, fd := range fds {
		cmd.ExtraFiles[fd-3] = os.NewFile(uintptr(fd), "inherited")
	}
	cmd.ExtraFiles[capabilityFD-3] = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: o.hasCommand && !o.inSession && a.UID != 0}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return err
	}
	r.Close()
	_, err = w.WriteString(a.Cap)
	w.Close()
	if err != nil {
		return err
	}
	os.Exit(status(cmd.Process.Pid))
	return nil
}

// status waits for the child, stops with it, and returns the status to end with.
func status(pid int) int {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, unix.WUNTRACED, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 1
		case ws.Stopped():
			unix.Kill(os.Getpid(), unix.SIGSTOP)
			unix.Kill(pid, unix.SIGCONT)
		case ws.Signaled():
			core := ""
			if ws.CoreDump() {
				core = " (core dumped)"
			}
			fmt.Fprintf(os.Stderr, "%s%s\n", signalName(ws.Signal()), core)
			return 128 + int(ws.Signal())
		default:
			return ws.ExitStatus()
		}
	}
}

// signalName is what strsignal(3) says.
func signalName(s syscall.Signal) string {
	return filepath.Base(s.String())
}
