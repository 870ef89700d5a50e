package proc

import (
	"os"

	"golang.org/x/sys/unix"
)

// AwaitEnd returns when a process has ended. The state of a child is there for
// os.Process.Wait then, which does not block any more. os.Process.Wait alone keeps a
// thread for as long as a child lives: a daemon with a thousand sessions would have a
// thousand of them, and would end where there is no thread left. This one waits in Go's
// poller. Where that cannot be, for want of a descriptor, it returns at once.
func AwaitEnd(pid int) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK) // Linux 5.10
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd") // nonblocking, so that it is the poller's
	defer f.Close()
	c, err := f.SyscallConn()
	if err != nil {
		return
	}
	c.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return n != 0 || err != nil && err != unix.EINTR
	})
}
