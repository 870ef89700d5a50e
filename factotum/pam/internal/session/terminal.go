package session

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/internal/logindefs"
	"p9auth/internal/proc"
)

// A Terminal is the terminal of a session. Its descriptor (O_PATH) does not keep the
// line open, so the line can still be hung up.
type Terminal struct {
	f     *os.File
	owner pamwire.Owner // to whom it is given back
	rdev  uint64
	led   bool // the session's process leads the session of the terminal
}

// OpenTerminal remembers the terminal's owner and mode. f stays the caller's.
func OpenTerminal(f *os.File) (*Terminal, error) {
	fd, err := unix.Open(procFD(f), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reopen the terminal: %w", err)
	}
	t := &Terminal{f: os.NewFile(uintptr(fd), "tty")}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err != nil {
		err = fmt.Errorf("fstat the terminal: %w", err)
	} else if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		err = errors.New("the terminal is not a character device")
	}
	if err != nil {
		t.f.Close()
		return nil, err
	}
	t.owner = pamwire.Owner{UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777}
	t.rdev = st.Rdev
	return t, nil
}

// GiveBackTo sets to whom the terminal is given back, where a worker that has died
// had given it to the user.
func (t *Terminal) GiveBackTo(o pamwire.Owner) { t.owner = o }

func procFD(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// give makes the terminal the user's, with the group and mode of login.defs(5):
// TTYGROUP and TTYPERM.
func (t *Terminal) give(a *nss.Account, d logindefs.Defs) error {
	gid, mode := a.GID, 0o600
	if name := d.String("TTYGROUP", "tty"); name != "" {
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			gid = uint32(n)
		} else if n, ok, err := nss.GroupID(name); err != nil {
			slog.Warn("the terminal gets the user's group", "TTYGROUP", name, "error", err.Error())
		} else if ok {
			gid = n
			mode = 0o620
		}
	}
	return t.set(pamwire.Owner{UID: a.UID, GID: gid, Mode: uint32(d.Int("TTYPERM", mode)) & 0o777})
}

// isOf reports whether the terminal is the controlling one of the session's
// process. Since factotum checked that, somebody else may have logged in there.
func (t *Terminal) isOf(pid int) bool {
	ps, err := proc.ReadStat(pid)
	if err != nil || uint64(ps.TTY) != t.rdev {
		return false
	}
	t.led = ps.Session == pid
	return true
}

// back gives the terminal to its owner of before and hangs it up: a process that the
// user has left behind must not read what the next user types. The kernel hangs up
// too when a session's process ends, but until here the user could open the
// terminal again. It does nothing if the terminal no longer belongs to the user.
// Nor does it hang up where the session's process did not lead the terminal's
// session: login was started by hand there, and the line is that person's.
func (t *Terminal) back(user *nss.Account) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(t.f.Fd()), &st); err != nil {
		return fmt.Errorf("fstat the terminal: %w", err)
	}
	if st.Uid != user.UID {
		return nil
	}
	if err := t.set(t.owner); err != nil {
		return err
	}
	if !t.led {
		return nil
	}
	if m := unix.Major(t.rdev); m >= 136 && m <= 143 { // the slave of a pty
		// Hanging up throws away what the other end has not read yet.
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

func (t *Terminal) set(o pamwire.Owner) error {
	if err := unix.Fchownat(int(t.f.Fd()), "", int(o.UID), int(o.GID), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("chown the terminal: %w", err)
	}
	if err := unix.Chmod(procFD(t.f), o.Mode); err != nil {
		return fmt.Errorf("chmod the terminal: %w", err)
	}
	return nil
}
