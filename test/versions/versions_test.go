// Package versions runs the programs of the last release against those of this
// tree, as they meet where a machine is upgraded and not everything is restarted.
// Programs of two versions refuse each other and one of them says so in its log;
// nobody gets in by a misunderstanding; sessions that are open go on.
package versions

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"p9auth/internal/proc"
	"p9auth/test/testbed"
)

// lastRelease is the commit of the last release whose programs knew of no
// versions.
const lastRelease = "eaa47ee"

// programs of a build, which find each other by being in one folder.
var programs = []string{"factotum", "factotum-pam", "become", "login", "sshfront"}

// oldPrograms has the folder where the last release's programs are, once they are
// built.
var oldPrograms string

// TestMain takes the last release's sources away again.
func TestMain(m *testing.M) {
	status := m.Run()
	if os.Getenv("P9AUTH_OLD") == "" && oldPrograms != "" {
		os.RemoveAll(filepath.Dir(oldPrograms))
	}
	os.Exit(status)
}

// old builds the programs of the last release, or takes those in the folder that
// P9AUTH_OLD names.
func old(t *testing.T) string {
	t.Helper()
	if oldPrograms == "" {
		oldPrograms = os.Getenv("P9AUTH_OLD")
	}
	if oldPrograms != "" {
		return oldPrograms
	}
	top := top(t)
	if out, err := exec.Command("git", "-C", top, "cat-file", "-e", lastRelease+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("the history does not have the last release, %s (a shallow clone?): %s", lastRelease, out)
	}
	dir, err := os.MkdirTemp("", "p9auth-old")
	if err != nil {
		t.Fatal(err)
	}
	run(t, top, "sh", "-c", "git archive "+lastRelease+" | tar -x -C '"+dir+"'")
	run(t, dir, "make", "BIN=bin")
	oldPrograms = filepath.Join(dir, "bin")
	return oldPrograms
}

// top is the source tree.
func top(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "..", "..")
}

func run(t *testing.T, dir string, argv ...string) {
	t.Helper()
	c := exec.Command(argv[0], argv[1:]...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", argv, err, out)
	}
}

// A machine is a testbed whose programs can be exchanged. They are in a folder of
// its own, where a running program's file is replaced as a package manager does:
// by another file under its name.
type machine struct {
	*testbed.Bed
	t        *testing.T
	old, now string // folders of programs
	bin      string
	port     string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	return machineOf(t, old)
}

// machineOf is a machine with the programs that other builds, besides ours.
func machineOf(t *testing.T, other func(*testing.T) string) *machine {
	t.Helper()
	if testing.Short() {
		t.Skip("slow: builds other programs")
	}
	for _, p := range []string{"ssh", "sshpass"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: run scripts/deps", p)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, for the testbed")
	}
	was := other(t)
	b := testbed.Up(t)
	m := &machine{Bed: b, t: t, old: was, now: filepath.Join(b.Top, "bin"), bin: filepath.Join(b.Dir, "bin")}
	port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	m.port = strings.TrimSpace(string(port))
	if err := os.Mkdir(m.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	m.stop("sshfront")
	m.stop("factotum")
	return m
}

// install puts a build's programs in place. What runs goes on as it is.
func (m *machine) install(from string, names ...string) {
	m.t.Helper()
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(from, n))
		if err != nil {
			m.t.Fatal(err)
		}
		tmp := filepath.Join(m.bin, n+".new")
		if err := os.WriteFile(tmp, b, 0o755); err != nil {
			m.t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(m.bin, n)); err != nil {
			m.t.Fatal(err)
		}
	}
}

// stop ends the daemon, and no session.
func (m *machine) stop(name string) {
	m.t.Helper()
	for _, pid := range m.Pids(name) {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(args), "\x00-f\x00") || strings.Contains(string(args), "\x00-D\x00") {
			h, err := proc.Open(pid)
			if err != nil {
				continue // it has ended
			}
			defer h.Close()
			syscall.Kill(pid, syscall.SIGTERM)
			if !testbed.Eventually(func() bool { return !h.Alive() }) {
				m.t.Fatalf("%s does not end", name)
			}
		}
	}
}

func (m *machine) log(name string) string {
	b, _ := os.ReadFile(filepath.Join(m.Dir, "log", name))
	return string(b)
}

// start starts a daemon of those installed.
func (m *machine) start(name, ready string, args ...string) {
	m.t.Helper()
	m.stop(name)
	before := strings.Count(m.log(name), ready)
	log, err := os.OpenFile(filepath.Join(m.Dir, "log", name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	c := m.Command(append([]string{"setsid", filepath.Join(m.bin, name)}, args...)...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		m.t.Fatal(err)
	}
	go c.Wait()
	if !testbed.Eventually(func() bool { return strings.Count(m.log(name), ready) > before }) {
		m.t.Fatalf("%s does not start: %s", name, m.log(name))
	}
}

func (m *machine) startFactotum() {
	m.t.Helper()
	m.start("factotum", "factotum is ready", "-f", "/etc/p9auth/factotum.conf")
}

func (m *machine) startSSHFront() {
	m.t.Helper()
	m.start("sshfront", "Server listening on 0.0.0.0", "-D", "-e", "-p", m.port)
}

func (m *machine) ssh(args ...string) *exec.Cmd {
	return exec.Command("timeout", append([]string{"60", "ssh", "-p", m.port, "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-i", m.Dir + "/keys/alice"}, args...)...)
}

// wantIn fails the test unless alice gets in by key.
func (m *machine) wantIn() {
	m.t.Helper()
	if out, err := m.ssh("-n", "alice@127.0.0.1", "id -un").CombinedOutput(); err != nil || string(out) != "alice\n" {
		m.t.Fatalf("alice does not get in: %v: %s\nsshfront's log: %s", err, out, m.log("sshfront"))
	}
}

// wantOut fails the test unless alice, who has both a key and a password, is kept
// out, and a log says why.
func (m *machine) wantOut(log, why string) {
	m.t.Helper()
	re := regexp.MustCompile(why)
	before := len(re.FindAllString(m.log(log), -1))
	for _, c := range []*exec.Cmd{m.ssh("-n", "alice@127.0.0.1", "id -un"),
		exec.Command("sshpass", append([]string{"-p", testbed.Password}, m.ssh("-n", "-o", "BatchMode=no", "-o", "PubkeyAuthentication=no", "alice@127.0.0.1", "id -un").Args...)...)} {
		out, err := c.CombinedOutput()
		if err == nil || strings.Contains(string(out), "alice\n") {
			m.t.Errorf("alice gets in: %s", out)
		}
	}
	if !testbed.Eventually(func() bool { return len(re.FindAllString(m.log(log), -1)) > before }) {
		m.t.Errorf("%s's log does not say %s: %s", log, why, m.log(log))
	}
}

// A session is one that stays open. Its program says back what it is told.
type session struct {
	m   *machine
	cmd *exec.Cmd
	in  *os.File
	out *os.File
}

func (m *machine) open() *session {
	m.t.Helper()
	s := &session{m: m, cmd: m.ssh("-T", "alice@127.0.0.1", "cat")}
	inR, inW, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr, s.in, s.out = inR, outW, os.Stderr, inW, outR
	if err := s.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	m.t.Cleanup(func() {
		s.in.Close()
		s.cmd.Process.Kill()
		s.cmd.Wait()
	})
	s.goesOn()
	return s
}

func (s *session) goesOn() {
	s.m.t.Helper()
	word := fmt.Sprintf("still here %d\n", time.Now().UnixNano())
	s.in.WriteString(word)
	s.out.SetReadDeadline(time.Now().Add(testbed.Patience))
	b := make([]byte, len(word))
	for n := 0; n < len(b); {
		k, err := s.out.Read(b[n:])
		if err != nil {
			s.m.t.Fatalf("the open session has ended: %v", err)
		}
		n += k
	}
	if string(b) != word {
		s.m.t.Fatalf("the open session says %q", b)
	}
}

func TestProgramsOfTwoVersionsRefuseEachOtherAndSessionsGoOn(t *testing.T) {
	m := newMachine(t)
	m.install(m.old, programs...)
	m.startFactotum()
	m.startSSHFront()
	m.wantIn()
	first := m.open()

	// factotum is upgraded and restarted, sshfront is not restarted.
	m.install(m.now, "factotum", "factotum-pam", "become", "login")
	m.startFactotum()
	m.wantOut("factotum", `sshfront is older than factotum; restart it`)
	first.goesOn()

	// An old login, which its getty has started before.
	m.Command("cp", filepath.Join(m.old, "login"), filepath.Join(m.bin, "login.old")).Run()
	term := m.Start(t, filepath.Join(m.bin, "login.old"), "alice")
	term.Expect(`(?i)error|older|refused|login`)
	m.WantLog(t, `login is older than factotum`)
	if strings.Contains(term.Screen(), "assword") {
		t.Errorf("the old login asks for a password: %s", term.Screen())
	}
	term.Hangup()

	// sshfront is restarted too.
	m.install(m.now, "sshfront")
	m.startSSHFront()
	m.wantIn()
	second := m.open()
	first.goesOn()

	// Back again, factotum first: a downgrade.
	m.install(m.old, "factotum", "factotum-pam", "become")
	m.startFactotum()
	m.wantOut("sshfront", `factotum is older than sshfront; restart factotum`)
	term = m.Start(t, filepath.Join(m.bin, "login"), "alice")
	term.Expect(`factotum is older than login`)
	term.Hangup()
	first.goesOn()
	second.goesOn()
}

// The PAM worker is started anew for each login: the file of a running factotum's
// worker may have been replaced.
func TestAFactotumAndAWorkerOfTwoVersionsLogNobodyIn(t *testing.T) {
	m := newMachine(t)
	m.install(m.now, programs...)
	m.startFactotum()
	m.startSSHFront()
	open := m.open()
	m.install(m.old, "factotum-pam")
	m.wantOut("factotum", `factotum-pam is older than factotum; restart factotum`)
	open.goesOn()

	m.install(m.old, "factotum", "become", "sshfront")
	m.startFactotum()
	m.startSSHFront()
	m.wantIn()
	m.install(m.now, "factotum-pam")
	m.wantOut("factotum", `factotum-pam is newer than factotum; restart factotum`)
	open.goesOn()
}

// The user process is started from the file, the processes before it are those of
// the listener that runs.
func TestASSHFrontWhoseFileWasReplacedLogsNobodyIn(t *testing.T) {
	m := newMachine(t)
	m.install(m.old, programs...)
	m.startFactotum()
	m.startSSHFront()
	open := m.open()
	m.install(m.now, "sshfront")
	out, err := m.ssh("-n", "alice@127.0.0.1", "id -un").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "sshfront's listener is older than its program; restart it") {
		t.Errorf("an old listener, a new file: %v: %s", err, out)
	}
	open.goesOn()

	m.install(m.now, "factotum", "factotum-pam", "become")
	m.startFactotum()
	m.startSSHFront()
	m.wantIn()
	m.install(m.old, "sshfront")
	if out, err := m.ssh("-n", "alice@127.0.0.1", "id -un").CombinedOutput(); err == nil || strings.Contains(string(out), "alice") {
		t.Errorf("a new listener, an old file: %v: %s", err, out)
	}
	open.goesOn()
}
