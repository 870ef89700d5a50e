package session

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/msteinert/pam/v2"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/factotum/pam/internal/records"
	"p9auth/internal/logindefs"
)

// A fakePAM is a PAM whose session module is a function.
type fakePAM struct {
	open, close func() error
	setCred     func(pam.Flags) error
	env         map[string]string
	envErr      error
	calls       []string
}

func (f *fakePAM) SetCred(fl pam.Flags) error {
	f.calls = append(f.calls, fmt.Sprint("setcred ", int(fl)))
	if f.setCred == nil {
		return nil
	}
	return f.setCred(fl)
}

func (f *fakePAM) OpenSession(pam.Flags) error {
	f.calls = append(f.calls, "open")
	if f.open == nil {
		return nil
	}
	return f.open()
}

func (f *fakePAM) CloseSession(pam.Flags) error {
	f.calls = append(f.calls, "close")
	if f.close == nil {
		return nil
	}
	return f.close()
}

func (f *fakePAM) PutEnv(string) error                    { return nil }
func (f *fakePAM) GetEnvList() (map[string]string, error) { return f.env, f.envErr }

// self is the account that this process is.
func self(t *testing.T) *nss.Account {
	u, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	a, err := nss.Lookup(u.Username)
	if err != nil {
		t.Skip(err)
	}
	a.Home = t.TempDir()
	return a
}

// newSession is a session for a process of this user.
func newSession(t *testing.T) (*Session, *fakePAM) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	t.Cleanup(func() { pidfd.Close() })
	f, a := &fakePAM{}, self(t)
	return &Session{
		Transaction: f, Account: a, PAMUser: a.Name, PIDFD: pidfd, SetGroups: func([]int) error { return nil },
		Login: records.Login{Service: "login", User: a.Name, UID: a.UID, PID: cmd.Process.Pid},
	}, f
}

func closed(f *fakePAM) bool { return slices.Contains(f.calls, "close") }

func TestWhatModulesDoIsGivenToTheProcess(t *testing.T) {
	s, f := newSession(t)
	var before effects
	queue := func(pid int) unix.Rlimit {
		var l unix.Rlimit
		if err := unix.Prlimit(pid, unix.RLIMIT_MSGQUEUE, nil, &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	f.open = func() error {
		var err error
		if before, err = readEffects(); err != nil {
			return err
		}
		unix.Umask(0o027)
		limits := before.limits
		limits[unix.RLIMIT_MSGQUEUE].Cur -= 3
		limits[unix.RLIMIT_NOFILE].Cur -= 7
		return errors.Join(
			unix.Setrlimit(unix.RLIMIT_MSGQUEUE, &limits[unix.RLIMIT_MSGQUEUE]), unix.Setrlimit(unix.RLIMIT_NOFILE, &limits[unix.RLIMIT_NOFILE]))
	}
	defer func() {
		unix.Umask(before.umask)
		unix.Setrlimit(unix.RLIMIT_NOFILE, &before.limits[unix.RLIMIT_NOFILE])
		unix.Setrlimit(unix.RLIMIT_MSGQUEUE, &before.limits[unix.RLIMIT_MSGQUEUE])
	}()
	f.env = map[string]string{"A": "1", "B": "a=b c"}
	o, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	if o.Umask == nil || *o.Umask != 0o027 {
		t.Errorf("umask %v", o.Umask)
	}
	if o.NoFile == nil || o.NoFile.Soft != before.limits[unix.RLIMIT_NOFILE].Cur-7 || o.NProc != nil {
		t.Errorf("limits %v %v", o.NoFile, o.NProc)
	}
	if !slices.Equal(o.Env, []string{"A=1", "B=a=b c"}) {
		t.Errorf("%q", o.Env)
	}
	if q := queue(s.Login.PID); q.Cur != before.limits[unix.RLIMIT_MSGQUEUE].Cur-3 {
		t.Errorf("the process's limit is %+v", q)
	}
	if o.NoHome != "" || o.Hush || o.User != s.Account.Name || o.Groups[0] != s.Account.GID {
		t.Errorf("%+v", o)
	}
	if _, err := pamwire.DecodeEvent(o.Encode()); err != nil {
		t.Error(err)
	}
}

func TestASessionThatCannotBeGivenIsClosed(t *testing.T) {
	for name, breaks := range map[string]func(*Session, *fakePAM){
		"no environment":      func(_ *Session, f *fakePAM) { f.envErr = pam.ErrBuf },
		"the process's death": func(s *Session, f *fakePAM) { f.open = func() error { return die(s) } },
		"another's terminal":  func(s *Session, _ *fakePAM) { s.Terminal, _ = pty(t) },
	} {
		t.Run(name, func(t *testing.T) {
			s, f := newSession(t)
			breaks(s, f)
			if o, err := s.Open(); err == nil {
				t.Fatalf("%+v", o)
			}
			if !closed(f) || f.calls[len(f.calls)-1] != fmt.Sprint("setcred ", int(pam.DeleteCred)) {
				t.Errorf("%q", f.calls)
			}
		})
	}
}

// die ends a session's process as a module changes something that would have to be
// given to it.
func die(s *Session) error {
	unix.Kill(s.Login.PID, unix.SIGKILL)
	unix.Poll([]unix.PollFd{{Fd: int32(s.PIDFD.Fd()), Events: unix.POLLIN}}, 10000)
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_SIGPENDING, &l); err != nil {
		return err
	}
	l.Cur--
	return unix.Setrlimit(unix.RLIMIT_SIGPENDING, &l)
}

func TestPAMsNoOpensNothing(t *testing.T) {
	for name, c := range map[string]struct {
		set    func(*fakePAM)
		closes string // what undoes it
	}{
		"pam_setcred":      {func(f *fakePAM) { f.setCred = func(pam.Flags) error { return pam.ErrCred } }, fmt.Sprint("setcred ", int(pam.EstablishCred))},
		"pam_open_session": {func(f *fakePAM) { f.open = func() error { return pam.ErrAbort } }, fmt.Sprint("setcred ", int(pam.DeleteCred))},
	} {
		s, f := newSession(t)
		c.set(f)
		_, err := s.Open()
		var no pamwire.Refused
		if !errors.As(err, &no) || no.Code != capproto.CodeAccount || no.Text == "" {
			t.Errorf("%s: %v", name, err)
		}
		if closed(f) || f.calls[len(f.calls)-1] != c.closes {
			t.Errorf("%s: %q", name, f.calls)
		}
	}
	s, f := newSession(t)
	s.SetGroups = func([]int) error { return unix.EPERM }
	_, err := s.Open()
	if no := (pamwire.Refused{}); !errors.As(err, &no) || !strings.HasSuffix(no.Text, unix.EPERM.Error()) || len(f.calls) != 0 {
		t.Errorf("without the user's groups: %v, %q", err, f.calls)
	}
}

func TestPAMsEnvironmentIsBounded(t *testing.T) {
	s, f := newSession(t)
	many := map[string]string{"": "x"}
	for i := range pamwire.MaxEnv + 10 {
		many[fmt.Sprint("N", i)] = "v"
	}
	for name, env := range map[string]map[string]string{"many": many, "long": {"A": strings.Repeat("x", pamwire.MaxEnvSize)}, "long with others": {"A": strings.Repeat("x", pamwire.MaxEnvSize-1), "B": "y"}} {
		f.env = env
		got, err := s.env()
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, kv := range got {
			k, v, ok := strings.Cut(kv, "=")
			if !ok || env[k] != v || k == "" {
				t.Errorf("%s: %.20q", name, kv)
			}
			size += len(k) + len(v)
		}
		if len(got) > pamwire.MaxEnv || size > pamwire.MaxEnvSize {
			t.Errorf("%s: %d variables, %d bytes", name, len(got), size)
		}
	}
}

func TestWaitReturnsWhenTheProcessEnds(t *testing.T) {
	s, _ := newSession(t)
	ended := make(chan bool)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.Write([]byte("."))
	if s.Wait(int(r.Fd())) {
		t.Fatal("there is only something to be read")
	}
	go func() {
		if !s.Wait(-1) {
			t.Error("it has not ended")
		}
		close(ended)
	}()
	select {
	case <-ended:
		t.Fatal("it lives")
	case <-time.After(100 * time.Millisecond):
	}
	unix.Kill(s.Login.PID, unix.SIGKILL)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it has ended")
	}
}

func TestHome(t *testing.T) {
	a := self(t)
	gids, err := unix.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	var groups []uint32
	for _, g := range gids {
		groups = append(groups, uint32(g))
	}
	list := filepath.Join(t.TempDir(), "hushlogins")
	look := func(defs logindefs.Defs) home { return lookHome(a, groups, defs) }
	if h := look(nil); h.err != nil || h.hush {
		t.Errorf("%+v", h)
	}
	if h := look(logindefs.Defs{"HUSHLOGIN_FILE": list}); h.hush {
		t.Error("hushed by a list that does not exist")
	}
	for text, want := range map[string]bool{"": true, "nobody-else\n": false, " " + a.Name + " \n": true, "x\n" + a.Shell + "\n": a.Shell != "", "\n\n": false} {
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if h := look(logindefs.Defs{"HUSHLOGIN_FILE": list}); h.hush != want || h.err != nil {
			t.Errorf("%q: %+v", text, h)
		}
	}
	if err := os.WriteFile(filepath.Join(a.Home, ".hushlogin"), nil, 0); err != nil {
		t.Fatal(err)
	}
	if h := look(nil); !h.hush {
		t.Error("not hushed by .hushlogin")
	}
	a.Home = filepath.Join(a.Home, "none")
	if h := look(nil); !errors.Is(h.err, unix.ENOENT) || h.hush {
		t.Errorf("%+v", h)
	}
}

// pty makes a terminal. It returns the slave and its name.
func pty(t *testing.T) (*Terminal, *os.File) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	tty, err := OpenTerminal(slave)
	if err != nil {
		t.Fatal(err)
	}
	return tty, slave
}

func TestATerminalIsGivenAndGivenBack(t *testing.T) {
	tty, slave := pty(t)
	a := self(t)
	before := tty.owner
	mode := func() os.FileMode {
		st, err := slave.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode().Perm()
	}
	own := fmt.Sprint(os.Getgid())
	for _, c := range []struct {
		defs logindefs.Defs
		want os.FileMode
	}{
		{logindefs.Defs{"TTYGROUP": own, "TTYPERM": "0640"}, 0o640}, {logindefs.Defs{"TTYGROUP": own, "TTYPERM": "07777"}, 0o777},
		{logindefs.Defs{"TTYGROUP": own}, 0o600}, {logindefs.Defs{"TTYGROUP": "no such group"}, 0o600},
	} {
		if err := tty.give(a, c.defs); err != nil {
			t.Fatalf("%v: %v", c.defs, err)
		}
		if m := mode(); m != c.want {
			t.Errorf("%v: mode %o", c.defs, m)
		}
	}
	// It is another's now: nothing is done to it.
	if err := tty.back(&nss.Account{UID: a.UID + 1}); err != nil || mode() != 0o600 {
		t.Errorf("%v, mode %o", err, mode())
	}
	other := before
	other.Mode, other.GID = 0o604, uint32(os.Getgid())
	tty.GiveBackTo(other)
	if err := tty.back(a); err != nil || mode() != 0o604 {
		t.Errorf("%v, mode %o", err, mode())
	}
	if tty.isOf(os.Getpid()) || tty.isOf(1<<22+1) {
		t.Error("it is nobody's controlling terminal")
	}
}

func TestATerminalIsTakenFromWhoHasItOpen(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to hang up a terminal")
	}
	tty, slave := pty(t)
	if err := tty.set(pamwire.Owner{UID: 1, GID: 2, Mode: 0o640}); err != nil {
		t.Fatal(err)
	}
	tty, err := OpenTerminal(slave)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(slave.Fd())
	set, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	set.Lflag &^= unix.ECHO
	set.Cflag |= unix.HUPCL
	if err := errors.Join(unix.IoctlSetTermios(fd, unix.TCSETS, set), unix.IoctlSetInt(fd, unix.TIOCEXCL, 0)); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode&0o7777)
	}
	for range 2 { // a second try at the same terminal
		fresh, err := tty.Take()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := slave.Write([]byte("x")); !errors.Is(err, unix.EIO) {
			t.Errorf("the old descriptor writes: %v", err)
		}
		now, err := unix.IoctlGetTermios(int(fresh.Fd()), unix.TCGETS)
		if err != nil || *now != *set {
			t.Errorf("the settings are %+v, not %+v: %v", now, set, err)
		}
		if n, err := unix.IoctlGetInt(int(fresh.Fd()), unix.TIOCGEXCL); err != nil || n != 0 {
			t.Errorf("it is for one program alone: %d, %v", n, err)
		}
		if fl, err := unix.FcntlInt(fresh.Fd(), unix.F_GETFL, 0); err != nil || fl&unix.O_NONBLOCK != 0 {
			t.Errorf("flags %#x, %v", fl, err)
		}
		if _, err := fresh.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if s := state(); s != "0:0 600" {
			t.Errorf("it is %s", s)
		}
		if err := tty.Untake(); err != nil || state() != "1:2 640" {
			t.Errorf("given back: %v, %s", err, state())
		}
		slave = fresh
		fd = int(fresh.Fd())
	}
	// Once: another may have it by now.
	if err := errors.Join(tty.set(pamwire.Owner{Mode: 0o600}), tty.Untake()); err != nil || state() != "0:0 600" {
		t.Errorf("given back twice: %v, %s", err, state())
	}
	fresh, err := tty.Take()
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	time.Sleep(50 * time.Millisecond) // the kernel's clock for files is coarse
	if err := errors.Join(tty.set(pamwire.Owner{Mode: 0o600}), tty.Untake()); err != nil || state() != "0:0 600" {
		t.Errorf("given back, where the next login has taken it: %v, %s", err, state())
	}
}

func TestWhatIsNotATerminalIsRefused(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, f := range []*os.File{r, f} {
		if tty, err := OpenTerminal(f); err == nil {
			t.Errorf("%+v", tty)
		}
	}
}

func TestNiceAndLimitsOfAnotherProcess(t *testing.T) {
	s, _ := newSession(t)
	if err := setNice(s.Login.PID, 19); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Getpriority(unix.PRIO_PROCESS, s.Login.PID); err != nil || 20-n != 19 {
		t.Errorf("%d, %v", 20-n, err)
	}
	// raise does not lower.
	var now, after unix.Rlimit
	if err := unix.Prlimit(s.Login.PID, unix.RLIMIT_NPROC, nil, &now); err != nil {
		t.Fatal(err)
	}
	if err := raise(s.Login.PID, unix.RLIMIT_NPROC, unix.Rlimit{Cur: 1, Max: 1}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(s.Login.PID, unix.RLIMIT_NPROC, nil, &after); err != nil || after != now {
		t.Errorf("%+v, %v", after, err)
	}
	if err := setNice(1<<22+1, 0); err == nil {
		t.Error("no such process")
	}
}

func TestChangedCgroupsAreThoseThatDiffer(t *testing.T) {
	before := cgroups{"": "/a", "no-such-controller": "/b"}
	if dirs := maps.Clone(before).changed(before); len(dirs) != 0 {
		t.Errorf("%q", dirs)
	}
	if dirs := (cgroups{"no-such-controller": "/c"}).changed(before); len(dirs) != 0 {
		t.Errorf("a hierarchy that is not mounted: %q", dirs)
	}
}
