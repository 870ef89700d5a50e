package connection

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
	"p9auth/sshfront/internal/sshlog"
)

// attempts are what a connection process that has been taken over would try.
// The first ones fail, as libraries try them too; the others kill it.
var attempts = map[string]func() error{
	"open": func() error {
		_, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
		return err
	},
	"stat":  func() error { return unix.Stat("/etc/passwd", new(unix.Stat_t)) },
	"pipe":  func() error { return unix.Pipe2(make([]int, 2), 0) },
	"ioctl": func() error { _, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); return err },

	"execve": func() error { return unix.Exec("/bin/true", []string{"true"}, nil) },
	"socket": func() error {
		_, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		return err
	},
	"connect": func() error { return unix.Connect(connSocket, &unix.SockaddrInet4{Port: 22}) },
	"bind":    func() error { return unix.Bind(connSocket, &unix.SockaddrInet4{}) },
	"listen":  func() error { return unix.Listen(connSocket, 1) },
	"accept": func() error {
		_, _, err := unix.Accept4(connSocket, 0)
		return err
	},
	"datagrams to anybody": func() error {
		_, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	},
	"sockets": func() error { _, _, err := sys.Socketpair(); return err },
	"descriptors on their way": func() error {
		return unix.Sendmsg(connSocket, []byte("x"), unix.UnixRights(0), nil, 0)
	},
	"copies of descriptors": func() error { _, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3); return err },
	"dup":                   func() error { _, err := unix.Dup(0); return err },
	"epoll":                 func() error { _, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC); return err },
	"eventfd":               func() error { _, err := unix.Eventfd(0, unix.EFD_CLOEXEC); return err },
	"inotify":               func() error { _, err := unix.InotifyInit1(unix.IN_CLOEXEC); return err },
	"timers": func() error {
		return errno2(syscall.RawSyscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, 0, 0))
	},
	"timerfd": func() error { _, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC); return err },
	"mlock":   func() error { return unix.Mlock(page) },
	"keys": func() error {
		_, err := unix.AddKey("user", "x", []byte("x"), unix.KEY_SPEC_SESSION_KEYRING)
		return err
	},
	"message queues": func() error { return errno2(syscall.RawSyscall(unix.SYS_MQ_OPEN, 0, 0, 0)) },
	"namespaces":     func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"queued signals": func() error {
		return errno2(syscall.RawSyscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(os.Getpid()), 34, 0))
	},
	"larger pipes": func() error { _, err := unix.FcntlInt(0, unix.F_SETPIPE_SZ, 1<<20); return err },
	"locks": func() error {
		return unix.FcntlFlock(0, unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK})
	},
	"asynchronous input and output": func() error { return errno2(syscall.RawSyscall(unix.SYS_IO_SETUP, 1, 0, 0)) },
	"more descriptors":              func() error { return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{}) },
	"thread": func() error {
		flags := uintptr(unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD)
		if runtime.GOARCH == "amd64" {
			flags |= unix.CLONE_SETTLS
		}
		return errno2(syscall.RawSyscall(unix.SYS_CLONE, flags, 0, 0))
	},
	"tcp ulp": func() error { return unix.SetsockoptString(connSocket, unix.IPPROTO_TCP, unix.TCP_ULP, "tls") },
	"fork": func() error {
		_, _, e := syscall.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
		return errno(e)
	},
	"clone3":   func() error { return errno2(syscall.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)) },
	"ptrace":   func() error { return unix.PtraceAttach(os.Getppid()) },
	"kill":     func() error { return unix.Kill(os.Getppid(), 0) },
	"tgkill":   func() error { return unix.Tgkill(os.Getppid(), os.Getppid(), 0) },
	"pidfd":    func() error { _, err := unix.PidfdOpen(os.Getppid(), 0); return err },
	"memfd":    func() error { _, err := unix.MemfdCreate("x", 0); return err },
	"setuid":   func() error { return errno2(syscall.RawSyscall(unix.SYS_SETUID, 0, 0, 0)) },
	"prctl":    func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
	"io_uring": func() error { return errno2(syscall.RawSyscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)) },
	"bpf":      func() error { return errno2(syscall.RawSyscall(unix.SYS_BPF, 0, 0, 0)) },
	"code": func() error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		return err
	},
	"make code":   func() error { return unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC) },
	"open by uid": func() error { return errno2(syscall.RawSyscall(unix.SYS_OPEN_BY_HANDLE_AT, 0, 0, 0)) },
	"unlink":      func() error { return unix.Unlink("/nothing") },
}

var (
	connSocket int
	page       []byte
	fails      = []string{"open", "stat", "pipe", "ioctl", "thread", "more descriptors"}
)

func errno(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func errno2(_, _ uintptr, e syscall.Errno) error { return errno(e) }

// sandboxed is a process that shuts itself in and tries something. It prints
// what came of it.
func sandboxed(what string, debug bool) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	client := must(net.Dial("tcp", l.Addr().String()))
	server := must(l.Accept())
	connSocket = must(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0))
	page = must(unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE))
	// Threads from before must be in the sandbox too.
	work, result := make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread()
		for f := range work {
			result <- f()
		}
	}()
	work <- func() error { return nil }
	<-result
	status := must(os.Open("/proc/self/status"))
	one, two, err := sys.Socketpair()
	must(0, err)
	if err := enterSandbox(debug); err != nil {
		fmt.Println("sandbox:", err)
		return
	}
	if what == "work" {
		b := make([]byte, 1<<16)
		n, _ := unix.Pread(int(status.Fd()), b, 0)
		fmt.Println(string(b[:n]))
		fmt.Println(workInside(client, server, one, two))
		return
	}
	work <- attempts[what]
	if err := <-result; errors.Is(err, unix.EPERM) {
		fmt.Println("EPERM")
	} else {
		fmt.Println("allowed:", err)
	}
}

// workInside has a client and a server of the library shake hands and talk,
// while goroutines come and go and memory is collected.
func workInside(client, server net.Conn, a, b *os.File) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		return err
	}
	sc := &ssh.ServerConfig{NoClientAuth: true}
	sc.AddHostKey(signer)
	served := make(chan error, 1)
	go func() {
		conn, chans, reqs, err := ssh.NewServerConn(server, sc)
		if err != nil {
			served <- err
			return
		}
		go ssh.DiscardRequests(reqs)
		for nc := range chans {
			ch, reqs, err := nc.Accept()
			if err != nil {
				served <- err
				return
			}
			go ssh.DiscardRequests(reqs)
			go func() {
				io.Copy(ch, ch)
				ch.Close()
			}()
		}
		served <- conn.Wait()
	}()
	cc := &ssh.ClientConfig{User: "x", HostKeyCallback: ssh.FixedHostKey(signer.PublicKey())}
	conn, chans, reqs, err := ssh.NewClientConn(client, "x", cc)
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(reqs)
	go func() {
		for c := range chans {
			c.Reject(ssh.Prohibited, "")
		}
	}()
	var wg sync.WaitGroup
	errs := make(chan error, 20)
	for range 8 {
		wg.Go(func() {
			ch, reqs, err := conn.OpenChannel("echo", nil)
			if err != nil {
				errs <- err
				return
			}
			go ssh.DiscardRequests(reqs)
			data := bytes.Repeat([]byte("p9auth!\n"), 1<<16)
			go func() {
				ch.Write(data)
				ch.CloseWrite()
			}()
			if got, err := io.ReadAll(ch); err != nil || !bytes.Equal(got, data) {
				errs <- fmt.Errorf("%d bytes came back, %v", len(got), err)
			}
		})
	}
	// As many threads as there may be beside the busy ones.
	stop := make(chan struct{})
	for range spareThreads - 2 {
		go func() {
			runtime.LockOSThread()
			<-stop
		}()
	}
	for range 5 {
		_ = make([]byte, 32<<20)
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	wg.Wait()
	close(stop)
	// The link and the listener.
	if err := client.(*net.TCPConn).SetKeepAlive(true); err != nil {
		return err
	}
	go a.Write([]byte("x"))
	if _, err := b.Read(make([]byte, 1)); err != nil {
		return err
	}
	sshlog.Printf(sshdconf.LogInfo, "now %v, %v", time.Now(), conn.RemoteAddr())
	conn.Close()
	<-served
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func runSandboxed(what, mode string) (string, *os.ProcessState) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "sandbox", what, mode)
	cmd.Env = []string{"TZ=Europe/Zurich"}
	out, _ := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), cmd.ProcessState
}

func TestTheSandboxKillsWhoTriesToLeave(t *testing.T) {
	for what := range attempts {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			out, st := runSandboxed(what, "kill")
			ws := st.Sys().(syscall.WaitStatus)
			if slices.Contains(fails, what) {
				if out != "EPERM" {
					t.Errorf("%s, %v", out, st)
				}
			} else if !ws.Signaled() || ws.Signal() != unix.SIGSYS || out != "" {
				t.Errorf("%s, %v", out, st)
			}
			if out, st := runSandboxed(what, "debug"); out != "EPERM" {
				t.Errorf("with debug: %s, %v", out, st)
			}
		})
	}
}

func TestSSHWorksInTheSandbox(t *testing.T) {
	out, st := runSandboxed("work", "kill")
	if !st.Success() || !strings.HasSuffix(out, "<nil>") {
		t.Fatalf("%s\n%v", out, st)
	}
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s:\n%s", want, out)
		}
	}
}
