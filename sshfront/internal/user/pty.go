package user

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// A ptyPair is a terminal.
type ptyPair struct {
	term string
	name string // /dev/pts/N

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

// control calls f with the master's descriptor.
func (p *ptyPair) control(f func(fd int) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.master == nil {
		return errNoSuch
	}
	return f(int(p.master.Fd()))
}

// openPTY allocates a terminal, see pty(7).
func openPTY() (*ptyPair, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	p := &ptyPair{master: os.NewFile(uintptr(fd), "ptmx")}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("/dev/ptmx: %w", err)
	}
	p.name = "/dev/pts/" + utoa(n)
	// By the master rather than by name: there may be several devpts.
	slave, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if e != 0 {
		p.close()
		return nil, fmt.Errorf("open %s: %w", p.name, e)
	}
	p.slave = os.NewFile(slave, p.name)
	return p, nil
}

func setSize(fd int, s Size) error {
	return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{
		Col: uint16(s.Cols), Row: uint16(s.Rows), Xpixel: uint16(s.Width), Ypixel: uint16(s.Height),
	})
}

// pty answers the verb: RFC 4254 section 6.2.
func (s *server) pty(r request) (answer, error) {
	opt := s.info.options()
	if !s.info.Settings.PermitTTY || !opt.PTY {
		return answer{}, prohibited("a terminal is not permitted")
	}
	size, err := parseSize(r.Msg)
	if err != nil {
		return answer{}, err
	}
	modes, err := capproto.UnB64(r.Get("modes"))
	if err != nil || len(modes) > maxModes {
		return answer{}, failed("the terminal modes are malformed or too many")
	}
	if len(r.Get("term")) > 256 {
		return answer{}, failed("the name of the terminal is too long")
	}
	if err := s.room(); err != nil {
		return answer{}, err
	}
	p, err := openPTY()
	if err != nil {
		return answer{}, err
	}
	p.term = r.Get("term")
	err = p.control(func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		setModes(t, modes)
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
			return err
		}
		return setSize(fd, size)
	})
	if err == nil {
		err = keep(s, r.id, s.ptys, p, s.maxSessions())
	}
	if err != nil {
		p.close()
		return answer{}, err
	}
	fd, err := unix.FcntlInt(p.master.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return answer{}, err
	}
	return answer{attrs: []string{"tty", p.name}, files: []*os.File{os.NewFile(uintptr(fd), "ptmx")}}, nil
}

func (s *server) winch(r request) (answer, error) {
	p, err := object(s, r, "pty", s.ptys)
	if err != nil {
		return answer{}, err
	}
	size, err := parseSize(r.Msg)
	if err != nil {
		return answer{}, err
	}
	return answer{}, p.control(func(fd int) error { return setSize(fd, size) })
}

// sendBreak answers the verb break: RFC 4335.
func (s *server) sendBreak(r request) (answer, error) {
	p, err := object(s, r, "pty", s.ptys)
	if err != nil {
		return answer{}, err
	}
	return answer{}, p.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TCSBRK, 0) })
}
