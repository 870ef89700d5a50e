package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/becomerecord"
	"p9auth/internal/proc"
	"p9auth/internal/sys"
)

// A tty is a terminal that a front end passed, after the kernel was asked.
type tty struct {
	f      *os.File      // O_PATH: does not keep the line open after a hangup
	name   string        // in /dev: "tty1", "pts/3"
	owner  pamwire.Owner // before the session
	rdev   uint64        // the device
	file   becomerecord.TTY
	byHand bool // root leads its session: login was started there by hand
	taken  bool // a worker has it, and closes it
}

// isPTY reports whether the terminal is one that anybody can make.
func (t *tty) isPTY() bool { return strings.HasPrefix(t.name, "pts/") }

// checkTTY accepts a descriptor only if it is the controlling terminal of the
// process that sent it, which has that uid, and has a name in /dev that leads to the
// same device. It asks no file system that a front end could have made.
func checkTTY(fd, pid int, uid uint32) (*tty, error) {
	st, err := statx(fd, "")
	if err != nil {
		return nil, fmt.Errorf("tty: statx: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return nil, errors.New("tty: not a character device")
	}
	ps, err := proc.ReadStat(pid)
	if err != nil {
		return nil, fmt.Errorf("tty: its sender: %w", err)
	}
	if ps.TTY == 0 || uint64(ps.TTY) != rdev(st) {
		return nil, errors.New("tty: not the controlling terminal of its sender")
	}
	// A terminal is taken from whoever has it open, and only the process that leads
	// its session can have it again. Where that is a shell of root's, the terminal
	// stays root's: login was started there by hand.
	byHand := ps.Session != pid
	if byHand {
		leader, err := proc.ReadStatus(ps.Session)
		if err != nil || leader.UID != 0 || st.Uid == uid {
			return nil, errors.New("tty: its sender does not lead the session of the terminal")
		}
	}
	// An ioctl may mean anything to another device: this one the kernel has as a
	// terminal.
	if _, err := sys.GetTermios(fd); err != nil {
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
	// The path is of the sender's mount namespace, where /dev/shm may have anything.
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if d, err := statx(unix.AT_FDCWD, dir); err != nil || d.Uid != 0 || d.Mode&unix.S_IFMT != unix.S_IFDIR || d.Mode&0o022 != 0 {
			return nil, fmt.Errorf("tty: %s is not root's alone", dir)
		}
	}
	there, err := statx(unix.AT_FDCWD, path)
	if err != nil || rdev(there) != rdev(st) || there.Ino != st.Ino || there.Dev_major != st.Dev_major || there.Dev_minor != st.Dev_minor {
		return nil, fmt.Errorf("tty: %s is another device", path)
	}
	pfd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("tty: %w", err)
	}
	return &tty{
		f: os.NewFile(uintptr(pfd), path), name: name,
		owner: pamwire.Owner{UID: st.Uid, GID: st.Gid, Mode: uint32(st.Mode) & 0o7777}, rdev: rdev(st), file: becomerecord.TTY{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino}, byHand: byHand,
	}, nil
}

// statx is statx(2) of a path, or of fd where the path is empty, that waits for no
// file server and follows no link.
func statx(fd int, path string) (*unix.Statx_t, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, path, unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
	return &st, err
}

// rdev is the device that a device file stands for.
func rdev(st *unix.Statx_t) uint64 { return unix.Mkdev(st.Rdev_major, st.Rdev_minor) }

// isOf reports whether the terminal is the controlling one of a process.
func (t *tty) isOf(pid int) bool {
	ps, err := proc.ReadStat(pid)
	return err == nil && uint64(ps.TTY) == t.rdev
}
