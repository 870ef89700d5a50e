package sftp

import (
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lstatAt is lstat of the name in a directory; name ends with NUL.
func lstatAt(dir int, name []byte, st *unix.Stat_t) error {
	_, _, e := unix.RawSyscall6(unix.SYS_NEWFSTATAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(st)), unix.AT_SYMLINK_NOFOLLOW, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// futimens sets the times of an open file: utimensat(2) without a name.
func futimens(fd int, t *[2]unix.Timespec) error {
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(t)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// lchmod sets the mode of a file that is not a link. Kernels before 6.6 do it
// by the name of a descriptor, as glibc does.
func lchmod(name string, mode uint32) error {
	err := unix.Fchmodat(unix.AT_FDCWD, name, mode, unix.AT_SYMLINK_NOFOLLOW)
	if err != unix.ENOSYS && err != unix.EOPNOTSUPP {
		return err
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	err = unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
	if err == unix.ENOENT {
		return unix.EOPNOTSUPP // there is no /proc
	}
	return err
}

// briefly is how long pollBriefly waits at most.
const briefly = 50 * time.Millisecond

// pollBriefly waits for events without a word to Go's scheduler, and reports whether
// there are any. The next request mostly comes soon. The scheduler, if it knew of the
// wait, would have its monitor thread take the processor away and give it back, by
// some futexes for each request. Of a long wait it must know, so that the monitor
// sleeps too.
func pollBriefly(fds []unix.PollFd) bool {
	timeout := unix.NsecToTimespec(int64(briefly))
	n, _, e := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
	return e == 0 && n > 0
}

// poll waits for events.
func poll(fds []unix.PollFd) error {
	if pollBriefly(fds) {
		return nil
	}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			return err
		}
	}
}

// readWaiting reads from a descriptor, and waits for it.
func readWaiting(fd int, b []byte) (int, error) {
	if pollBriefly([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}) {
		return raw(unix.SYS_READ, fd, b, 0)
	}
	return unix.Read(fd, b)
}

// These three and lstatAt make system calls without a word to Go's scheduler, too,
// which would look after each as if it took long: that costs more than the
// copying. There is no other goroutine that could run meanwhile. Both machines
// that p9auth is built for pass an offset in one register.

func pread(fd int, b []byte, off int64) (int, error) {
	return raw(unix.SYS_PREAD64, fd, b, off)
}

func pwrite(fd int, b []byte, off int64) (int, error) {
	return raw(unix.SYS_PWRITE64, fd, b, off)
}

// write is for a descriptor that does not block.
func write(fd int, b []byte) (int, error) { return raw(unix.SYS_WRITE, fd, b, 0) }

// raw makes a system call with a buffer that is not empty.
func raw(trap uintptr, fd int, b []byte, off int64) (int, error) {
	n, _, e := unix.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(off), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
