package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/capuse"
)

// openDescriptors are those above 2 that the caller has left open, ascending, as far as
// the child and the grant have room for them.
func openDescriptors() (fds []int, err error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 || fd > maxFD {
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

// maxFDs is how many descriptors may stay open besides the first three, and maxFD the
// highest of them.
const maxFDs, maxFD = 61, 1023

// watch starts the child, waits for it, and ends as it does. It returns only if there is
// no child.
func watch(client *capproto.Client, a *capproto.AuthInfo, o options, fds []int) error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(filepath.Dir(self), "redeem"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// What is not closed on exec stays open where it is.
	free := 3
	for ; slices.Contains(fds, free); free++ {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(free), "inherited"))
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	cmd.Args = []string{"su: redeem", strconv.Itoa(free), capuse.Path()}
	cmd.Env = []string{}
	ownSession := o.hasCommand && !o.inSession && a.UID != 0
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: ownSession}
	var p *proxy
	if o.pty {
		if p, err = newProxy(cmd); err != nil {
			return err
		}
	}
	// As su(1) has it: all signals wait for the child's end but these, and those of job
	// control, which stop the child and then us.
	caught := make(chan os.Signal, 16)
	ends := []os.Signal{syscall.SIGTERM}
	if ownSession || o.pty {
		ends = append(ends, syscall.SIGINT, syscall.SIGQUIT)
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGALRM,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	signal.Notify(caught, ends...)
	if err := cmd.Start(); err != nil {
		p.end()
		return err
	}
	os.Chdir("/") // no file system is kept busy
	theirs.Close()
	p.start()
	ended := make(chan int, 1)
	go func() {
		if err := hand(ours, a.Cap); err != nil {
			fmt.Fprintf(os.Stderr, "su: %v\n", err)
		}
		ended <- wait(client, cmd.Process.Pid, p)
	}()
	select {
	case status := <-ended:
		p.end()
		os.Exit(status)
	case s := <-caught:
		p.end()
		end(client, cmd.Process.Pid, s.(syscall.Signal), ended)
	}
	return nil
}

// socketPair is two sockets, the child's as it wants it: not closed before it executes.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "child"), os.NewFile(uintptr(fds[1]), "parent"), nil
}

// hand gives the child its capability, and waits until it has redeemed that.
func hand(child *os.File, capability string) error {
	defer child.Close()
	if _, err := child.WriteString(capability); err != nil {
		return nil // it has ended, and its status says how
	}
	unix.Shutdown(int(child.Fd()), unix.SHUT_WR)
	return capuse.Report(child)
}

// end ends the child, and us with the signal that has asked for it.
func end(client *capproto.Client, pid int, s syscall.Signal, ended <-chan int) {
	fmt.Fprint(os.Stderr, "\nSession terminated, killing shell...")
	client.Signal(pid, "TERM")
	select {
	case <-ended:
	case <-time.After(2 * time.Second):
		client.Signal(pid, "KILL")
	}
	fmt.Fprintln(os.Stderr, " ...killed.")
	signal.Reset(s)
	syscall.Kill(os.Getpid(), s)
	time.Sleep(time.Second)
	os.Exit(128 + int(s))
}

// wait waits for the child, stops with it, and returns the status to end with.
func wait(client *capproto.Client, pid int, p *proxy) int {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, unix.WUNTRACED, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 1
		case ws.Stopped():
			p.pause()
			stop()
			p.resume()
			client.Signal(pid, "CONT")
		case ws.Signaled():
			core := ""
			if ws.CoreDump() {
				core = " (core dumped)"
			}
			fmt.Fprintf(os.Stderr, "%s%s\n", signalText(ws.Signal()), core)
			return 128 + int(ws.Signal())
		default:
			return ws.ExitStatus()
		}
	}
}

// stop stops this process. It returns when the process goes on, and not before it has
// stopped, as it would if the kernel chose another thread to get the signal.
func stop() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
}

// signalText is what strsignal(3) says.
func signalText(s syscall.Signal) string {
	text, ok := map[syscall.Signal]string{
		syscall.SIGHUP: "Hangup", syscall.SIGINT: "Interrupt", syscall.SIGQUIT: "Quit", syscall.SIGILL: "Illegal instruction",
		syscall.SIGTRAP: "Trace/breakpoint trap", syscall.SIGABRT: "Aborted", syscall.SIGBUS: "Bus error", syscall.SIGFPE: "Floating point exception",
		syscall.SIGKILL: "Killed", syscall.SIGUSR1: "User defined signal 1", syscall.SIGSEGV: "Segmentation fault",
		syscall.SIGUSR2: "User defined signal 2", syscall.SIGPIPE: "Broken pipe", syscall.SIGALRM: "Alarm clock", syscall.SIGTERM: "Terminated",
		syscall.SIGXCPU: "CPU time limit exceeded", syscall.SIGXFSZ: "File size limit exceeded", syscall.SIGSYS: "Bad system call",
	}[s]
	if !ok {
		return fmt.Sprintf("Signal %d", int(s))
	}
	return text
}
