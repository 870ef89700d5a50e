package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/msteinert/pam/v2"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/pam/internal/records"
	"p9auth/internal/logindefs"
)

// Bounds of the environment that modules may give to a user.
const (
	maxEnv     = 256
	maxEnvSize = 64 << 10
)

// A session is an open PAM session and the process that it is for.
type session struct {
	pidfd *os.File
	pid   int
}

// open opens the PAM session and gives the session's process what the modules
// gave this one. The process itself has no part in it.
func (w *worker) open(p capproto.Packet) (*session, error) {
	w.opening = true
	pid, err := strconv.Atoi(p.Get("pid"))
	if err != nil {
		return nil, fmt.Errorf("session: pid: %w", err)
	}
	s := &session{p.Files[0], pid}
	defs, err := logindefs.Read(logindefs.Path)
	if err != nil {
		slog.Warn("settings are left out", "error", err.Error())
	}

	groups, err := w.acct.groups()
	if err != nil {
		return nil, err
	}
	if err := setgroups(groups); err != nil {
		return nil, err
	}
	before := readEffects()
	known := w.history()

	if w.home(defs).hush {
		w.silent = pam.Silent
	}
	if err := w.tx.SetCred(pam.EstablishCred | w.silent); err != nil {
		return nil, w.refused(capproto.CodeAccount, "", err)
	}
	if err := w.tx.OpenSession(w.silent); err != nil {
		w.tx.SetCred(pam.DeleteCred | w.silent)
		return nil, w.refused(capproto.CodeAccount, "", err)
	}
	// From here on the session must be closed, whatever happens.
	m, err := w.opened(s, pid, before, defs)
	if err != nil {
		w.close(pid)
		return nil, err
	}
	w.recordLogin(pid, known, defs)
	if err := w.conn.Send(m); err != nil {
		w.close(pid)
		return nil, err
	}
	return s, nil
}

// opened applies the effects of the modules from outside and describes the
// rest of them.
func (w *worker) opened(s *session, pid int, before effects, defs logindefs.Defs) (capproto.Msg, error) {
	m := capproto.NewMsg("opened", "user", w.acct.name, "uid", utoa(w.acct.uid), "gid", utoa(w.acct.gid),
		"home", w.acct.home, "shell", w.acct.shell)
	if err := w.tx.SetCred(pam.ReinitializeCred | w.silent); err != nil {
		slog.Debug("pam_setcred(PAM_REINITIALIZE_CRED)", "error", err.Error())
	}
	if w.silent != 0 {
		m.Add("hush", "yes")
	}
	if h := w.home(defs); h.err != nil { // again: a module may have made it
		m.Add("nohome", h.err.Error())
	}

	after := readEffects()
	m.Add("groups", after.groups(w.acct.gid))
	if after.umask != before.umask {
		m.Add("umask", fmt.Sprintf("%03o", after.umask))
	}
	for name, i := range map[string]int{"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC} {
		if n := after.limits[i]; n != before.limits[i] {
			m.Add(name, fmt.Sprintf("%d:%d", n.Cur, n.Max))
		}
	}
	env, err := w.tx.GetEnvList()
	if err != nil {
		return m, fmt.Errorf("pam_getenvlist: %w", err)
	}
	n, size := 0, 0
	for k, v := range env {
		n, size = n+1, size+len(k)+len(v)
		if n > maxEnv || size > maxEnvSize {
			slog.Warn("PAM's environment is too large; the rest is left out", "user", w.acct.name)
			break
		}
		m.Add("env", k+"="+v)
	}
	if err := after.apply(before, pid, s.pidfd); err != nil {
		return m, err
	}
	if w.tty != nil {
		// The modules may have taken their time.
		if !w.tty.isOf(pid) {
			return m, &capproto.Error{Code: capproto.CodeAccount, Text: "the terminal is in other hands; log in again"}
		}
		if err := w.tty.give(w.acct, defs); err != nil {
			return m, err
		}
	}
	return m, nil
}

// adopt takes over the session of a worker that has died.
func (w *worker) adopt(p capproto.Packet) error {
	if len(p.Files) < 1 {
		return errors.New("adopt without a pidfd")
	}
	if len(p.Files) > 1 {
		var err error
		if w.tty, err = openTerminal(p.Files[1]); err != nil {
			return err
		}
		if _, err = fmt.Sscanf(p.Get("owner"), "%d:%d:%o", &w.tty.uid, &w.tty.gid, &w.tty.mode); err != nil {
			return fmt.Errorf("adopt: owner: %w", err)
		}
	}
	if err := w.transaction(p.Msg); err != nil {
		return err
	}
	w.opening = true
	var err error
	if w.acct, err = lookup(p.Get("user")); err != nil {
		return err
	}
	pid, err := strconv.Atoi(p.Get("pid"))
	if err != nil {
		return fmt.Errorf("adopt: pid: %w", err)
	}
	if w.tty != nil {
		w.tty.isOf(pid) // and does it lead?
	}
	return w.serve(&session{p.Files[0], pid})
}

// settle is for how many milliseconds a session must last to be worth tidying
// up for.
const settle = 2000

// serve waits for the end of the session's process and closes the session.
func (w *worker) serve(s *session) error {
	wait := settle
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.pidfd.Fd()), Events: unix.POLLIN}}, wait)
		if n > 0 {
			break
		}
		if err == nil {
			// Days may pass now in which this process only waits.
			debug.FreeOSMemory()
			wait = -1
			continue
		}
		if err != unix.EINTR {
			slog.Error("poll the session's process", "error", err.Error())
			break
		}
	}
	// factotum may be gone, and need not hear it.
	w.conn.Send(capproto.NewMsg("closing"))
	w.close(s.pid)
	w.conn.Send(capproto.NewMsg("closed"))
	return nil
}

// close gives the terminal back and undoes what open did, as the man page of
// each function wants it.
func (w *worker) close(pid int) {
	wtmp := records.Size(records.WtmpPath)
	if w.tty != nil {
		if err := w.tty.back(w.acct); err != nil && !errors.Is(err, unix.ENOENT) {
			slog.Warn("the terminal is not given back", "error", err.Error())
		}
	}
	if err := w.tx.CloseSession(w.silent); err != nil {
		slog.Warn("pam_close_session", "user", w.acct.name, "error", err.Error())
	}
	if err := w.tx.SetCred(pam.DeleteCred | w.silent); err != nil {
		slog.Debug("pam_setcred(PAM_DELETE_CRED)", "error", err.Error())
	}
	w.recordLogout(pid, wtmp)
	w.end()
}

// A home is what the user finds at home.
type home struct {
	err  error // why they cannot enter it
	hush bool  // they want no messages, see HUSHLOGIN_FILE in login.defs(5)
}

// home looks at the home directory with the user's own rights: their fsuid
// and fsgid, and the groups that open has set. The other capabilities that
// root has over files go with the fsuid, see capabilities(7).
func (w *worker) home(d logindefs.Defs) (h home) {
	name := d.String("HUSHLOGIN_FILE", ".hushlogin")
	if filepath.IsAbs(name) {
		h.hush = hushed(name, w.acct)
	}
	unix.SetfsgidRetGid(int(w.acct.gid))
	unix.SetfsuidRetUid(int(w.acct.uid))
	defer func() {
		unix.SetfsuidRetUid(0)
		unix.SetfsgidRetGid(0)
	}()
	fd, err := unix.Open(w.acct.home+"/.", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		h.err = err
		return h
	}
	defer unix.Close(fd)
	if !filepath.IsAbs(name) {
		var st unix.Stat_t
		h.hush = unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	}
	return h
}

// hushed looks into the administrator's list of the users and shells for which
// there are no messages. An empty one is for everybody, as with util-linux.
func hushed(path string, a *account) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line == a.name || line != "" && line == a.shell {
			return true
		}
	}
	return len(b) == 0
}

// effects are what session modules do to the process that they run in.
type effects struct {
	umask   int
	limits  [unix.RLIMIT_RTTIME + 1]unix.Rlimit
	nice    int
	oom     string
	cgroups cgroups
	gids    []int
}

func readEffects() effects {
	var e effects
	e.umask = unix.Umask(0o077)
	unix.Umask(e.umask)
	for i := range e.limits {
		unix.Getrlimit(i, &e.limits[i])
	}
	if n, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		e.nice = 20 - n // the system call's way to be positive
	}
	b, _ := os.ReadFile("/proc/self/oom_score_adj")
	e.oom = strings.TrimSpace(string(b))
	b, _ = os.ReadFile("/proc/self/cgroup")
	e.cgroups = parseCgroups(string(b))
	e.gids, _ = unix.Getgroups()
	return e
}

// groups is the group list with the primary group first.
func (e effects) groups(primary uint32) string {
	s := utoa(primary)
	for _, g := range e.gids {
		if uint32(g) != primary {
			s += "," + strconv.Itoa(g)
		}
	}
	return s
}

// apply gives the process what has changed since before.
func (e effects) apply(before effects, pid int, pidfd *os.File) error {
	ended := func() bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}, 0)
		return err != nil || n != 0
	}
	for i, l := range e.limits {
		if l == before.limits[i] {
			continue
		}
		if ended() {
			return errors.New("the session's process has ended")
		}
		if i == unix.RLIMIT_NPROC {
			if err := raise(pid, i, l); err != nil {
				return err
			}
			continue
		}
		if err := unix.Prlimit(pid, i, &l, nil); err != nil {
			return fmt.Errorf("prlimit: %w", err)
		}
	}
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

// raise makes room for the user's limit of processes, and leaves it to the
// front end to lower it, in the step that makes it the user (capuse.Target):
// until then the process counts for the front end's uid, with everybody else
// who is logging in, and a program in Go that may start no thread crashes.
// Raising takes CAP_SYS_RESOURCE, lowering nothing; the front end is told when
// the limit is above its own, so without the capability the login may fail,
// but never gets more than it should.
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

// setNice sets the nice value of each thread of a process: it is a thread's
// own, and any of them may be the one that execs the user's program.
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

func setgroups(gids []uint32) error {
	n := make([]int, len(gids))
	for i, g := range gids {
		n[i] = int(g)
	}
	if err := unix.Setgroups(n); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	return nil
}

func utoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
