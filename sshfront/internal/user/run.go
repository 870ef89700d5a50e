package user

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/internal/proc"
	"p9auth/internal/words"
	"p9auth/sshfront/internal/userlink"
)

// run runs a program from its beginning to its end.
func (u *userProcess) run(x *program, stdio [3]*os.File, env, complaints []string) {
	defer close(x.done)
	start := u.start
	switch {
	case x.plan.change && x.pty == nil:
		x.refuse(stdio, stdio[2], "WARNING: Your password has expired.\nPassword change required but no TTY available.")
		return
	case x.plan.change:
		start = u.changePassword
	case x.plan.refusal != "":
		x.refuse(stdio, stdio[1], x.plan.refusal) // as sshd(8): not to standard error
		return
	}
	child, err := start(x, stdio, env, complaints)
	if err != nil {
		fmt.Fprintln(stdio[2], err)
		closeAll(stdio[:])
		x.exit = userlink.Exit{Status: 1}
		return
	}
	closeAll(stdio[:])
	proc.AwaitEnd(child.Pid)
	// Until it is reaped its pid is nobody else's, which signal relies on.
	for unix.Waitid(unix.P_PID, child.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	x.mu.Lock()
	state, err := child.Wait()
	x.proc = nil
	x.mu.Unlock()
	x.exit = userlink.Exit{Status: 255}
	if err != nil {
		return
	}
	switch ws := state.Sys().(syscall.WaitStatus); {
	case ws.Exited():
		x.exit = userlink.Exit{Status: uint32(ws.ExitStatus())}
	case ws.Signaled():
		x.exit = userlink.Exit{Signal: signalName(ws.Signal()), Core: ws.CoreDump()}
	}
}

// refuse says why nothing is run.
func (x *program) refuse(stdio [3]*os.File, out *os.File, why string) {
	io.WriteString(out, why+"\n")
	closeAll(stdio[:])
	x.exit = userlink.Exit{Status: 1}
}

// start says what there is to say, runs the rc files and starts the program:
// the end of LOGIN PROCESS in sshd(8).
func (u *userProcess) start(x *program, stdio [3]*os.File, env, complaints []string) (*os.Process, error) {
	say := func(text string) { io.WriteString(stdio[2], text+"\n") }
	for _, c := range complaints {
		say(c)
	}
	if x.plan.login {
		u.greet(stdio[1], x)
	}
	dir := u.info.Home
	if err := enterable(dir); err != nil {
		if u.info.Root == "" { // a root need not have the user's home
			say(fmt.Sprintf("Could not chdir to home directory %s: %s", dir, words.Error(err)))
		}
		dir = "/"
	}
	u.rcFiles(x, stdio, env, dir)
	var proc *os.Process
	var err error
	if x.plan.path == "" {
		files := stdio[:]
		var names *os.File
		if env, names = u.sftpServer(env); names != nil {
			defer names.Close()
			files = append(files, names)
		}
		proc, err = u.forkSelf(x.plan.argv, env, dir, files, x.pty != nil)
	} else {
		proc, err = u.fork(x.plan.path, x.plan.argv, env, dir, stdio[:], x.pty != nil)
	}
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fmt.Errorf("%s: %s", x.plan.name(), words.Error(err))
	}
	x.mu.Lock()
	x.proc = proc
	x.mu.Unlock()
	return proc, nil
}

// changePassword has the user change a password that has expired, at a terminal, as
// do_pwchange in session.c of sshd(8) does.
func (u *userProcess) changePassword(x *program, stdio [3]*os.File, _, _ []string) (*os.Process, error) {
	if x.plan.login {
		u.greet(stdio[1], x)
	}
	io.WriteString(stdio[2], "WARNING: Your password has expired.\nYou must change your password now and login again!\n")
	proc, err := u.fork(x.plan.path, x.plan.argv, []string{"PATH=" + stdPath}, "/", stdio[:], true)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	x.proc = proc
	x.mu.Unlock()
	return proc, nil
}

// fork starts a program in a session of its own. The files become its
// descriptors, from 0.
func (u *userProcess) fork(path string, argv, env []string, dir string, files []*os.File, tty bool) (*os.Process, error) {
	u.forks.RLock()
	defer u.forks.RUnlock()
	return os.StartProcess(path, argv, &os.ProcAttr{
		Dir: dir, Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true, Setctty: tty},
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
