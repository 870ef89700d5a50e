package sys

import "golang.org/x/sys/unix"

// Again makes a system call until no signal interrupts it: EINTR in signal(7). Packages os
// and net do so by themselves.
func Again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
