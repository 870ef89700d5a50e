package user

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"p9auth/internal/sys"
	"p9auth/sshfront/internal/userlink"
)

// A ptyPair is a terminal.
type ptyPair struct {
	term      string
	name      string // /dev/pts/N
	line      string // by which it is recorded, or "" if it is not
	lastLogin string // what to tell the user of it, or ""

	mu     sync.Mutex
	master *os.File // nil when closed
	slave  *os.File // nil once a program has it
}

func (p *ptyPair) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.master != nil {
		p.master.Close()
	}
	if p.slave != nil {
		p.slave.Close()
	}
	p.master, p.slave = nil, nil
}

// hangUp lets go of a terminal. Its end is recorded before its name can be another's.
func (u *userProcess) hangUp(p *ptyPair) {
	if p.line != "" {
		u.records.End(p.line)
	}
	u.shown.CompareAndSwap(p, nil)
	p.close()
}

// control calls f with the master's descriptor.
func (p *ptyPair) control(f func(fd int) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.master == nil {
		return userlink.ErrGone
	}
	return f(int(p.master.Fd()))
}

// newPTY is the terminal of a master, see pty(7).
func newPTY(fd int) (*ptyPair, error) {
	p := &ptyPair{master: os.NewFile(uintptr(fd), "ptmx")}
	var n int
	err := sys.Again(func() (err error) { n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); return err })
	if err == nil {
		err = sys.Again(func() error { return unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0) })
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("/dev/ptmx: %w", err)
	}
	p.name = fmt.Sprintf("/dev/pts/%d", n)
	// By the master rather than by name: there may be several devpts.
	var slave uintptr
	err = sys.Again(func() (err error) {
		slave, err = ioctl(fd, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		return err
	})
	if err != nil {
		p.close()
		return nil, fmt.Errorf("open %s: %w", p.name, err)
	}
	p.slave = os.NewFile(slave, p.name)
	return p, nil
}

// ioctl is ioctl(2) with a number for its argument, where the answer is one.
func ioctl(fd int, request, arg uintptr) (uintptr, error) {
	n, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, arg)
	if e != 0 {
		return 0, e
	}
	return n, nil
}

func setSize(fd int, s userlink.Size) error {
	size := unix.Winsize{Col: uint16(s.Cols), Row: uint16(s.Rows), Xpixel: uint16(s.Width), Ypixel: uint16(s.Height)}
	return sys.Again(func() error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &size) })
}

// openPTY answers the request: RFC 4254 section 6.2.
func (u *userProcess) openPTY(id uint32, r userlink.OpenPTY) (userlink.Answer, error) {
	opt := u.info.options()
	if !u.info.Settings.PermitTTY || !opt.PTY {
		return userlink.Answer{}, userlink.Prohibitedf("a terminal is not permitted")
	}
	if len(r.Modes) > userlink.MaxModes {
		return userlink.Answer{}, userlink.Failedf("the terminal modes are malformed or too many")
	}
	if len(r.Term) > userlink.MaxTerm {
		return userlink.Answer{}, userlink.Failedf("the name of the terminal is too long")
	}
	if err := u.room(); err != nil {
		return userlink.Answer{}, err
	}
	master, err := u.master()
	if err != nil {
		return userlink.Answer{}, err
	}
	p, err := newPTY(master)
	if err != nil {
		return userlink.Answer{}, err
	}
	p.term = r.Term
	err = p.control(func(fd int) error {
		t, err := sys.GetTermios(fd)
		if err != nil {
			return err
		}
		setModes(t, r.Modes)
		if err := sys.SetTermios(fd, t); err != nil {
			return err
		}
		return setSize(fd, r.Size)
	})
	if err == nil && u.records != nil {
		// Whether it is recorded decides about no session.
		p.line, p.lastLogin, _ = u.records.Begin(p.master)
	}
	if err == nil && u.info.Root == "" {
		u.showTTY(p)
	}
	if err == nil {
		err = keep(u, id, u.ptys, p, u.maxPrograms())
	}
	if err != nil {
		u.hangUp(p)
		return userlink.Answer{}, err
	}
	fd, err := unix.FcntlInt(p.master.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return userlink.Answer{}, err
	}
	return userlink.Answer{Files: []*os.File{os.NewFile(uintptr(fd), "ptmx")}}, nil
}

// winch answers the request: RFC 4254 section 6.7.
func (u *userProcess) winch(r userlink.Winch) error {
	p, err := object(u, r.PTY, u.ptys)
	if err != nil {
		return err
	}
	return p.control(func(fd int) error { return setSize(fd, r.Size) })
}

// sendBreak answers the request Break: RFC 4335.
func (u *userProcess) sendBreak(r userlink.Break) error {
	p, err := object(u, r.PTY, u.ptys)
	if err != nil {
		return err
	}
	return p.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TCSBRK, 0) })
}
