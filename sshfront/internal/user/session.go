package user

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	systemRC = "/etc/ssh/sshrc" // as sshd(8)
	motd     = "/etc/motd"
	maxMotd  = 64 << 10
	pipeSize = 256 << 10
	// minSlots are the objects of a kind that may be held whatever
	// MaxSessions is: the connection process lets go of one after the client
	// has closed it.
	minSlots = 4
)

// A session is a program that was asked for, from exec to drop.
type session struct {
	plan plan
	pty  *ptyPair  // or nil
	x11  *listener // or nil

	mu      sync.Mutex
	proc    *os.Process // while it runs
	rc      *os.Process // while it runs
	exit    []string    // of the answer to wait; set before done is closed
	done    chan struct{}
	dropped chan struct{}
}

// maxSessions is how many sessions or terminals may be held at once.
func (s *server) maxSessions() int { return s.info.Settings.MaxSessions + minSlots }

// room reports an error if there are too many sessions.
func (s *server) room() error {
	max := s.info.Settings.MaxSessions
	if max == 0 {
		return prohibited("sessions are not permitted")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sessions) >= max+minSlots || len(s.ptys) >= max+minSlots {
		return &Error{CodeLimit, "too many sessions"}
	}
	return nil
}

// exec answers the verb: RFC 4254 section 6.5.
func (s *server) exec(r request) (answer, error) {
	if err := s.room(); err != nil {
		return answer{}, err
	}
	command, hasCommand := r.Lookup("command")
	p, err := s.info.plan(command, hasCommand, r.Get("subsystem"))
	if err != nil {
		return answer{}, err
	}
	x := &session{plan: p, done: make(chan struct{}), dropped: make(chan struct{})}
	in := envInput{client: r.All("env"), original: p.original, hasOrigin: p.hasOriginal}
	if _, has := r.Lookup("x11"); has {
		if x.x11, err = object(s, r, "x11", s.listeners); err != nil {
			return answer{}, err
		}
		if x.x11.x11 == nil {
			return answer{}, errNoSuch
		}
		in.display = x.x11.x11.display
	}
	var a answer
	var stdio [3]*os.File
	if _, has := r.Lookup("pty"); has {
		if x.pty, err = object(s, r, "pty", s.ptys); err != nil {
			return answer{}, err
		}
		slave, err := x.pty.take()
		if err != nil {
			return answer{}, err
		}
		stdio = [3]*os.File{slave, slave, slave}
		in.term, in.tty = x.pty.term, x.pty.name
	} else if stdio, a.files, err = pipes(); err != nil {
		return answer{}, err
	}
	if err = keep(s, r.id, s.sessions, x, s.maxSessions()); err != nil {
		closeAll(stdio[:])
		closeAll(a.files)
		return answer{}, err
	}
	s.mu.Lock()
	in.agent = s.agentPath
	s.mu.Unlock()
	in.authInfo = s.authInfoFile()
	env, complaints := s.info.environment(in)
	go s.run(x, stdio, env, complaints)
	return a, nil
}

// take gives the slave to the one program that runs on the terminal.
func (p *ptyPair) take() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slave == nil {
		return nil, errNoSuch
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
			// More than a user may have is no reason to fail.
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

// run runs a session's program from its beginning to its end.
func (s *server) run(x *session, stdio [3]*os.File, env, complaints []string) {
	defer close(x.done)
	proc, err := s.start(x, stdio, env, complaints)
	if err != nil {
		fmt.Fprintf(stdio[2], "%v%s", err, x.newline())
		closeAll(stdio[:])
		x.exit = []string{"status", "1"}
		return
	}
	closeAll(stdio[:])
	// Until it is reaped its pid is nobody else's, which signal relies on.
	for unix.Waitid(unix.P_PID, proc.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	x.mu.Lock()
	state, err := proc.Wait()
	x.proc = nil
	x.mu.Unlock()
	x.exit = []string{"status", "255"}
	if err != nil {
		return
	}
	switch ws := state.Sys().(syscall.WaitStatus); {
	case ws.Exited():
		x.exit = []string{"status", utoa(ws.ExitStatus())}
	case ws.Signaled():
		core := "no"
		if ws.CoreDump() {
			core = "yes"
		}
		x.exit = []string{"signal", signalName(ws.Signal()), "core", core}
	}
}

// newline ends a line on the session's standard error.
func (x *session) newline() string {
	if x.pty != nil {
		return "\r\n"
	}
	return "\n"
}

// start says what there is to say, runs the rc files and starts the program:
// the end of LOGIN PROCESS in sshd(8).
func (s *server) start(x *session, stdio [3]*os.File, env, complaints []string) (*os.Process, error) {
	say := func(text string) { io.WriteString(stdio[2], text+x.newline()) }
	for _, c := range complaints {
		say(c)
	}
	if x.plan.refusal != "" {
		return nil, errors.New(x.plan.refusal)
	}
	if x.plan.login && x.pty != nil {
		s.greet(stdio[1])
	}
	dir := s.info.Home
	if err := enterable(dir); err != nil {
		say(fmt.Sprintf("Could not chdir to home directory %s: %v", dir, err))
		dir = "/"
	}
	s.rcFiles(x, stdio, env, dir)
	proc, err := s.fork(x.plan.path, x.plan.argv, env, dir, stdio, x.pty != nil)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fmt.Errorf("%s: %w", x.plan.path, err)
	}
	x.mu.Lock()
	x.proc = proc
	x.mu.Unlock()
	return proc, nil
}

// fork starts a program in a session of its own.
func (s *server) fork(path string, argv, env []string, dir string, stdio [3]*os.File, tty bool) (*os.Process, error) {
	s.forks.RLock()
	defer s.forks.RUnlock()
	return os.StartProcess(path, argv, &os.ProcAttr{
		Dir: dir, Env: env, Files: stdio[:], Sys: &syscall.SysProcAttr{Setsid: true, Setctty: tty},
	})
}

// enterable reports whether the user may enter a directory.
func enterable(dir string) error {
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = syscall.ENOTDIR
	}
	if err == nil {
		err = unix.Access(dir, unix.X_OK)
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return err
}

// greet shows what PAM had to say, and the message of the day.
func (s *server) greet(tty *os.File) {
	i := s.info
	if _, err := os.Stat(filepath.Join(i.Home, ".hushlogin")); i.Hush || err == nil {
		return
	}
	for _, m := range i.Messages {
		io.WriteString(tty, strings.TrimSuffix(m, "\n")+"\n")
	}
	if !i.Settings.PrintMotd {
		return
	}
	if f, err := os.Open(motd); err == nil {
		defer f.Close()
		io.Copy(tty, io.LimitReader(f, maxMotd))
	}
}

// rcFiles runs ~/.ssh/rc, or sshrc, or xauth: SSHRC in sshd(8). They are in no
// terminal session, as only one program can lead it.
func (s *server) rcFiles(x *session, stdio [3]*os.File, env []string, dir string) {
	var d *display
	if x.x11 != nil {
		d = x.x11.x11
	}
	cookie := ""
	if d != nil {
		cookie = d.proto + " " + d.cookie + "\n"
	}
	rc := filepath.Join(s.info.Home, ".ssh/rc")
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	var argv []string
	switch {
	case x.plan.userRC && exists(rc):
		argv = []string{s.info.shell(), "-c", "/bin/sh .ssh/rc"}
		if dir != s.info.Home {
			return
		}
	case exists(systemRC):
		argv = []string{"/bin/sh", systemRC}
	case d != nil && s.info.Settings.XAuthLocation != "":
		argv = []string{s.info.Settings.XAuthLocation, "-q", "-"}
		cookie = fmt.Sprintf("remove %s\nadd %s %s", d.authName, d.authName, cookie)
	default:
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	proc, err := s.fork(argv[0], argv, env, dir, [3]*os.File{r, stdio[1], stdio[2]}, false)
	r.Close()
	if err != nil {
		w.Close()
		fmt.Fprintf(stdio[2], "Could not run %s%s", argv[0], x.newline())
		return
	}
	x.mu.Lock()
	x.rc = proc
	x.mu.Unlock()
	io.WriteString(w, cookie)
	w.Close()
	proc.Wait()
	x.mu.Lock()
	x.rc = nil
	x.mu.Unlock()
}

// killRC ends an rc file that still runs.
func (x *session) killRC() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rc != nil {
		syscall.Kill(-x.rc.Pid, syscall.SIGHUP)
	}
}

// authInfoFile makes the file of ExposeAuthInfo, once, and returns its name.
func (s *server) authInfoFile() string {
	if !s.info.Settings.ExposeAuthInfo {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.authInfo != "" || s.closed {
		return s.authInfo
	}
	f, err := os.CreateTemp("/tmp", "sshauth.")
	if err != nil {
		return ""
	}
	defer f.Close()
	for _, m := range s.info.Methods {
		fmt.Fprintln(f, m)
	}
	s.authInfo = f.Name()
	s.remove = append(s.remove, f.Name())
	return s.authInfo
}

// wait answers the verb.
func (s *server) wait(r request) (answer, error) {
	x, err := object(s, r, "session", s.sessions)
	if err != nil {
		return answer{}, err
	}
	select {
	case <-x.done:
		return answer{attrs: x.exit}, nil
	case <-x.dropped:
		return answer{}, errNoSuch
	}
}

// signal answers the verb: RFC 4254 section 6.9.
func (s *server) signal(r request) (answer, error) {
	x, err := object(s, r, "session", s.sessions)
	if err != nil {
		return answer{}, err
	}
	sig, ok := signals[r.Get("name")]
	if !ok {
		return answer{}, failed("there is no signal %.32q", r.Get("name"))
	}
	if x.plan.forced || x.plan.subsystem {
		return answer{}, prohibited("signals are not sent to forced commands and subsystems")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.proc == nil {
		return answer{}, errNoSuch
	}
	// It leads its session, so its pid is that of its process group.
	return answer{}, syscall.Kill(-x.proc.Pid, sig)
}

// drop answers the verb: the channel is closed.
func (s *server) drop(r request) (answer, error) {
	if _, has := r.Lookup("pty"); has {
		p, err := object(s, r, "pty", s.ptys)
		if err != nil {
			return answer{}, err
		}
		p.close()
		id, _ := parseUint(r.Msg, "pty")
		s.mu.Lock()
		delete(s.ptys, id)
		s.mu.Unlock()
		return answer{}, nil
	}
	x, err := object(s, r, "session", s.sessions)
	if err != nil {
		return answer{}, err
	}
	id, _ := parseUint(r.Msg, "session")
	s.mu.Lock()
	if s.sessions[id] == x {
		delete(s.sessions, id)
		close(x.dropped)
	}
	s.mu.Unlock()
	x.killRC()
	return answer{}, nil
}

// signals are the names of RFC 4254 section 6.10.
var signals = map[string]syscall.Signal{
	"ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM, "FPE": syscall.SIGFPE, "HUP": syscall.SIGHUP,
	"ILL": syscall.SIGILL, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "PIPE": syscall.SIGPIPE,
	"QUIT": syscall.SIGQUIT, "SEGV": syscall.SIGSEGV, "TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1,
	"USR2": syscall.SIGUSR2,
	// BSD's SIGINFO; Linux has none. sshd(8) does not know it there either.
}

// signalName is the inverse; others are named as sshd(8) does.
func signalName(sig syscall.Signal) string {
	for name, s := range signals {
		if s == sig {
			return name
		}
	}
	return "SIG@openssh.com"
}

func (s *server) settingsJSON() (string, error) {
	b, err := json.Marshal(s.info.Settings)
	return string(bytes.TrimSpace(b)), err
}
