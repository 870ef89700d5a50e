package daemon

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/proc"
)

// A tty is a terminal that a front end passed, after the kernel was asked.
type tty struct {
	f     *os.File      // O_PATH: does not keep the line open after a hangup
	name  string        // as PAM_TTY has it: "tty1", "pts/3"
	owner pamwire.Owner // before the session
	rdev  uint64        // the device
	taken bool          // a worker has it, and closes it
}

// checkTTY accepts a descriptor only if it is the controlling terminal of the
// process that sent it, and has a name in /dev that leads to the same device.
func checkTTY(f *os.File, pid int) (*tty, error) {
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("tty: fstat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return nil, errors.New("tty: not a character device")
	}
	ps, err := proc.ReadStat(pid)
	if err != nil {
		return nil, fmt.Errorf("tty: its sender: %w", err)
	}
	if ps.TTY == 0 || uint64(ps.TTY) != st.Rdev {
		return nil, errors.New("tty: not the controlling terminal of its sender")
	}
	// An ioctl may mean anything to another device: this one the kernel has as a
	// terminal.
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
		return nil, errors.New("tty: not a terminal")
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("tty: %w", err)
	}
	name, ok := strings.CutPrefix(path, "/dev/")
	if !ok || strings.Contains(name, "..") || len(name) > 64 {
		return nil, errors.New("tty: has no name in /dev")
	}
	var there unix.Stat_t
	if err := unix.Stat(path, &there); err != nil || there.Rdev != st.Rdev || there.Ino != st.Ino || there.Dev != st.Dev {
		return nil, fmt.Errorf("tty: %s is another device", path)
	}
	pfd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("tty: %w", err)
	}
	return &tty{
		f: os.NewFile(uintptr(pfd), path), name: name,
		owner: pamwire.Owner{UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777}, rdev: st.Rdev,
	}, nil
}

// isOf reports whether the terminal is the controlling one of a process.
func (t *tty) isOf(pid int) bool {
	ps, err := proc.ReadStat(pid)
	return err == nil && uint64(ps.TTY) == t.rdev
}
