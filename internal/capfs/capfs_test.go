package capfs

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/becomerecord"
	"p9auth/internal/capuse"
	"p9auth/test/testbed"
)

// The test binary is also the redeemer: a process of an unprivileged uid that
// does as TEST_REDEEM says. It prints what went wrong; become's target prints
// the rest.
func TestMain(m *testing.M) {
	how := os.Getenv("TEST_REDEEM")
	if how, _ = strings.CutPrefix(how, "with keys "); how != os.Getenv("TEST_REDEEM") {
		// A session keyring, as services have one.
		if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	switch how {
	case "":
		os.Exit(m.Run())
	case "nnp":
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		redeemArgs()
	case "bound":
		fmt.Println(capuse.Redeem(os.Args[1], os.Args[2]))
		os.Exit(1)
	case "hostile":
		hostile(os.Args[1], os.Args[2])
	case "closed":
		for fd := range 3 {
			unix.Close(fd)
		}
		capuse.Redeem(os.Args[1], os.Args[2])
	case "twice":
		twice(os.Args[1], os.Args[2], os.Args[3])
	case "exec":
		fmt.Println(unix.Exec(os.Args[1], []string{"become", "", "/bin/sh", "sh", "-c", "id"}, nil))
	case "fillkeys":
		fillKeys()
	case "write", "keep":
		// Redeem, tell the name, wait.
		exe := redeemOnly(os.Args[1], os.Args[2])
		fmt.Println(filepath.Base(exe))
		if how == "keep" {
			// A handle on the executable outlives the execution.
			_, err := unix.Open(exe, unix.O_PATH, 0)
			if err == nil {
				err = unix.Exec(exe, []string{"become", "", "/bin/cat", "cat"}, nil)
			}
			fmt.Println(err)
			os.Exit(1)
		}
		io.Copy(io.Discard, os.Stdin)
	default:
		redeemArgs()
	}
}

// redeemOnly redeems a capability and returns the path of the executable.
func redeemOnly(file, capability string) string {
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(capability))
	}
	b := make([]byte, 100)
	n := 0
	if err == nil {
		n, err = unix.Read(fd, b)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	return filepath.Join(filepath.Dir(file), strings.TrimSpace(string(b[:n])))
}

func redeemArgs() {
	t := capuse.Target{Path: "/bin/sh", Argv: []string{"sh", "-c", os.Args[3]}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/"}
	if s := os.Getenv("TEST_NPROC"); s != "" {
		t.NProc = new([2]uint64)
		fmt.Sscanf(s, "%d:%d", &t.NProc[0], &t.NProc[1])
	}
	err := capuse.Exec(os.Args[1], os.Args[2], t)
	fmt.Println(err)
	os.Exit(1)
}

type served struct {
	t    *testing.T
	fs   *FS
	dir  string
	hash *os.File
	log  *testbed.Log
	self string
	mu   sync.Mutex
	skew time.Duration // how far the server's clock is ahead
}

var become = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "become")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("../become/build", dir+"/become").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%v: %s", err, out)
	}
	return os.ReadFile(dir + "/become")
})

func serve(t *testing.T, opt Options) *served {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount and to start processes of other users")
	}
	var err error
	if opt.Become, err = become(); err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir, which other users cannot enter.
	dir, err := os.MkdirTemp("", "capfs")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &served{t: t, dir: dir + "/cap", log: &testbed.Log{}, self: dir + "/redeem"}
	opt.Log = slog.New(slog.NewTextHandler(s.log, nil))
	opt.now = func() time.Time { s.mu.Lock(); defer s.mu.Unlock(); return time.Now().Add(s.skew) }
	fs, err := Mount(s.dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	s.fs = fs
	t.Cleanup(func() {
		if s.hash != nil {
			s.hash.Close()
		}
		if err := fs.Unmount(s.dir); err != nil {
			t.Error(err)
		}
	})
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(s.self, self, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.hash, err = os.OpenFile(s.dir+"/caphash", os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *served) grant(from, to uint32, groups ...uint32) capproto.Cap {
	s.t.Helper()
	c, err := capproto.New(capproto.Grant{From: from, To: to, Groups: groups})
	if err != nil {
		s.t.Fatal(err)
	}
	h := c.Hash()
	if _, err := s.hash.Write(h[:]); err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *served) command(how string, uid uint32, args ...string) *exec.Cmd {
	c := exec.Command(s.self, append([]string{s.dir + "/capuse"}, args...)...)
	c.Env = []string{"TEST_REDEEM=" + how}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{}}}
	return c
}

// redeem runs a script as the user that the capability names, starting from
// an unprivileged process of uid, and returns what is printed.
func (s *served) redeem(uid uint32, capability, script string) string {
	s.t.Helper()
	out, _ := s.command("redeem", uid, capability, script).CombinedOutput()
	return strings.TrimSpace(string(out))
}

func (s *served) wantLog(reason string) {
	s.t.Helper()
	if l := s.log.String(); !strings.Contains(l, "capability refused") || !strings.Contains(l, reason) {
		s.t.Errorf("no line about %q in the log:\n%s", reason, l)
	}
}

func TestARedeemerIsTheTarget(t *testing.T) {
	s := serve(t, Options{})
	c := s.grant(1500, 2000, 2000, 2001)
	got := s.redeem(1500, c.Reveal(), `id -u; id -g; id -G; pwd; grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status; cat /proc/self/loginuid`)
	want := `2000
2000
2000 2001
/
CapInh:	0000000000000000
CapPrm:	0000000000000000
CapEff:	0000000000000000
CapAmb:	0000000000000000
2000`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if strings.Contains(s.log.String(), c.Reveal()[len(c.Grant.Text()):]) {
		t.Error("the key is in the log")
	}
}

func TestRootIsATargetLikeAnother(t *testing.T) {
	s := serve(t, Options{})
	if got := s.redeem(1500, s.grant(1500, 0, 0).Reveal(), `id -u; id -G; head -c 0 /etc/shadow && echo reads`); got != "0\n0\nreads" {
		t.Errorf("got %s", got)
	}
}

func TestTheEnvironmentIsTheRedeemers(t *testing.T) {
	s := serve(t, Options{})
	got := s.redeem(1500, s.grant(1500, 2000, 2000).Reveal(), "exec /usr/bin/env")
	if got != "PATH=/usr/bin:/bin\nPWD=/" && got != "PWD=/\nPATH=/usr/bin:/bin" {
		t.Errorf("got %q", got)
	}
}

func TestThePidStays(t *testing.T) {
	s := serve(t, Options{})
	c := s.command("redeem", 1500, s.grant(1500, 2000, 2000).Reveal(), "echo $$")
	out, err := c.Output()
	if err != nil || strings.TrimSpace(string(out)) != fmt.Sprint(c.Process.Pid) {
		t.Errorf("pid %s, not %d: %v", out, c.Process.Pid, err)
	}
}

// crowd starts processes of a user, 30 and their shell.
func crowd(t *testing.T, uid uint32) {
	t.Helper()
	c := exec.Command("/bin/sh", "-c", "for i in $(seq 30); do sleep 1000 & done; echo in; wait")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(-c.Process.Pid, syscall.SIGKILL); c.Wait() })
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
}

func TestTheLimitOfProcessesIsForTheNewUser(t *testing.T) {
	s := serve(t, Options{})
	// Processes of one uid count together on the whole machine: one that no
	// other test has.
	user := 200000 + rand.Uint32N(1<<30)
	limited := func(script string) string {
		t.Helper()
		c := s.command("redeem", 1500, s.grant(1500, user, user).Reveal(), script)
		c.Env = append(c.Env, "TEST_NPROC=5:20")
		out, _ := c.CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	crowd(t, 1500) // more than that, but they are another's
	const script = "grep '^Max processes' /proc/self/limits; id -u"
	if got := strings.Join(strings.Fields(limited(script)), " "); got != fmt.Sprint("Max processes 5 20 processes ", user) {
		t.Errorf("got %q", got)
	}
	crowd(t, user)
	if got := limited(script); got != "become: cannot execute /bin/sh: resource temporarily unavailable" {
		t.Errorf("over the limit: got %q", got)
	}
}

func TestACapabilityWorksOnce(t *testing.T) {
	s := serve(t, Options{})
	c := s.grant(1500, 2000, 2000).Reveal()
	if got := s.redeem(1500, c, "id -u"); got != "2000" {
		t.Fatalf("got %s", got)
	}
	if got := s.redeem(1500, c, "id -u"); !strings.Contains(got, "operation not permitted") {
		t.Errorf("the second time: %s", got)
	}
	s.wantLog("unknown or was used before")
}

func TestAStrangersCapabilityIsRefusedAndKept(t *testing.T) {
	s := serve(t, Options{})
	c := s.grant(1500, 2000, 2000).Reveal()
	if got := s.redeem(1501, c, "id -u"); !strings.Contains(got, "operation not permitted") {
		t.Errorf("as another uid: %s", got)
	}
	s.wantLog("another source uid")
	if got := s.redeem(1500, c, "id -u"); got != "2000" {
		t.Errorf("its owner was hurt: %s", got)
	}
}

func TestOneBitChangedIsRefused(t *testing.T) {
	s := serve(t, Options{})
	c := s.grant(1500, 2000, 2000)
	d := c
	d.Key[31] ^= 1
	e := c
	e.Grant.To = 0
	g := c
	g.Grant.Groups = []uint32{2000, 0}
	for _, bad := range []capproto.Cap{d, e, g} {
		if got := s.redeem(1500, bad.Reveal(), "id"); !strings.Contains(got, "operation not permitted") {
			t.Errorf("%v: %s", bad, got)
		}
	}
	s.wantLog("unknown or was used before")
}

func TestBadTextIsInvalid(t *testing.T) {
	s := serve(t, Options{})
	for _, bad := range []string{"x", "1500@0@" + strings.Repeat("A", 43), "01500@2000@2000@" + strings.Repeat("A", 43)} {
		if got := s.redeem(1500, bad, "id"); !strings.Contains(got, "invalid argument") {
			t.Errorf("%q: %s", bad, got)
		}
	}
	s.wantLog("not a capability")
}

func TestExpiryIsToldApart(t *testing.T) {
	s := serve(t, Options{})
	c := s.grant(1500, 2000, 2000).Reveal()
	s.mu.Lock()
	s.skew = 2*time.Minute + time.Second
	s.mu.Unlock()
	if got := s.redeem(1500, c, "id"); !strings.Contains(got, "has expired") {
		t.Errorf("got %s", got)
	}
	s.wantLog("has expired")
}

func TestRevocationKillsACapability(t *testing.T) {
	s := serve(t, Options{})
	c := s.grant(1500, 2000, 2000)
	h := c.Hash()
	rev := append([]byte("-"), h[:]...)
	if _, err := s.hash.Write(rev); err != nil {
		t.Fatal(err)
	}
	if _, err := s.hash.Write(rev); err == nil {
		t.Error("revoked twice")
	}
	if got := s.redeem(1500, c.Reveal(), "id"); !strings.Contains(got, "operation not permitted") {
		t.Errorf("got %s", got)
	}
}

// redeemed starts a process that has redeemed a capability and executes
// nothing. It returns the name of its executable.
func (s *served) redeemed(uid uint32) (name string) {
	s.t.Helper()
	c := s.command("write", uid, s.grant(uid, 2000, 2000).Reveal())
	in, err := c.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { in.Close(); c.Wait() })
	b := make([]byte, 100)
	n, err := out.Read(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), "become.") {
		s.t.Fatalf("%q, %v", b[:n], err)
	}
	return strings.TrimSpace(string(b[:n]))
}

func TestAnotherProcessCannotUseTheExecutable(t *testing.T) {
	s := serve(t, Options{})
	exe := filepath.Join(s.dir, s.redeemed(1500))
	if _, err := os.Stat(exe); !os.IsNotExist(err) {
		t.Errorf("root sees it: %v", err)
	}
	c := exec.Command(exe, "", "/bin/sh", "sh", "-c", "id")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1500, Gid: 1500}}
	if out, err := c.CombinedOutput(); err == nil {
		t.Errorf("another process of the same uid ran it: %s", out)
	}
	s.wantLog("the executable is another process's\" uid=1500")
	names, err := os.ReadDir(s.dir)
	if err != nil || len(names) != 2 {
		t.Errorf("listing: %v, %v", names, err)
	}
}

func TestAGrantIsExecutedSoonOrNever(t *testing.T) {
	s := serve(t, Options{Exec: 50 * time.Millisecond})
	s.redeemed(1500)
	for range 200 {
		if strings.Contains(s.log.String(), "not executed in time") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the grant lives on")
}

func TestAnExecutableThatIsHeldIsForgotten(t *testing.T) {
	s := serve(t, Options{Exec: 100 * time.Millisecond})
	pidfds := func() (n int) {
		fds, _ := filepath.Glob("/proc/self/fd/*")
		for _, fd := range fds {
			if l, _ := os.Readlink(fd); l == "anon_inode:[pidfd]" {
				n++
			}
		}
		return n
	}
	before := pidfds()
	c := s.command("keep", 1500, s.grant(1500, 2000, 2000).Reveal())
	in, out := testbed.Pipes(t, c)
	defer c.Wait()
	defer in.Close()
	b := make([]byte, 100)
	if n, err := out.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "become.") {
		t.Fatalf("%q, %v", b[:n], err)
	}
	fmt.Fprintln(in, "here")
	if n, err := out.Read(b); err != nil || string(b[:n]) != "here\n" { // cat, as the user
		t.Fatalf("%q, %v", b[:n], err)
	}
	exes, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.Process.Pid))
	if !slices.ContainsFunc(exes, func(p string) bool { l, _ := os.Readlink(p); return strings.Contains(l, "/become.") }) {
		t.Fatal("it holds no executable")
	}
	// The process of exec.Cmd has a pidfd of its own.
	for range 500 {
		if pidfds() <= before+1 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d pidfds, %d before: who holds executables can use up factotum's descriptors", pidfds(), before)
}

func TestNoNewPrivsIsNamedAndCostsNothing(t *testing.T) {
	s := serve(t, Options{})
	c := s.grant(1500, 2000, 2000).Reveal()
	out, _ := s.command("nnp", 1500, c, "id").CombinedOutput()
	if !strings.Contains(string(out), "operation not permitted") {
		t.Errorf("got %s", out)
	}
	s.wantLog("no_new_privs")
	if got := s.redeem(1500, c, "id -u"); got != "2000" {
		t.Errorf("then: %s", got)
	}
}

func TestOnlyOneMayOpenCaphashAndOnlyWithRights(t *testing.T) {
	s := serve(t, Options{})
	if _, err := os.OpenFile(s.dir+"/caphash", os.O_WRONLY, 0); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("opened twice: %v", err)
	}
	s.hash.Close()
	s.hash = nil
	c := exec.Command("sh", "-c", "echo x >"+s.dir+"/caphash")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1500, Gid: 1500}}
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(strings.ToLower(string(out)), "permi") {
		t.Errorf("opened without rights: %s, %v", out, err)
	}
}

func TestTheServersOwnCaphashIsTheFile(t *testing.T) {
	s := serve(t, Options{})
	if _, err := s.fs.OpenHash(); err != unix.EBUSY {
		t.Fatalf("opened beside another: %v", err)
	}
	s.hash.Close()
	s.hash = nil
	var own io.WriteCloser
	if !testbed.Eventually(func() bool { // the kernel tells of a close later
		var err error
		own, err = s.fs.OpenHash()
		return err == nil
	}) {
		t.Fatal("cannot be opened")
	}
	if _, err := os.OpenFile(s.dir+"/caphash", os.O_WRONLY, 0); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("opened twice: %v", err)
	}
	grant := func() capproto.Cap {
		c, err := capproto.New(capproto.Grant{From: 1500, To: 2000, Groups: []uint32{2000}})
		if err != nil {
			t.Fatal(err)
		}
		h := c.Hash()
		if n, err := own.Write(h[:]); n != len(h) || err != nil {
			t.Fatal(n, err)
		}
		return c
	}
	if got := s.redeem(1500, grant().Reveal(), "id -u"); got != "2000" {
		t.Errorf("got %s", got)
	}
	c := grant()
	h := c.Hash()
	if _, err := own.Write(append([]byte("-"), h[:]...)); err != nil {
		t.Error(err)
	}
	if got := s.redeem(1500, c.Reveal(), "id -u"); !strings.Contains(got, "operation not permitted") {
		t.Errorf("revoked: %s", got)
	}
	if _, err := own.Write(h[:5]); err != unix.EINVAL {
		t.Errorf("5 bytes: %v", err)
	}
	if err := own.Close(); err != nil {
		t.Error(err)
	}
	f, err := os.OpenFile(s.dir+"/caphash", os.O_WRONLY, 0)
	if err != nil {
		t.Fatalf("after the close: %v", err)
	}
	f.Close()
}

func TestAHashIsAllowedOnce(t *testing.T) {
	s := serve(t, Options{})
	c := s.grant(1500, 2000, 2000)
	h := c.Hash()
	if _, err := s.hash.Write(h[:]); err == nil || !strings.Contains(err.Error(), "file exists") {
		t.Errorf("the second time: %v", err)
	}
	if err := s.fs.Bind(h, becomerecord.Record{From: 1500, UID: 2000, Groups: []uint32{2000}, Bound: shell("id")}); err != unix.EEXIST {
		t.Errorf("bound too: %v", err)
	}
	if got := s.redeem(1500, c.Reveal(), "id -u"); got != "2000" {
		t.Errorf("got %s", got)
	}
}

func TestTheTableIsBounded(t *testing.T) {
	s := serve(t, Options{MaxCaps: 8})
	for range 8 {
		s.grant(1500, 2000, 2000)
	}
	if _, err := s.hash.Write(make([]byte, 32)); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("the ninth: %v", err)
	}
	for _, n := range []int{0, 1, 31, 33, 34, 64} {
		if n == 0 {
			continue // write(2) of nothing does not reach a file system
		}
		if _, err := s.hash.Write(make([]byte, n)); err == nil {
			t.Errorf("%d bytes are a hash", n)
		}
	}
}

func TestAStaleMountIsReplaced(t *testing.T) {
	s := serve(t, Options{})
	if _, err := Mount(s.dir, Options{Become: []byte("x")}); err == nil || !strings.Contains(err.Error(), "another factotum") {
		t.Errorf("mounted over a living one: %v", err)
	}
}

func TestManyRedeemAtOnce(t *testing.T) {
	s := serve(t, Options{})
	var wg sync.WaitGroup
	for i := range 50 {
		c := s.grant(1500, uint32(3000+i), uint32(3000+i)).Reveal()
		wg.Go(func() {
			if got := s.redeem(1500, c, "id -u"); got != fmt.Sprint(3000+i) {
				t.Errorf("%d: got %s", i, got)
			}
		})
	}
	wg.Wait()
}

func TestTableRemembersTheExpiredForAWhile(t *testing.T) {
	tab := table{max: 2, lifetime: time.Minute}
	now := time.Now()
	a, b := capproto.Hash{1}, capproto.Hash{2}
	tab.add(a, nil, now)
	if _, err := tab.take(b, now); err != unix.EPERM {
		t.Errorf("unknown: %v", err)
	}
	if _, err := tab.take(a, now.Add(time.Minute)); err != unix.ETIMEDOUT {
		t.Errorf("expired: %v", err)
	}
	tab.add(a, nil, now)
	if _, err := tab.take(a, now.Add(3*time.Minute)); err != unix.EPERM {
		t.Errorf("long expired: %v", err)
	}
	for i := range 20 {
		if err := tab.add(capproto.Hash{byte(i)}, nil, now.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if len(tab.entries) > 4 {
		t.Errorf("%d entries are kept", len(tab.entries))
	}
}
