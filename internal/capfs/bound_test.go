package capfs

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/becomerecord"
	"p9auth/internal/capuse"
)

// bind makes a capability that is bound to what b says.
func (s *served) bind(from uint32, b *becomerecord.Bound, to uint32, groups ...uint32) capproto.Cap {
	s.t.Helper()
	named := groups[:min(len(groups), capproto.MaxGroups)]
	c, err := capproto.New(capproto.Grant{From: from, To: to, Groups: named})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.fs.Bind(c.Hash(), becomerecord.Record{From: from, UID: to, Groups: groups, Bound: b}); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// execute redeems in a process of uid, in one of the ways of TestMain.
func (s *served) execute(how string, uid uint32, args ...string) string {
	s.t.Helper()
	out, _ := s.command(how, uid, args...).CombinedOutput()
	return strings.TrimSpace(string(out))
}

func TestABoundGrantExecutesWhatItSays(t *testing.T) {
	s := serve(t, Options{})
	b := shell(`echo "$0"; id -u; id -G; pwd; umask; cat /proc/self/loginuid; env`)
	b.Dir, b.Env, b.Argv[0] = "/usr", []string{"A=b"}, "name"
	got := s.execute("bound", 1500, s.bind(1500, b, 2000, 2000, 2001).Reveal())
	if want := "name\n2000\n2000 2001\n/usr\n0027\n2000"; got != want+"A=b\nPWD=/usr" && got != want+"PWD=/usr\nA=b" {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// It works once, and for its source uid only, as any other.
	c := s.bind(1500, b, 2000, 2000).Reveal()
	if got := s.execute("bound", 1501, c); !strings.Contains(got, "operation not permitted") {
		t.Errorf("as another uid: %s", got)
	}
	if got := s.execute("bound", 1500, c); !strings.HasPrefix(got, "name") {
		t.Errorf("its owner was hurt: %s", got)
	}
	if got := s.execute("bound", 1500, c); !strings.Contains(got, "operation not permitted") {
		t.Errorf("the second time: %s", got)
	}
}

// hostile redeems with all of a process set to what the user must not get, and
// executes become with arguments and an environment of its own.
func hostile(file, capability string) {
	runtime.LockOSThread()
	must := func(err error) {
		if err != nil {
			fmt.Println("hostile:", err)
			os.Exit(1)
		}
	}
	exe := redeemOnly(file, capability)
	must(os.Chdir("/tmp"))
	unix.Umask(0)
	for _, fd := range []int{3, 9, 77} {
		null, err := unix.Open("/dev/null", unix.O_RDWR, 0)
		must(err)
		must(unix.Dup3(null, 100, 0))
		must(unix.Dup2(100, fd))
	}
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGCHLD, unix.SIGUSR1)
	must(unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}))
	must(syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 150, Max: 300}))
	if os.Getenv("TEST_LOWER") != "" {
		must(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1000, Max: 1000}))
	}
	var mask [1]uint64
	mask[0] = 1<<(unix.SIGHUP-1) | 1<<(unix.SIGUSR2-1)
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, 0, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0); e != 0 {
		must(e)
	}
	// It would kill the user's program.
	_, err := unix.Setitimer(unix.ItimerReal, unix.Itimerval{Value: unix.Timeval{Usec: 300_000}})
	must(err)
	must(unix.Exec(exe, []string{"become", "nproc=1:1", "stack=65536:65536", "/tmp", "/bin/echo", "echo", "theirs"},
		[]string{"PATH=/theirs", "LD_PRELOAD=/theirs.so", "ENV=/theirs"}))
}

func TestTheRedeemerOfABoundGrantSetsNothing(t *testing.T) {
	s := serve(t, Options{})
	b := shell(`pwd; umask; echo "$PATH $LD_PRELOAD $ENV"
grep -E '^Max (processes|stack|open files|core)' /proc/$$/limits
sleep 0.6; echo alive`)
	b.Limits = map[int]becomerecord.Limit{
		unix.RLIMIT_NPROC: {Soft: 1000, Hard: 1000}, unix.RLIMIT_STACK: {Soft: 16 << 20, Hard: 32 << 20},
		unix.RLIMIT_NOFILE: {Soft: 100, Hard: 200}, unix.RLIMIT_CORE: {Soft: 0, Hard: 0},
	}
	fields := func(s string) (list []string) {
		for l := range strings.Lines(s) {
			list = append(list, strings.Join(strings.Fields(l), " "))
		}
		return list
	}
	got := fields(s.execute("hostile", 1500, s.bind(1500, b, 2000, 2000).Reveal()))
	want := []string{
		"/", "0027", "/usr/bin:/bin",
		"Max stack size 16777216 33554432 bytes", "Max core file size 0 0 bytes", "Max processes 1000 1000 processes",
		"Max open files 100 200 files", "alive",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSignalsThatTheRedeemerBlocksOrIgnoresAreNotTheUsers(t *testing.T) {
	s := serve(t, Options{})
	b := shell("")
	b.Path, b.Argv = "/bin/grep", []string{"grep", "-E", "^(SigPnd|ShdPnd|SigBlk|SigIgn)", "/proc/self/status"}
	const none = ":\t0000000000000000"
	want := strings.Join([]string{"SigPnd", "ShdPnd", "SigBlk", "SigIgn"}, none+"\n") + none
	if got := s.execute("hostile", 1500, s.bind(1500, b, 2000, 2000).Reveal()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestALimitThatTheRedeemerHasLoweredIsNotTheUsers(t *testing.T) {
	s := serve(t, Options{})
	b := shell("echo done")
	b.Limits = map[int]becomerecord.Limit{unix.RLIMIT_FSIZE: {Soft: 1 << 30, Hard: ^uint64(0)}}
	c := s.command("hostile", 1500, s.bind(1500, b, 2000, 2000).Reveal())
	c.Env = append(c.Env, "TEST_LOWER=1")
	if out, _ := c.CombinedOutput(); string(out) != "become: set a resource limit: operation not permitted\n" {
		t.Errorf("got %s", out)
	}
}

func TestADescriptorStaysOpenIfItIsNamed(t *testing.T) {
	s := serve(t, Options{})
	b := shell("")
	_, b.Path = jail(t)
	b.Argv = []string{"look"}
	if got := s.execute("hostile", 1500, s.bind(1500, b, 2000, 2000).Reveal()); got != "2000 / outside 0n 1 2" {
		t.Errorf("none is named: %s", got)
	}
	named := *b // the file server keeps the first as it is
	named.FDs = []uint32{0, 1, 2, 9, 50}
	if got := s.execute("hostile", 1500, s.bind(1500, &named, 2000, 2000).Reveal()); got != "2000 / outside 0n 1 2 9n" {
		t.Errorf("9 is named: %s", got)
	}
}

func TestClosedStandardDescriptorsAreOpenedToNull(t *testing.T) {
	s := serve(t, Options{})
	b := shell("")
	_, b.Path = jail(t)
	b.Argv = []string{"look", "3"}
	b.FDs = []uint32{0, 1, 2, 3}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := s.command("closed", 1500, s.bind(1500, b, 2000, 2000).Reveal())
	c.ExtraFiles = []*os.File{w}
	err = c.Run()
	w.Close()
	out, _ := io.ReadAll(r)
	if want := "2000 / outside 0n 1n 2n 3\n"; err != nil || string(out) != want {
		t.Errorf("got %s, %v", out, err)
	}
}

func TestAllGroupsOfABoundGrantAreSet(t *testing.T) {
	s := serve(t, Options{})
	groups := make([]uint32, becomerecord.MaxGroups)
	for i := range groups {
		groups[i] = uint32(100000 + i)
	}
	if got := s.execute("bound", 1500, s.bind(1500, shell("id -g; id -G | wc -w"), 2000, groups...).Reveal()); got != "100000\n65536" {
		t.Errorf("got %s", got)
	}
}

func TestARootDirectoryOfABoundGrant(t *testing.T) {
	s := serve(t, Options{})
	dir, look := jail(t)
	b := shell("")
	b.Root, b.Path, b.Argv = rootAt(t, dir), look, []string{"look"}
	if got := s.execute("bound", 1500, s.bind(1500, b, 2000, 2000).Reveal()); got != "2000 / inside 0n 1 2 3" {
		t.Errorf("got %s", got)
	}
	// Somebody moves the directory away, and another one to its place.
	os.Rename(dir, dir+".old")
	os.Mkdir(dir, 0o755)
	if got, want := s.execute("bound", 1500, s.bind(1500, b, 2000, 2000).Reveal()), "become: another directory has taken the place of "+dir; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// Without the right to change root in its bounding set the process is refused.
	s.refusedWithout("cap_sys_chroot", b)
	s.wantLog("lacks cap_sys_chroot in its bounding set")
}

// refusedWithout has a process redeem that lacks a capability in its bounding set.
func (s *served) refusedWithout(name string, b *becomerecord.Bound) {
	s.t.Helper()
	c := exec.Command("capsh", "--drop="+name, "--", "-c", `exec setpriv --reuid=1500 --regid=1500 --clear-groups "$@"`, "-",
		s.self, s.dir+"/capuse", s.bind(1500, b, 2000, 2000).Reveal())
	c.Env = []string{"TEST_REDEEM=bound", "PATH=" + os.Getenv("PATH")}
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "operation not permitted") {
		s.t.Errorf("without %s: got %s, %v", name, out, err)
	}
}

func TestACapabilityAndItsRecordMustAgree(t *testing.T) {
	s := serve(t, Options{})
	good := becomerecord.Record{From: 1500, UID: 2000, Groups: []uint32{2000, 2001}, Bound: shell("id -u")}
	for name, change := range map[string]func(*becomerecord.Record){
		"source":      func(r *becomerecord.Record) { r.From = 1501 },
		"target":      func(r *becomerecord.Record) { r.UID = 0 },
		"group":       func(r *becomerecord.Record) { r.Groups = []uint32{2000, 0} },
		"more groups": func(r *becomerecord.Record) { r.Groups = []uint32{2000, 2001, 0} },
		"less groups": func(r *becomerecord.Record) { r.Groups = []uint32{2000} },
	} {
		r := good
		change(&r)
		c, err := capproto.New(capproto.Grant{From: 1500, To: 2000, Groups: []uint32{2000, 2001}})
		if err == nil {
			err = s.fs.Bind(c.Hash(), r)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := s.execute("bound", 1500, c.Reveal()); !strings.Contains(got, "operation not permitted") {
			t.Errorf("another %s: %s", name, got)
		}
	}
	s.wantLog("of different users or groups")
}

func TestWhatBecomeWouldRefuseIsNotBound(t *testing.T) {
	s := serve(t, Options{})
	r := becomerecord.Record{From: 1500, UID: 2000, Groups: []uint32{2000}}
	if err := s.fs.Bind(capproto.Hash{1}, r); err == nil {
		t.Error("a record that is not bound")
	}
	r.Bound = shell("id")
	r.Bound.Path = "sh"
	if err := s.fs.Bind(capproto.Hash{1}, r); err == nil {
		t.Error("a relative path")
	}
}

func TestARedeemerWithNothingBoundDoesNothing(t *testing.T) {
	s := serve(t, Options{})
	if got := s.execute("bound", 1500, s.grant(1500, 2000, 2000).Reveal()); got != "become: usage: served by factotum, see capuse(4)" {
		t.Errorf("got %s", got)
	}
}

// twice redeems two capabilities in one process and becomes the user of the
// second, who then executes the grant of the first.
func twice(file, first, second string) {
	exe := redeemOnly(file, first)
	self, err := os.Executable()
	if err == nil {
		err = capuse.Exec(file, second, capuse.Target{Path: self, Argv: []string{self, exe}, Env: []string{"TEST_REDEEM=exec"}})
	}
	fmt.Println(err)
	os.Exit(1)
}

func TestAGrantIsForTheUserWhoRedeemed(t *testing.T) {
	s := serve(t, Options{})
	for name, first := range map[string]capproto.Cap{"unbound": s.grant(1500, 0, 0), "bound": s.bind(1500, shell("id"), 0, 0)} {
		got := s.execute("twice", 1500, first.Reveal(), s.grant(1500, 2000, 2000).Reveal())
		if got != "no such file or directory" {
			t.Errorf("%s: got %s", name, got)
		}
	}
	s.wantLog("not the user any more who redeemed")
}

func TestAnExecutableIsOpenedForNothingButExecution(t *testing.T) {
	s := serve(t, Options{})
	exe := filepath.Join(s.dir, s.redeemed(1500))
	if b, err := os.ReadFile(exe); err == nil {
		t.Errorf("another process read %d bytes", len(b))
	}
	// Its own process too: dd opens the file, and would copy it.
	c := s.command("redeem", 1500, s.bind(1500, shell("id"), 2000, 2000).Reveal())
	c.Args = []string{"sh", "-c", `exec 3<>"$0"; printf %s "$1" >&3; read -r name <&3; exec dd if="${0%/*}/$name" of=/dev/null`, s.dir + "/capuse", c.Args[2]}
	c.Path = "/bin/sh"
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("got %s, %v", out, err)
	}
}

// fillKeys uses up all keys that this user may have.
func fillKeys() {
	for i := range 100000 {
		_, err := unix.AddKey("user", fmt.Sprint("k", i), []byte("x"), unix.KEY_SPEC_USER_KEYRING)
		if errors.Is(err, unix.EDQUOT) {
			fmt.Println("full")
			return
		}
		if err != nil {
			fmt.Println(err)
			return
		}
	}
}

func TestTooManyKeysDoNotKeepAUserOut(t *testing.T) {
	s := serve(t, Options{})
	user := 200000 + rand.Uint32N(1<<30) // keys are counted by uid, for the whole machine
	switch got := s.execute("fillkeys", user); got {
	case "full":
	case unix.ENOSYS.Error():
		t.Skip("the kernel has no keys")
	default:
		t.Fatalf("cannot use the user's keys up: %s", got)
	}
	t.Cleanup(func() {
		c := exec.Command("keyctl", "clear", "@u")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		c.Run()
	})
	const line = "become: no new session keyring: you have too many keys: disk quota exceeded\n"
	if got := s.execute("with keys redeem", 1500, s.grant(1500, user, user).Reveal(), "id -u"); got != line+fmt.Sprint(user) {
		t.Errorf("got %s", got)
	}
	if got := s.execute("with keys bound", 1500, s.bind(1500, shell("id -u"), user, user).Reveal()); got != line+fmt.Sprint(user) {
		t.Errorf("bound: got %s", got)
	}
}

// A login at a terminal is executed there, whatever the redeemer has as its standard
// descriptors: not even at a pty of the same number in another devpts.
func TestTheStandardDescriptorsOfABoundGrantAreItsTerminal(t *testing.T) {
	s := serve(t, Options{})
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	_, other, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	twin := twinOf(t, slave)
	at := rootAt(t, slave.Name())
	for name, c := range map[string]struct {
		files [3]*os.File
		want  string
	}{
		"the terminal":                   {[3]*os.File{slave, slave, slave}, "it is me"},
		"/dev/null as standard input":    {[3]*os.File{null, slave, slave}, "not the terminal of this login"},
		"/dev/null as standard output":   {[3]*os.File{slave, null, slave}, "not the terminal of this login"},
		"another pty as standard input":  {[3]*os.File{other, slave, slave}, "not the terminal of this login"},
		"its number in another devpts":   {[3]*os.File{twin, twin, slave}, "not the terminal of this login"},
		"standard input that was closed": {[3]*os.File{nil, slave, slave}, "not the terminal of this login"},
	} {
		b := shell("echo it is me; sleep 0.1")
		b.TTY = &becomerecord.TTY{Dev: at.Dev, Ino: at.Ino}
		cmd := s.command("bound", 1500, s.bind(1500, b, 2000, 2000).Reveal())
		cmd.Stdout, cmd.Stderr = c.files[1], c.files[2]
		if c.files[0] != nil {
			cmd.Stdin = c.files[0]
		}
		said := make(chan string)
		go func() {
			text, b := "", make([]byte, 1000)
			for n, err := 0, error(nil); err == nil && !strings.Contains(text, "it is me") && !strings.Contains(text, "this login"); text += string(b[:n]) {
				n, err = master.Read(b)
			}
			said <- text
		}()
		err := cmd.Run()
		if got := <-said; !strings.Contains(got, c.want) || (err == nil) != (name == "the terminal") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// twinOf is a pty of the same device number in a devpts of its own, which any user can
// have in a namespace.
func twinOf(t *testing.T, slave *os.File) *os.File {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("devpts", dir, "devpts", 0, "newinstance,ptmxmode=0666"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	for {
		m, err := os.OpenFile(filepath.Join(dir, "ptmx"), os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		if err := unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0); err != nil {
			t.Fatal(err)
		}
		n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint("/dev/pts/", n) != slave.Name() {
			continue
		}
		twin, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(n)), os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { twin.Close() })
		var a, b unix.Stat_t
		if err := errors.Join(unix.Fstat(int(twin.Fd()), &a), unix.Fstat(int(slave.Fd()), &b)); err != nil || a.Rdev != b.Rdev {
			t.Fatalf("devices %#x and %#x, %v", a.Rdev, b.Rdev, err)
		}
		return twin
	}
}
