package testbed

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Daemon is factotum or the listener of sshfront as a service manager runs it: its
// listening socket outlives it (sd_listen_fds(3)), and it is started again after it has
// ended.
type Daemon struct {
	Delay time.Duration // before it is started again, as RestartSec= of systemd.service(5)

	bed     *Bed
	argv    []string
	socket  *os.File
	started func(pid int)

	mu       sync.Mutex
	cmd      *exec.Cmd
	starts   int
	stopping bool
	stopped  chan struct{}
}

// Binder is a program of a test, see Programs: it listens at a path inside of the testbed,
// prints the descriptor, and waits until somebody has got it.
func Binder(args []string) {
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: args[0], Net: "unixpacket"})
	if err == nil {
		err = os.Chmod(args[0], 0o666)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "listen: %v\n", err)
		os.Exit(1)
	}
	f, err := ln.File()
	if err == nil {
		// Since Linux 6.16 those who connect before factotum starts need it.
		err = unix.SetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "listen: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(f.Fd())
	os.Stdin.Read(make([]byte, 1))
	unix.Kill(os.Getpid(), unix.SIGKILL) // nobody is to remove the path
}

// DescriptorOf is a descriptor of another process, see pidfd_getfd(2).
func DescriptorOf(pid, fd int) (*os.File, error) {
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(p)
	got, err := unix.PidfdGetfd(p, fd, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(got), "descriptor"), nil
}

// Supervise ends the testbed's factotum ("factotum") or listener ("sshfront"), and runs it
// from then on, with the words of prefix before its command, until the test ends. started
// is called with each process, before it need have begun. The test's program must have
// Binder as its program "bind".
func (b *Bed) Supervise(tb testing.TB, program string, started func(pid int), prefix ...string) *Daemon {
	tb.Helper()
	d := &Daemon{Delay: time.Second, bed: b, started: started, stopped: make(chan struct{})}
	for _, pid := range b.Pids(program) {
		syscall.Kill(pid, syscall.SIGTERM)
	}
	if !Eventually(func() bool { return len(b.Pids(program)) == 0 }) {
		tb.Fatalf("%s does not end", program)
	}
	// LISTEN_PID is the process's own.
	d.argv = append([]string{"/bin/sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, prefix...)
	d.argv = append(d.argv, b.Bin(program))
	if program == "sshfront" {
		port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
		if err != nil {
			tb.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:"+strings.TrimSpace(string(port)))
		if err != nil {
			tb.Fatal(err)
		}
		d.socket, err = ln.(*net.TCPListener).File()
		ln.Close()
		if err != nil {
			tb.Fatal(err)
		}
		d.argv = append(d.argv, "-D", "-e")
	} else {
		d.socket = b.bind(tb)
	}
	d.start()
	tb.Cleanup(d.stop)
	return d
}

// bind listens at the path of factotum's socket inside of the testbed.
func (b *Bed) bind(tb testing.TB) *os.File {
	tb.Helper()
	c := b.Command(b.Self(tb), "bind", RPC)
	c.Stderr = os.Stderr
	in, out := Pipes(tb, c)
	line, err := out.ReadString('\n')
	if err != nil {
		tb.Fatalf("bind: %v", err)
	}
	fd, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		tb.Fatal(err)
	}
	f, err := DescriptorOf(c.Process.Pid, fd)
	if err != nil {
		tb.Fatal(err)
	}
	in.Close()
	c.Wait()
	return f
}

// start starts the daemon; its end starts it again.
func (d *Daemon) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopping {
		close(d.stopped)
		return
	}
	program := filepath.Base(d.argv[len(d.argv)-1])
	if program == "-e" {
		program = "sshfront"
	}
	log, err := os.OpenFile(filepath.Join(d.bed.Dir, "log", program), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	defer log.Close()
	d.cmd = d.bed.Command(d.argv...)
	d.cmd.Env = append(os.Environ(), "LISTEN_FDS=1")
	d.cmd.ExtraFiles = []*os.File{d.socket}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		panic(err)
	}
	d.starts++
	if d.started != nil {
		d.started(d.cmd.Process.Pid)
	}
	cmd := d.cmd
	go func() {
		cmd.Wait()
		time.Sleep(d.Delay)
		d.start()
	}()
}

// stop ends the daemon for good.
func (d *Daemon) stop() {
	d.mu.Lock()
	d.stopping = true
	d.cmd.Process.Kill()
	d.mu.Unlock()
	<-d.stopped
	d.socket.Close()
}

// PID is the process that runs, or has just ended.
func (d *Daemon) PID() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cmd.Process.Pid
}

// Starts is how often it was started.
func (d *Daemon) Starts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.starts
}
