package daemon

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
)

// The terminals of a session by SSH. The user process opens them, as the user, and may
// write neither utmp(5) nor wtmp(5): it tells of them, and the worker records them, as
// sshd(8) does for its own. Who the user is and where they come from factotum knows; of
// a terminal it believes the kernel.

// beginTerminal has a terminal recorded, of which the sender has the master.
func (l *sshProto) beginTerminal(p capproto.Packet) (capproto.Msg, error) {
	if len(p.FDs) != 1 {
		return capproto.Msg{}, violation("terminal without its master")
	}
	if len(l.lines) >= pamwire.MaxTerminals {
		return capproto.Msg{}, &capproto.Error{Code: capproto.CodeLimit, Text: "too many terminals"}
	}
	tty, line, err := slave(p.FDs[0], l.user.uid)
	if err != nil {
		return capproto.Msg{}, &capproto.Error{Code: capproto.CodeDenied, Text: err.Error()}
	}
	defer tty.Close()
	if l.lines[line] {
		return capproto.Msg{}, &capproto.Error{Code: capproto.CodeDenied, Text: "the terminal " + line + " is recorded already"}
	}
	d, err := l.record(pamwire.BeginTerminal{Line: line, TTY: tty})
	if err != nil {
		return capproto.Msg{}, err
	}
	if l.lines == nil {
		l.lines = map[string]bool{}
	}
	l.lines[line] = true
	m := capproto.NewMsg(capproto.VerbOK, "line", line)
	if d.Last != "" {
		m.Add("last", d.Last)
	}
	return m, nil
}

// endTerminal has the end of a terminal recorded that the conversation has begun.
func (l *sshProto) endTerminal(p capproto.Packet) (capproto.Msg, error) {
	line := p.Get("line")
	if !l.lines[line] {
		return capproto.Msg{}, violation("hangup of %.40q, which is not a terminal of this session", line)
	}
	delete(l.lines, line)
	_, err := l.record(pamwire.EndTerminal{Line: line})
	return capproto.NewMsg(capproto.VerbOK), err
}

// record has the worker do it.
func (l *sshProto) record(r pamwire.Request) (d pamwire.Recorded, err error) {
	if err := l.tell(r); err != nil {
		return d, err
	}
	e, err := l.await()
	if err != nil {
		return d, err
	}
	d, ok := e.(pamwire.Recorded)
	if !ok {
		return d, l.unexpected(e)
	}
	return d, nil
}

// slave finds the terminal of a master: pty(7). It must be one of this machine's /dev/pts
// and the user's. The descriptor is for its path alone (O_PATH), so nothing is opened
// that could wait.
func slave(master int, uid uint32) (tty *os.File, line string, err error) {
	st, err := statx(master, "")
	if err != nil {
		return nil, "", fmt.Errorf("the master: %w", err)
	}
	// Another device could mean anything by an ioctl.
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || rdev(st) != unix.Mkdev(5, 2) {
		return nil, "", errors.New("not the master of a terminal")
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return nil, "", fmt.Errorf("TIOCGPTN: %w", err)
	}
	fd, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_PATH|unix.O_CLOEXEC)
	if e != 0 {
		return nil, "", fmt.Errorf("TIOCGPTPEER: %w", e)
	}
	line = fmt.Sprintf("pts/%d", n)
	tty = os.NewFile(fd, line)
	ours, err := statx(int(fd), "")
	if err == nil {
		var there *unix.Statx_t
		there, err = statx(unix.AT_FDCWD, "/dev/"+line)
		switch {
		case err != nil:
		case there.Ino != ours.Ino || there.Dev_major != ours.Dev_major || there.Dev_minor != ours.Dev_minor || rdev(there) != rdev(ours):
			err = errors.New("it is of another /dev/pts than this machine's")
		case ours.Uid != uid:
			err = fmt.Errorf("it belongs to uid %d", ours.Uid)
		}
	}
	if err != nil {
		tty.Close()
		return nil, "", fmt.Errorf("the terminal %s: %w", line, err)
	}
	return tty, line, nil
}
