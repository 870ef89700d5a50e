package sys

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The runtime's hooks around a fork, as package syscall uses them. They let other
// packages link to these: https://go.dev/issue/67401.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// A start is what the child needs between fork and exec, where it can allocate
// nothing.
type start struct {
	program    int // a descriptor, as the others
	files      [8]int
	n          int // how many of them are used
	failed     int // where the child says what failed
	setctty    bool
	dir, empty *byte
	argv, env  **byte
}

// StartFD starts the program that fd is a descriptor of, opened with O_PATH, say:
// os.StartProcess for a program without a name, as in a root directory without
// /proc. The program leads a session of its own, with its standard input as its
// controlling terminal if ctty is set. The files become its descriptors, from 0;
// there are at most 8.
func StartFD(fd int, argv, env []string, dir string, files []*os.File, ctty bool) (*os.Process, error) {
	s := start{n: len(files), setctty: ctty}
	if s.n > len(s.files) {
		return nil, fmt.Errorf("start a program with %d files: at most %d", s.n, len(s.files))
	}
	args, err1 := syscall.SlicePtrFromStrings(argv)
	vars, err2 := syscall.SlicePtrFromStrings(env)
	var err3, err4 error
	s.dir, err3 = syscall.BytePtrFromString(dir)
	s.empty, err4 = syscall.BytePtrFromString("")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	s.argv, s.env = &args[0], &vars[0]
	// What the child needs lies above the places that it puts the files to.
	var copies []int
	defer func() {
		for _, c := range copies {
			unix.Close(c)
		}
	}()
	above := func(fd int) (int, error) {
		c, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, len(s.files))
		if err == nil {
			copies = append(copies, c)
		}
		return c, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	defer unix.Close(pipe[0])
	s.failed, err1 = above(pipe[1])
	unix.Close(pipe[1])
	s.program, err2 = above(fd)
	for i, f := range files {
		s.files[i], err3 = above(int(f.Fd()))
		err1 = errors.Join(err1, err3)
	}
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("dup: %w", err)
	}
	syscall.ForkLock.Lock()
	pid, e := s.fork()
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(files)
	if e != 0 {
		return nil, fmt.Errorf("fork: %w", e)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil, err
	}
	for _, c := range copies {
		unix.Close(c)
	}
	copies = nil
	var why [4]byte
	for {
		n, err := unix.Read(pipe[0], why[:])
		switch {
		case err == unix.EINTR:
			continue
		case n == 0: // closed by exec
			return p, nil
		}
		p.Wait()
		return nil, syscall.Errno(*(*int32)(unsafe.Pointer(&why[0])))
	}
}

// fork starts the child. Between beforeFork and the end of the child there are
// raw system calls only, on a stack that cannot grow.
//
//go:noinline
//go:norace
func (s *start) fork() (int, syscall.Errno) {
	var pid uintptr
	var e syscall.Errno
	var i int
	beforeFork()
	pid, _, e = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 || pid != 0 {
		afterFork()
		return int(pid), e
	}
	afterForkInChild()
	_, _, e = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	if e != 0 {
		goto failed
	}
	_, _, e = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(s.dir)), 0, 0)
	if e != 0 {
		goto failed
	}
	for i = 0; i < s.n; i++ {
		_, _, e = syscall.RawSyscall(unix.SYS_DUP3, uintptr(s.files[i]), uintptr(i), 0)
		if e != 0 {
			goto failed
		}
	}
	if s.setctty {
		_, _, e = syscall.RawSyscall(unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 1)
		if e != 0 {
			goto failed
		}
	}
	_, _, e = syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(s.program), uintptr(unsafe.Pointer(s.empty)),
		uintptr(unsafe.Pointer(s.argv)), uintptr(unsafe.Pointer(s.env)), unix.AT_EMPTY_PATH, 0)
failed:
	syscall.RawSyscall(unix.SYS_WRITE, uintptr(s.failed), uintptr(unsafe.Pointer(&e)), 4)
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 253, 0, 0)
	}
}
