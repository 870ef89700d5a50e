package ssh

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed"
)

// An inside is a connection process of the real sshfront, in its sandbox, of which
// the test has taken one thread over: it makes the system calls that the test wants.
type inside struct {
	t    *testing.T
	pid  int
	regs syscall.PtraceRegs // of a thread that has just entered the kernel
}

// killed is the result of a system call that has ended the process.
const killed = "killed"

// takeOver connects to sshfront as anybody can, from an address of its own as crashes
// have penalties, and takes the connection's process over before anybody has
// authenticated.
func takeOver(t *testing.T, b *bed, from net.IP) *inside {
	t.Helper()
	if !testbed.Eventually(func() bool { return len(b.connections()) == 0 }) {
		t.Fatalf("connection processes: %v", b.connections())
	}
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).Dial("tcp", "127.0.0.1:"+b.port(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	// It has spoken, so it is in its sandbox.
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		t.Fatalf("%q, %v", line, err)
	}
	x := &inside{t: t}
	if !testbed.Eventually(func() bool {
		pids := b.connections()
		if len(pids) == 1 {
			x.pid = pids[0]
		}
		return x.pid != 0
	}) {
		t.Fatalf("connection processes: %v", b.connections())
	}
	runtime.LockOSThread() // which is the tracer
	t.Cleanup(runtime.UnlockOSThread)
	if err := syscall.PtraceAttach(x.pid); err != nil {
		t.Fatal(err)
	}
	x.wait()
	if err := syscall.PtraceGetRegs(x.pid, &x.regs); err != nil {
		t.Fatal(err)
	}
	// An idle thread of Go waits in a system call; the instruction is before it.
	text := make([]byte, 2)
	if _, err := syscall.PtracePeekText(x.pid, uintptr(x.regs.Rip-2), text); err != nil || text[0] != 0x0f || text[1] != 0x05 {
		t.Fatalf("the thread is not in a system call: % x, %v", text, err)
	}
	t.Cleanup(func() { unix.Kill(x.pid, unix.SIGKILL) })
	return x
}

// connections are the connection processes.
func (b *bed) connections() (pids []int) {
	for _, some := range b.Processes() {
		for _, pid := range some {
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if bytes.HasSuffix(cmdline, []byte("\x00connection\x00")) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// wait waits until the thread stops. It returns false when the process has ended.
func (x *inside) wait() bool {
	x.t.Helper()
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(x.pid, &ws, syscall.WALL, nil); err != nil {
		x.t.Fatal(err)
	}
	return ws.Stopped()
}

// call makes a system call inside, and returns its result: killed, a number or an
// error.
func (x *inside) call(nr uintptr, args ...uint64) any {
	x.t.Helper()
	r := x.regs
	r.Rip -= 2
	r.Rax, r.Orig_rax = uint64(nr), ^uint64(0)
	for i, p := range []*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8, &r.R9} {
		if i < len(args) {
			*p = args[i]
		}
	}
	if err := syscall.PtraceSetRegs(x.pid, &r); err != nil {
		x.t.Fatal(err)
	}
	for {
		if err := syscall.PtraceSingleStep(x.pid); err != nil {
			return killed
		}
		if !x.wait() {
			return killed
		}
		if err := syscall.PtraceGetRegs(x.pid, &r); err != nil {
			return killed
		}
		if r.Rip == x.regs.Rip {
			break
		}
	}
	if e := -int64(r.Rax); e > 0 && e < 4096 {
		return syscall.Errno(e)
	}
	return int64(r.Rax)
}

// put writes bytes below the thread's stack, and returns their address inside.
func (x *inside) put(b []byte) uint64 {
	x.t.Helper()
	at := x.regs.Rsp - 4096
	if _, err := syscall.PtracePokeData(x.pid, uintptr(at), b); err != nil {
		x.t.Fatal(err)
	}
	return at
}

// rights is a message header that passes descriptor 0.
func (x *inside) rights() uint64 {
	control := unix.UnixRights(0)
	at := x.regs.Rsp - 4096
	b := make([]byte, 56, 256) // struct msghdr
	binary.LittleEndian.PutUint64(b[16:], at+128)
	binary.LittleEndian.PutUint64(b[24:], 1)
	binary.LittleEndian.PutUint64(b[32:], at+160)
	binary.LittleEndian.PutUint64(b[40:], uint64(len(control)))
	b = append(b, make([]byte, 128-56)...)
	b = binary.LittleEndian.AppendUint64(b, at+150) // struct iovec
	b = binary.LittleEndian.AppendUint64(b, 1)
	b = append(b, make([]byte, 160-144)...)
	return x.put(append(b, control...))
}

// TestFromInsideTheSandboxNobodyIsLockedOut takes connection processes over, before
// a login, and has them use up what the kernel counts for all processes of
// _sshfront together. What would use it up is either impossible, or kills the
// process and is in the log. Then alice logs in.
func TestFromInsideTheSandboxNobodyIsLockedOut(t *testing.T) {
	b := up(t)
	b.configure(t, "")
	b.wantLogin(t)
	from := net.IPv4(127, 0, 1, 0)
	for what, c := range map[string]struct {
		attack func(x *inside) any
		want   string
	}{
		"descriptors on their way": {func(x *inside) any { return x.call(unix.SYS_SENDMSG, 4, x.rights(), 0) }, killed},
		"a socket pair for them": {func(x *inside) any {
			return x.call(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, x.put(make([]byte, 8)))
		}, killed},
		"an epoll descriptor":   {func(x *inside) any { return x.call(unix.SYS_EPOLL_CREATE1, unix.EPOLL_CLOEXEC) }, killed},
		"an eventfd":            {func(x *inside) any { return x.call(unix.SYS_EVENTFD2, 0, 0) }, killed},
		"copies of descriptors": {func(x *inside) any { return x.call(unix.SYS_FCNTL, 3, unix.F_DUPFD_CLOEXEC, 100) }, killed},
		"a thread": {func(x *inside) any {
			return x.call(unix.SYS_CLONE, unix.CLONE_VM|unix.CLONE_FS|unix.CLONE_FILES|unix.CLONE_SIGHAND|unix.CLONE_SYSVSEM|unix.CLONE_THREAD|unix.CLONE_SETTLS, x.regs.Rsp-8192)
		}, "operation not permitted"},
		"signals that wait": {func(x *inside) any {
			// Of the last real-time signal, for a thread that does not take it.
			x.call(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, x.put([]byte{0, 0, 0, 0, 0, 0, 0, 0x80}), 0, 8)
			return x.call(unix.SYS_TGKILL, uint64(x.pid), uint64(x.pid), 64)
		}, "resource temporarily unavailable"},
		"epoll watches": {func(x *inside) any {
			// Of each descriptor that it has, as of those that a user would pass to it.
			event := x.put(make([]byte, 12)) // of which Go's runtime would hear nothing
			epolls := 0
			for epoll := range uint64(20) {
				if file, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", x.pid, epoll)); file == "anon_inode:[eventpoll]" {
					epolls++
				}
				for fd := range uint64(40) {
					if r := x.call(unix.SYS_EPOLL_CTL, epoll, unix.EPOLL_CTL_ADD, fd, event); r != syscall.EPERM {
						return r
					}
				}
			}
			return fmt.Sprint(epolls, " epoll descriptor, no watch")
		}, "1 epoll descriptor, no watch"},
		"memory": {func(x *inside) any {
			var r any = int64(0)
			for i := 0; i < 100 && r != syscall.ENOMEM; i++ {
				r = x.call(unix.SYS_MMAP, 0, 64<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uint64(0), 0)
				if _, ok := r.(int64); ok {
					r = nil
				}
			}
			return r
		}, "cannot allocate memory"},
	} {
		t.Run(what, func(t *testing.T) {
			logged := b.sshfrontLogged("killed by signal 31")
			from[15]++
			x := takeOver(t, b, from)
			if got := fmt.Sprint(c.attack(x)); got != c.want {
				t.Errorf("it is %s, not %s", got, c.want)
			}
			b.wantLogin(t)
			if c.want == killed && !testbed.Eventually(func() bool { return b.sshfrontLogged("killed by signal 31") > logged }) {
				t.Error("nothing is in the log")
			}
		})
	}
}
