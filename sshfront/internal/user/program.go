package user

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/sshfront/internal/userlink"
)

const (
	pipeSize = 256 << 10
	// minSlots are the objects of a kind that may be held whatever
	// MaxSessions is: the connection process lets go of one after the client
	// has closed it.
	minSlots = 4
)

// A program is what was asked for, from Exec to Drop.
type program struct {
	plan plan
	says []string  // what PAM had to say, for the first program of the connection
	pty  *ptyPair  // or nil
	x11  *listener // or nil

	mu      sync.Mutex
	proc    *os.Process   // while it runs
	rc      *os.Process   // while it runs
	exit    userlink.Exit // set before done is closed
	done    chan struct{}
	dropped chan struct{}
}

// maxPrograms is how many programs or terminals may be held at once.
func (u *userProcess) maxPrograms() int { return u.info.Settings.MaxSessions + minSlots }

// room reports an error if there are too many sessions.
func (u *userProcess) room() error {
	max := u.info.Settings.MaxSessions
	if max == 0 {
		return userlink.Prohibitedf("sessions are not permitted")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.programs) >= max+minSlots || len(u.ptys) >= max+minSlots {
		return &userlink.Error{Code: userlink.CodeLimit, Text: "too many sessions"}
	}
	return nil
}

// exec answers the request: RFC 4254 section 6.5.
func (u *userProcess) exec(id uint32, r userlink.Exec) (userlink.Answer, error) {
	if err := u.room(); err != nil {
		return userlink.Answer{}, err
	}
	p, err := u.info.plan(r.Command, r.HasCommand, r.Subsystem)
	if err != nil {
		return userlink.Answer{}, err
	}
	u.giveBack()
	x := &program{plan: p, done: make(chan struct{}), dropped: make(chan struct{})}
	in := envInput{client: r.Env, original: p.original, hasOrigin: p.hasOriginal}
	if r.X11 != 0 {
		if x.x11, err = object(u, r.X11, u.listeners); err != nil {
			return userlink.Answer{}, err
		}
		if x.x11.x11 == nil {
			return userlink.Answer{}, userlink.ErrGone
		}
		in.display = x.x11.x11.display
	}
	var a userlink.Answer
	var stdio [3]*os.File
	if r.PTY != 0 {
		if x.pty, err = object(u, r.PTY, u.ptys); err != nil {
			return userlink.Answer{}, err
		}
		slave, err := x.pty.take()
		if err != nil {
			return userlink.Answer{}, err
		}
		stdio = [3]*os.File{slave, slave, slave}
		in.term, in.tty = x.pty.term, x.pty.name
	} else if stdio, a.Files, err = pipes(); err != nil {
		return userlink.Answer{}, err
	}
	if err = keep(u, id, u.programs, x, u.maxPrograms()); err != nil {
		closeAll(stdio[:])
		closeAll(a.Files)
		return userlink.Answer{}, err
	}
	u.mu.Lock()
	x.says, u.says = u.says, nil // sshd(8), too, shows it once: session.c, do_exec
	in.agent = u.agentPath
	u.mu.Unlock()
	in.authInfo = u.authInfoFile()
	env, complaints := u.info.environment(in)
	go u.run(x, stdio, env, complaints)
	return a, nil
}

// take gives the slave to the one program that runs on the terminal.
func (p *ptyPair) take() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slave == nil {
		return nil, userlink.ErrGone
	}
	f := p.slave
	p.slave = nil
	return f, nil
}

// pipes makes the standard descriptors of a program, and our ends of them.
func pipes() (stdio [3]*os.File, ours []*os.File, err error) {
	for i := range stdio {
		var fd [2]int
		if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
			closeAll(stdio[:])
			closeAll(ours)
			return stdio, nil, fmt.Errorf("pipe: %w", err)
		}
		his, our := 1, 0
		if i == 0 {
			his, our = 0, 1
		}
		if i != 2 {
			// Where the user may not have that much, the pipe stays smaller.
			unix.FcntlInt(uintptr(fd[0]), unix.F_SETPIPE_SZ, pipeSize)
		}
		stdio[i] = os.NewFile(uintptr(fd[his]), "stdio")
		unix.SetNonblock(fd[our], true)
		ours = append(ours, os.NewFile(uintptr(fd[our]), "pipe"))
	}
	return stdio, ours, nil
}

// closeAll closes files; some may be nil, or the same.
func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// wait answers the request.
func (u *userProcess) wait(r userlink.Wait) (userlink.Answer, error) {
	x, err := object(u, r.Program, u.programs)
	if err != nil {
		return userlink.Answer{}, err
	}
	select {
	case <-x.done:
		return userlink.Answer{Exit: &x.exit}, nil
	case <-x.dropped:
		return userlink.Answer{}, userlink.ErrGone
	}
}

// signal answers the request: RFC 4254 section 6.9.
func (u *userProcess) signal(r userlink.Signal) error {
	x, err := object(u, r.Program, u.programs)
	if err != nil {
		return err
	}
	sig, ok := signals[r.Name]
	if !ok {
		return userlink.Failedf("there is no signal %.32q", r.Name)
	}
	if x.plan.forced || x.plan.subsystem {
		return userlink.Prohibitedf("signals are not sent to forced commands and subsystems")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.proc == nil {
		return userlink.ErrGone
	}
	// It leads its session, so its pid is that of its process group.
	return syscall.Kill(-x.proc.Pid, sig)
}

// drop answers the request: the channel is closed.
func (u *userProcess) drop(r userlink.Drop) error {
	if r.Program == 0 {
		p, err := object(u, r.PTY, u.ptys)
		if err != nil {
			return err
		}
		u.mu.Lock()
		delete(u.ptys, r.PTY)
		u.mu.Unlock()
		u.hangUp(p)
		return nil
	}
	x, err := object(u, r.Program, u.programs)
	if err != nil {
		return err
	}
	u.mu.Lock()
	if u.programs[r.Program] == x {
		delete(u.programs, r.Program)
		close(x.dropped)
	}
	u.mu.Unlock()
	x.killRC()
	return nil
}
