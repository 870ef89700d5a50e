package session

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"p9auth/factotum/pam/internal/log"
)

// logindRuns is where pam_systemd(8) looks, too, and does nothing if it is not there.
const logindRuns = "/run/systemd/seats"

// openSession has PAM's modules open the session. Those of su find the worker in its
// caller's control groups, where a setuid program is: by them pam_systemd(8) knows that
// the caller is in a session, so that the target user gets none of their own, with a
// service manager. Afterwards the worker is back in its own groups, out of the caller's
// reach, unless a module has moved it.
func (s *Session) openSession() error {
	takeBack, err := s.lend()
	if err != nil {
		return err
	}
	defer takeBack()
	if _, err := os.Stat(logindRuns); err != nil || !s.Login.Local {
		return s.Transaction.OpenSession(s.silent)
	}
	own := groupsOf("self")
	callers := groupsOf(fmt.Sprint(s.Login.PID))
	if s.ended() {
		return errors.New("the caller has ended") // and the groups may be another's
	}
	enter(callers, own)
	err = s.Transaction.OpenSession(s.silent)
	if now := groupsOf("self"); maps.Equal(now, callers) {
		enter(own, now)
	}
	return err
}

// ended says whether the session's process has.
func (s *Session) ended() bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.PIDFD.Fd()), Events: unix.POLLIN}}, 0)
	return err != nil || n != 0
}

// groupsOf are the control groups of a process by which logind knows it, those of the
// hierarchies that systemd makes.
func groupsOf(pid string) cgroups {
	b, _ := os.ReadFile("/proc/" + pid + "/cgroup")
	c := parseCgroups(string(b))
	maps.DeleteFunc(c, func(controllers, _ string) bool { return controllers != "" && controllers != "name=systemd" })
	return c
}

// enter moves this process from some groups to others. Where it cannot, logind takes the
// caller to be in no session.
func enter(to, from cgroups) {
	for _, dir := range to.changed(from) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			log.Warn("the PAM worker does not move to another control group", "error", err.Error())
		}
	}
}
