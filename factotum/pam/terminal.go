package main

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"p9auth/internal/logindefs"
)

// A terminal is the tty of a session. It is held by a descriptor that does not
// keep the line open (O_PATH), so that hanging up works as ever.
type terminal struct {
	f        *os.File
	uid, gid int
	mode     uint32
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

// back gives the terminal to whom it was before.
func (t *terminal) back() error { return t.set(t.uid, t.gid, t.mode) }

func (t *terminal) set(uid, gid int, mode uint32) error {
	if err := unix.Fchownat(int(t.f.Fd()), "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("chown the terminal: %w", err)
	}
	if err := unix.Chmod(procFD(t.f), mode); err != nil {
		return fmt.Errorf("chmod the terminal: %w", err)
	}
	return nil
}
