package sys

import (
	"fmt"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"p9auth/internal/proc"
)

// MaxLetGo is how many descriptors LetGo takes.
const MaxLetGo = 64

// A holder is what the child of LetGo needs: it can allocate nothing.
type holder struct {
	fds  [MaxLetGo + 1]int // ascending; what waits for the caller is one of them
	n    int               // how many of them are used
	wait int               // the end of a pipe that the caller closes
}

// LetGo closes descriptors, at most MaxLetGo. It does not wait for what the kernel does once
// nobody has what is open there, which may take as long as whoever passed it likes: a unix
// socket that is closed with messages nobody has read closes what was passed in them, and
// of a TCP socket that can take hours, see SO_LINGER of socket(7). A child has all of it,
// too, and ends after the caller has closed them; the kernel waits for no lingering socket
// in a process that ends (inet_release in net/ipv4/af_inet.c of Linux). On an error, such as
// EAGAIN, they are open still.
func LetGo(fds []int) error {
	if len(fds) > MaxLetGo {
		return fmt.Errorf("let go of %d descriptors: at most %d", len(fds), MaxLetGo)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	h := holder{wait: pipe[0], n: len(fds) + 1}
	copy(h.fds[:], append(slices.Clone(fds), pipe[0]))
	slices.Sort(h.fds[:h.n])
	syscall.ForkLock.Lock()
	pid, e := h.fork()
	syscall.ForkLock.Unlock()
	unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	if e != 0 {
		return fmt.Errorf("fork: %w", e)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	go func() {
		proc.AwaitEnd(pid)
		unix.Wait4(pid, nil, 0, nil)
	}()
	return nil
}

// fork starts the child, which closes all but what it holds: it must be the last to have
// nothing else. Then it waits for the end of the pipe, and ends. As in start.fork, there are
// raw system calls only.
//
//go:noinline
//go:norace
func (h *holder) fork() (int, syscall.Errno) {
	var pid uintptr
	var e syscall.Errno
	var i, next int
	var b byte
	beforeFork()
	pid, _, e = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 || pid != 0 {
		afterFork()
		return int(pid), e
	}
	afterForkInChild()
	for i = 0; i < h.n; i++ {
		if h.fds[i] > next {
			syscall.RawSyscall(unix.SYS_CLOSE_RANGE, uintptr(next), uintptr(h.fds[i]-1), 0)
		}
		next = h.fds[i] + 1
	}
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, uintptr(next), 1<<32-1, 0)
	for {
		_, _, e = syscall.RawSyscall(unix.SYS_READ, uintptr(h.wait), uintptr(unsafe.Pointer(&b)), 1)
		if e != unix.EINTR {
			break
		}
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
