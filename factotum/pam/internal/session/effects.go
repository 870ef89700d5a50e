package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/factotum/internal/pamwire"
)

// effects are what a session's modules may have done to the process that they ran
// in, the worker.
type effects struct {
	umask   int
	limits  [unix.RLIMIT_RTTIME + 1]unix.Rlimit
	nice    int
	oom     string // /proc/self/oom_score_adj
	cgroups cgroups
	gids    []uint32
}

// readEffects reads them. What cannot be read must not be taken for nothing: the user would
// have it so.
func readEffects() (e effects, err error) {
	e.umask = unix.Umask(0o077)
	unix.Umask(e.umask)
	for i := range e.limits {
		if err := unix.Getrlimit(i, &e.limits[i]); err != nil {
			return e, fmt.Errorf("getrlimit: %w", err)
		}
	}
	if n, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		e.nice = 20 - n // the system call returns 20 minus the nice value
	}
	b, _ := os.ReadFile("/proc/self/oom_score_adj")
	e.oom = strings.TrimSpace(string(b))
	b, _ = os.ReadFile("/proc/self/cgroup")
	e.cgroups = parseCgroups(string(b))
	if e.gids, err = readGroups(); err != nil {
		return e, err
	}
	return e, nil
}

func readGroups() (gids []uint32, err error) {
	list, err := unix.Getgroups()
	for _, g := range list {
		gids = append(gids, uint32(g))
	}
	return gids, os.NewSyscallError("getgroups", err)
}

// groups is the group list with the primary group first.
func (e effects) groups(primary uint32) []uint32 {
	list := []uint32{primary}
	for _, g := range e.gids {
		if g != primary {
			list = append(list, g)
		}
	}
	return list
}

// describe adds what the user's process has to set for itself.
func (e effects) describe(before effects, o *pamwire.Opened) {
	if e.umask != before.umask {
		mask := uint32(e.umask)
		o.Umask = &mask
	}
	o.NoFile = e.limit(before, unix.RLIMIT_NOFILE)
	o.NProc = e.limit(before, unix.RLIMIT_NPROC)
}

// describeAll adds all limits that have changed, for a process that must have nothing
// of them before it is the user.
func (e effects) describeAll(before effects, o *pamwire.Opened) {
	for i := range e.limits {
		if l := e.limit(before, i); l != nil && i != unix.RLIMIT_NOFILE && i != unix.RLIMIT_NPROC {
			if o.Limits == nil {
				o.Limits = pamwire.Limits{}
			}
			o.Limits[i] = *l
		}
	}
}

// limit returns a limit that has changed, or nil.
func (e effects) limit(before effects, i int) *pamwire.Limit {
	if n := e.limits[i]; n != before.limits[i] {
		return &pamwire.Limit{Soft: n.Cur, Hard: n.Max}
	}
	return nil
}

// apply gives the session's process what has changed since before, unless it has ended:
// the pid may be another's then. It returns the limits that only the process itself can
// set, as this one lacks CAP_SYS_RESOURCE.
func (e effects) apply(before effects, pid int, ended func() bool) (own pamwire.Limits, err error) {
	for i, l := range e.limits {
		if l == before.limits[i] {
			continue
		}
		if ended() {
			return nil, errors.New("the session's process has ended")
		}
		if i == unix.RLIMIT_NPROC {
			if err := raise(pid, i, l); err != nil {
				return nil, err
			}
			continue
		}
		err := unix.Prlimit(pid, i, &l, nil)
		if err == unix.EPERM {
			if own == nil {
				own = pamwire.Limits{}
			}
			own[i] = pamwire.Limit{Soft: l.Cur, Hard: l.Max}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("prlimit: %w", err)
		}
	}
	return own, e.move(before, pid, ended)
}

// move gives the session's process the priority, the OOM killer's preference and the
// control groups, unless it has ended.
func (e effects) move(before effects, pid int, ended func() bool) error {
	if e.nice != before.nice && !ended() {
		if err := setNice(pid, e.nice); err != nil {
			return err
		}
	}
	if e.oom != before.oom && !ended() {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(e.oom), 0); err != nil {
			return err
		}
	}
	for _, dir := range e.cgroups.changed(before.cgroups) {
		if ended() {
			break
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("move the session's process to its control group: %w", err)
		}
	}
	return nil
}

// lowerPriority gives the caller's process a lower priority, where modules have set one:
// that is no right that the caller lacks. The user's process inherits it.
func (s *Session) lowerPriority(before, after effects) error {
	now, err := unix.Getpriority(unix.PRIO_PROCESS, s.Login.PID)
	if err != nil || s.ended() {
		return errors.New("the session's process has ended")
	}
	if after.nice == before.nice || after.nice <= 20-now {
		return nil
	}
	return setNice(s.Login.PID, after.nice)
}

// raise makes room for the user's limit of processes. The front end lowers it in
// the step that makes it the user (capuse.Target): until then the process counts
// for the front end's uid, with everybody else who is logging in, and a Go program
// that cannot start a thread crashes. Raising takes CAP_SYS_RESOURCE, lowering
// nothing. Without the capability the login may fail, but never gets more than it
// should.
func raise(pid, i int, l unix.Rlimit) error {
	var now unix.Rlimit
	err := unix.Prlimit(pid, i, nil, &now)
	if err == unix.EPERM {
		return nil
	}
	if err == nil && (now.Cur < l.Cur || now.Max < l.Max) {
		l.Cur, l.Max = max(l.Cur, now.Cur), max(l.Max, now.Max)
		err = unix.Prlimit(pid, i, &l, nil)
	}
	if err != nil {
		return fmt.Errorf("prlimit: %w", err)
	}
	return nil
}

// setNice sets the nice value of each thread of a process: the value is a thread's
// own, and any of them may be the one that executes the user's program.
func setNice(pid, nice int) error {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, nice); err != nil && err != unix.ESRCH {
			return fmt.Errorf("setpriority: %w", err)
		}
	}
	return nil
}
