package faults

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed"
)

// A step is the n-th system call of one name (from 1) in one kind of process, since it was
// last counted from the start.
type step struct {
	kind, call string
	n          int
}

func (s step) String() string { return fmt.Sprintf("%s: %s %d", s.kind, s.call, s.n) }

// A fault is what happens at a step: an error, or else the process is killed.
type fault struct {
	step
	errno unix.Errno // 0: killed
}

func (f fault) String() string {
	if f.errno == 0 {
		return f.step.String() + ": killed"
	}
	return f.step.String() + ": " + unix.ErrnoName(f.errno)
}

// faulty is a program of the test: it executes the command of its arguments, with a filter
// that asks about each system call but those of leftOut. Whoever is to answer takes the
// filter's descriptor out of this process, which stops at its execve until then.
func faulty(args []string) {
	runtime.LockOSThread()
	const nr = 0 // offset of nr in struct seccomp_data
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr}}
	for i := range unasked {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(unasked) - i), K: unasked[i]})
	}
	filter = append(filter,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&prog))); e != 0 {
		fmt.Fprintf(os.Stderr, "seccomp: %v\n", e)
		os.Exit(1)
	}
	err := syscall.Exec(args[0], args, os.Environ())
	fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
	os.Exit(1)
}

// An injector answers the kernel about the system calls of programs that faulty started.
type injector struct {
	mu      sync.Mutex
	mains   map[int]string // by pid, what was started: its own kind
	threads map[int]thread // by thread id, as long as they execute nothing
	execed  map[int]bool   // the processes that have executed a program
	counts  map[step]int   // by step{kind, call, 0}
	armed   *fault
	hit     bool
	at      string // what the first argument of the call that was hit says, if it is a descriptor
}

type thread struct {
	pid  int
	kind string
}

func newInjector() *injector {
	return &injector{mains: map[int]string{}, threads: map[int]thread{}, execed: map[int]bool{}, counts: map[step]int{}}
}

// attach takes the filter of a process that faulty runs in, and answers for it and its
// descendants. kind is the process's.
func (in *injector) attach(pid int, kind string) error {
	in.mu.Lock()
	in.mains[pid] = kind
	in.mu.Unlock()
	for end := time.Now().Add(testbed.Patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, path := range fds {
			if l, _ := os.Readlink(path); l == "anon_inode:seccomp notify" {
				var fd int
				fmt.Sscan(filepath.Base(path), &fd)
				f, err := testbed.DescriptorOf(pid, fd)
				if err != nil {
					return err
				}
				go in.serve(f)
				return nil
			}
		}
	}
	return fmt.Errorf("process %d makes no filter", pid)
}

// A notice is struct seccomp_notif of linux/seccomp.h.
type notice struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// An answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// serve answers until no process with the filter is left.
func (in *injector) serve(f *os.File) {
	defer f.Close()
	fd := int(f.Fd())
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err == unix.EINTR {
			continue
		}
		if p[0].Revents&unix.POLLIN == 0 {
			return
		}
		var n notice
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); e != 0 {
			continue // it was killed meanwhile
		}
		if t, ok := in.known(int(n.pid)); ok {
			in.answer(fd, n, t)
			continue
		}
		// What /proc says of a process may wait for a file that factotum serves.
		go in.answer(fd, n, in.look(int(n.pid)))
	}
}

func (in *injector) known(tid int) (thread, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	t, ok := in.threads[tid]
	return t, ok
}

// look finds out what a thread is.
func (in *injector) look(tid int) thread {
	var t thread
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if _, rest, ok := bytes.Cut(status, []byte("\nTgid:")); ok {
		fmt.Sscan(string(rest), &t.pid)
	}
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", tid))
	cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", tid))
	in.mu.Lock()
	defer in.mu.Unlock()
	if kind, ok := in.mains[t.pid]; ok && kind != "login" {
		t.kind = kind
	} else {
		t.kind = kindOf(exe, strings.Split(string(cmd), "\x00"))
		if !in.execed[t.pid] && !ok && t.kind != "" {
			t.kind += "'s child"
		}
	}
	in.threads[tid] = t
	return t
}

// kindOf is the kind of a process by its program and arguments, or "" for what is not ours.
func kindOf(exe string, argv []string) string {
	switch filepath.Base(strings.TrimSuffix(exe, " (deleted)")) {
	case "factotum":
		return "factotum"
	case "factotum-pam":
		return "worker"
	case "login":
		return "login"
	case "sshfront":
		if len(argv) > 1 && strings.HasPrefix(argv[0], "sshfront:") {
			return argv[1]
		}
		return "listener"
	}
	if strings.Contains(exe, "/factotum/cap/") {
		return "become"
	}
	return ""
}

// answer lets a call happen, or not.
func (in *injector) answer(fd int, n notice, t thread) {
	r := answer{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	in.mu.Lock()
	if t.kind != "" && !harmless(n) {
		s := step{kind: t.kind, call: callName(n.nr)}
		in.counts[s]++
		s.n = in.counts[s]
		if in.armed != nil && in.armed.step == s && !in.hit {
			in.hit = true
			in.at, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.pid, int32(n.args[0])))
			if in.armed.errno == 0 {
				unix.Kill(t.pid, unix.SIGKILL)
				in.mu.Unlock()
				return
			}
			r = answer{id: n.id, error: -int32(in.armed.errno)}
		}
	}
	if n.nr == unix.SYS_EXECVE || n.nr == unix.SYS_EXECVEAT {
		in.execed[t.pid] = true
		for tid, other := range in.threads {
			if other.pid == t.pid {
				delete(in.threads, tid)
			}
		}
	}
	in.mu.Unlock()
	unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
}

// arm counts from the start and has the fault happen, if it is not nil.
func (in *injector) arm(f *fault) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.armed, in.hit, in.at = f, false, ""
	clear(in.counts)
	for tid := range in.threads {
		if unix.Kill(tid, 0) != nil {
			delete(in.threads, tid)
		}
	}
	for pid := range in.execed {
		if unix.Kill(pid, 0) != nil {
			delete(in.execed, pid)
			delete(in.mains, pid)
		}
	}
}

// disarm says whether the fault has happened, and how often each call was made since arm.
func (in *injector) disarm() (hit bool, counts map[step]int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.armed = nil
	counts = map[step]int{}
	for s, n := range in.counts {
		counts[s] = n
	}
	return in.hit, counts
}
