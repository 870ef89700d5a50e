package main

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/internal/logindefs"
	"p9auth/internal/proc"
)

// A terminal is the tty of a session. It is held by a descriptor that does not
// keep the line open (O_PATH), so that hanging up works as ever.
type terminal struct {
	f        *os.File
	uid, gid int
	mode     uint32
	rdev     uint64
	led      bool // the session's process leads the session of the terminal
}

// openTerminal remembers the terminal's owner and mode. f stays the caller's.
func openTerminal(f *os.File) (*terminal, error) {
	fd, err := unix.Open(procFD(f), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reopen the terminal: %w", err)
	}
	t := &terminal{f: os.NewFile(uintptr(fd), "tty")}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("fstat the terminal: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return nil, fmt.Errorf("the terminal is not a character device")
	}
	t.uid, t.gid, t.mode = int(st.Uid), int(st.Gid), st.Mode&0o7777
	t.rdev = st.Rdev
	return t, nil
}

func procFD(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// give makes the terminal the user's, with the group and mode of login.defs(5):
// TTYGROUP and TTYPERM.
func (t *terminal) give(a *account, d logindefs.Defs) error {
	gid, mode := int(a.gid), 0o600
	if name := d.String("TTYGROUP", "tty"); name != "" {
		if n, err := strconv.Atoi(name); err == nil {
			gid = n
		} else if n, ok, err := groupID(name); err != nil {
			slog.Warn("the terminal gets the user's group", "TTYGROUP", name, "error", err.Error())
		} else if ok {
			gid = n
			mode = 0o620
		}
	}
	return t.set(int(a.uid), gid, uint32(d.Int("TTYPERM", mode))&0o777)
}

// isOf says whether the terminal is that of the session's process. It may have
// been, and somebody else have logged in there since.
func (t *terminal) isOf(pid int) bool {
	ps, err := proc.ReadStat(pid)
	if err != nil || uint64(ps.TTY) != t.rdev {
		return false
	}
	t.led = ps.Session == pid
	return true
}

// back gives the terminal to whom it was before, unless it is the user's no
// longer, and hangs it up: what the user has left behind must not read what the
// next one types. When a session's process ends the kernel hangs up as well, but
// until now the user could open the terminal again. A login that somebody has
// started in their own session there leaves the line to them.
func (t *terminal) back(user *account) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(t.f.Fd()), &st); err != nil {
		return fmt.Errorf("fstat the terminal: %w", err)
	}
	if st.Uid != user.uid {
		return nil
	}
	if err := t.set(t.uid, t.gid, t.mode); err != nil {
		return err
	}
	if !t.led {
		return nil
	}
	if m := unix.Major(t.rdev); m >= 136 && m <= 143 { // the slave of a pty
		// To hang it up throws away what the other end has not read yet.
		time.Sleep(300 * time.Millisecond)
	}
	fd, err := unix.Open(procFD(t.f), unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.EIO || err == unix.ENXIO {
		return nil // the other end of the line has gone
	}
	if err != nil {
		return fmt.Errorf("open the terminal to hang it up: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, unix.TIOCVHANGUP, 0); err != nil {
		return fmt.Errorf("hang up the terminal: %w", err)
	}
	return nil
}

func (t *terminal) set(uid, gid int, mode uint32) error {
	if err := unix.Fchownat(int(t.f.Fd()), "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("chown the terminal: %w", err)
	}
	if err := unix.Chmod(procFD(t.f), mode); err != nil {
		return fmt.Errorf("chmod the terminal: %w", err)
	}
	return nil
}
