package daemon

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/internal/proc"
)

// A tty is a terminal that a front end passed, after the kernel was asked.
type tty struct {
	f     *os.File // opened with O_PATH: it does not hold the line
	name  string   // as PAM_TTY has it: "tty1", "pts/3"
	owner string   // uid:gid:mode before the session
	rdev  uint64   // the device
}

// checkTTY accepts a descriptor only if it is a terminal, has a name in /dev
// that leads to the same device, and is the controlling terminal of the
// process that sent it.
func checkTTY(f *os.File, pid int) (*tty, error) {
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("tty: fstat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return nil, fmt.Errorf("tty: not a character device")
	}
	// Ask for the settings only of what can be a terminal, as an ioctl may
	// mean anything to another device: majors of tty and console, serial
	// lines, and ptys (Documentation/admin-guide/devices.txt).
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
		return nil, fmt.Errorf("tty: not a terminal")
	}
	ps, err := proc.ReadStat(pid)
	if err != nil {
		return nil, fmt.Errorf("tty: its sender: %w", err)
	}
	if uint64(ps.TTY) != st.Rdev {
		return nil, fmt.Errorf("tty: not the controlling terminal of its sender")
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("tty: %w", err)
	}
	name, ok := strings.CutPrefix(path, "/dev/")
	if !ok || strings.Contains(name, "..") || len(name) > 64 {
		return nil, fmt.Errorf("tty: has no name in /dev")
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
		owner: fmt.Sprintf("%d:%d:%03o", st.Uid, st.Gid, st.Mode&0o7777), rdev: st.Rdev,
	}, nil
}
