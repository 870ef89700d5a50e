package sys

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LoadSeccomp loads a seccomp filter into all threads (seccomp(2),
// SECCOMP_FILTER_FLAG_TSYNC), which takes no_new_privs or CAP_SYS_ADMIN.
func LoadSeccomp(filter []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return fmt.Errorf("the kernel must have seccomp: %w", e)
	}
	if thread != 0 {
		return fmt.Errorf("thread %d has another seccomp filter", thread)
	}
	return nil
}
