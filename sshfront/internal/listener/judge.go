package listener

import (
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/control"
	"p9auth/sshfront/internal/sshlog"
)

// crashed reports whether a process has ended by a signal that stands for a fault or
// for what its sandbox forbids, and logs it, whether it has authenticated or not.
func (c *child) crashed(st *os.ProcessState) bool {
	ws := st.Sys().(syscall.WaitStatus)
	if !ws.Signaled() {
		return false
	}
	level := sshdconf.LogDebug1
	crash := slices.Contains([]syscall.Signal{
		unix.SIGSEGV, unix.SIGBUS, unix.SIGTRAP, unix.SIGSYS, unix.SIGFPE, unix.SIGILL, unix.SIGABRT}, ws.Signal())
	switch {
	case crash:
		level = sshdconf.LogError
	case ws.Signal() == unix.SIGKILL && !c.killed.Load():
		// Such as the kernel's, for want of memory. sshd does not say so.
		level = sshdconf.LogInfo
	}
	sshlog.Printf(level, "session process %d for %s killed by signal %d", st.Pid(), c.id(), ws.Signal())
	return crash
}

// logTimeout says that LoginGraceTime was over, in the words of sshd before 9.8, which
// have the port.
func (c *child) logTimeout() {
	sshlog.Printf(sshdconf.LogInfo, "Timeout before authentication for %s, pid = %d", sockets.HostPort(c.remote), c.process.Pid)
}

// judge logs how a process ended that has not authenticated.
func (c *child) judge(st *os.ProcessState, timeout bool) (o offence, offended bool) {
	ws := st.Sys().(syscall.WaitStatus)
	pid := st.Pid()
	if timeout {
		c.logTimeout()
		return offenceGrace, true
	}
	if ws.Signaled() {
		return offenceCrash, c.crashed(st)
	}
	switch ws.ExitStatus() {
	case control.ExitOK, control.ExitFailure:
		sshlog.Printf(sshdconf.LogDebug3, "preauth child %d for %s exited with status %d", pid, c.id(), ws.ExitStatus())
		return 0, false
	case control.ExitCrash:
		sshlog.Printf(sshdconf.LogError, "Session process %d unpriv child crash for %s", pid, c.id())
		return offenceCrash, true
	case control.ExitAuthFail:
		sshlog.Printf(sshdconf.LogDebug1, "preauth child %d for %s exited after unsuccessful auth attempt", pid, c.id())
		return offenceAuthFail, true
	case control.ExitInvalidUser:
		sshlog.Printf(sshdconf.LogDebug1, "preauth child %d for %s exited after auth attempt by invalid user", pid, c.id())
		return offenceInvalidUser, true
	case control.ExitRefused:
		sshlog.Printf(sshdconf.LogDebug1, "preauth child %d for %s prohibited by RefuseConnection", pid, c.id())
		return offenceRefused, true
	}
	sshlog.Printf(sshdconf.LogDebug1, "preauth child %d for %s exited with status %d", pid, c.id(), ws.ExitStatus())
	return offenceNoAuth, true
}
