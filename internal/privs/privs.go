// Package privs gives rights up for good: a front end that root starts is its
// own user, with no capabilities, before it reads anything.
package privs

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/internal/proc"
	"p9auth/internal/sys"
)

// DropTo makes the process the user of that name, with no capabilities, no
// supplementary groups and no way back. A process that is not root stays who
// it is and loses its capabilities. The bounding set is left alone.
//
// Every thread is changed: the Go functions do that for ids, and
// AllThreadsSyscall for the rest.
func DropTo(name string) error {
	defer sys.BoundStops()()
	if os.Getuid() == 0 || os.Geteuid() == 0 {
		u, err := user.Lookup(name)
		if err != nil {
			return fmt.Errorf("there is no user %s to run as: create it (useradd --system %s)", name, name)
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if uid == 0 {
			return fmt.Errorf("user %s is root", name)
		}
		if err := syscall.Setgroups(nil); err != nil {
			return fmt.Errorf("setgroups: %w", err)
		}
		if err := syscall.Setresgid(gid, gid, gid); err != nil {
			return fmt.Errorf("setresgid: %w", err)
		}
		if err := syscall.Setresuid(uid, uid, uid); err != nil {
			return fmt.Errorf("setresuid: %w", err)
		}
	}
	if err := clearCapabilities(); err != nil {
		return err
	}
	// Other processes of this user must not read passwords out of this one.
	if err := Undumpable(); err != nil {
		return err
	}
	return verify()
}

// Undumpable keeps this process's memory from other processes of its user: they
// can neither trace it nor read /proc/PID/mem, and it leaves no core file. See
// PR_SET_DUMPABLE in prctl(2).
func Undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_DUMPABLE): %w", err)
	}
	return nil
}

// verify makes sure that there is nothing left and no way back.
func verify() error {
	if syscall.Setresuid(-1, 0, -1) == nil {
		return errors.New("could become root again after giving it up")
	}
	st, err := proc.ReadStatus(os.Getpid())
	if err != nil {
		return err
	}
	if st.UID == 0 || st.EUID == 0 || st.Permitted != 0 || st.Effective != 0 {
		return errors.New("still has privileges after giving them up")
	}
	return nil
}
