package session

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/log"
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
	led   bool          // the session's process leads the session of the terminal
	taken unix.Timespec // when Take had made it root's (st_ctim), or 0
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

// Take takes the terminal from everybody who has it open, as login(1) does when it
// begins: it makes it root's, hangs it up, and opens it anew. Old descriptors are
// dead, and only root can open it until it is given to the user. The process whose
// controlling terminal it was gets SIGHUP, and the fresh descriptor from us.
//
// The line's settings stay as they were, except that it is open to more than one
// program (TIOCNXCL).
func (t *Terminal) Take() (fresh *os.File, err error) {
	if err := t.set(pamwire.Owner{Mode: 0o600}); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(t.f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("fstat the terminal: %w", err)
	}
	t.taken = st.Ctim
	old, err := t.open()
	if err != nil {
		return nil, fmt.Errorf("open the terminal to hang it up: %w", err)
	}
	// It stays open until the fresh one is: the other end of a pty would otherwise
	// see the end of the line.
	defer unix.Close(old)
	settings, err := unix.IoctlGetTermios(old, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("the terminal's settings: %w", err)
	}
	// A modem must not drop the line.
	kept := *settings
	kept.Cflag &^= unix.HUPCL
	if err := unix.IoctlSetTermios(old, unix.TCSETS, &kept); err != nil {
		return nil, fmt.Errorf("the terminal's settings: %w", err)
	}
	if err := unix.IoctlSetInt(old, unix.TIOCVHANGUP, 0); err != nil {
		return nil, fmt.Errorf("hang up the terminal: %w", err)
	}
	fd, err := t.open()
	if err != nil {
		return nil, fmt.Errorf("open the terminal anew: %w", err)
	}
	err = errors.Join(
		unix.IoctlSetTermios(fd, unix.TCSETS, settings), unix.IoctlSetInt(fd, unix.TIOCNXCL, 0),
		unix.SetNonblock(fd, false), unix.Fstat(fd, &st))
	if err == nil && st.Rdev != t.rdev {
		err = errors.New("it is another device")
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("the fresh terminal: %w", err)
	}
	return os.NewFile(uintptr(fd), "tty"), nil
}

// Untake gives a terminal that was taken, and that no user got, to its owner of
// before, if nobody has changed its owner or mode since. It does nothing for
// another.
func (t *Terminal) Untake() error {
	if t.taken == (unix.Timespec{}) {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(t.f.Fd()), &st); err != nil {
		return fmt.Errorf("fstat the terminal: %w", err)
	}
	was := t.taken
	t.taken = unix.Timespec{}
	if st.Ctim != was {
		return nil
	}
	return t.set(t.owner)
}

// open opens the terminal. It does not wait for a line's carrier.
func (t *Terminal) open() (fd int, err error) {
	return unix.Open(procFD(t.f), unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// give makes the terminal the user's, with the group and mode of login.defs(5):
// TTYGROUP and TTYPERM.
func (t *Terminal) give(a *nss.Account, d logindefs.Defs) error {
	gid, mode := a.GID, 0o600
	if name := d.String("TTYGROUP", "tty"); name != "" {
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			gid = uint32(n)
		} else if n, ok, err := nss.GroupID(name); err != nil {
			log.Warn("the terminal gets the user's group", "TTYGROUP", name, "error", err.Error())
		} else if ok {
			gid = n
			mode = 0o620
		}
	}
	t.taken = unix.Timespec{}
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

// back gives the terminal to its owner of before, unless it belongs to somebody else
// by now, and hangs it up: a process that the user has left behind must not read what
// the next user types. The kernel hangs up too when a session's process ends, but
// until here the user could open the terminal again.
// It does not hang up where the session's process did not lead the terminal's
// session: login was started by hand there, and the line is that person's.
func (t *Terminal) back(user *nss.Account) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(t.f.Fd()), &st); err != nil {
		return fmt.Errorf("fstat the terminal: %w", err)
	}
	if st.Uid == user.UID {
		if err := t.set(t.owner); err != nil {
			return err
		}
	}
	if !t.led {
		return nil
	}
	if m := unix.Major(t.rdev); m >= 136 && m <= 143 { // the slave of a pty
		// Hanging up throws away what the other end has not read yet.
		time.Sleep(300 * time.Millisecond)
	}
	return t.hangUpUnused()
}

// hangUpUnused hangs the terminal up if it is no session's controlling terminal. Where
// the next prompt is there already, that must stay, and the next Take does it:
// before then nobody types a password there.
func (t *Terminal) hangUpUnused() error {
	fd, err := t.open()
	if err == unix.EIO || err == unix.ENXIO {
		return nil // the other end of the line has gone
	}
	if err != nil {
		return fmt.Errorf("open the terminal to hang it up: %w", err)
	}
	defer unix.Close(fd)
	// The kernel makes a terminal the controlling one of a session leader, as this
	// process is, only if no other session has it: see TIOCSCTTY in
	// ioctl_tty(2). Nobody can take it between this and the hang-up, which ends that.
	if err := unix.IoctlSetInt(fd, unix.TIOCSCTTY, 0); err != nil {
		return nil // it is in use again
	}
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
