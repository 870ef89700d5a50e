package sys

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ExecAnother executes the first of the programs that is there and is not this one, in
// this process's place and with its arguments and environment. It returns only on
// failure; the error is os.ErrNotExist if there is none.
func ExecAnother(programs ...string) error {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return err
	}
	for _, path := range programs {
		st, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) || err == nil && os.SameFile(st, self) {
			continue
		}
		if err == nil {
			err = syscall.Exec(path, os.Args, os.Environ())
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.ErrNotExist
}
