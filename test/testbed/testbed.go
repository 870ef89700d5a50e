// Package testbed gives Go tests and benchmarks the private installation of
// scripts/testbed, and terminals to sit at.
package testbed

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// What each testbed has: see scripts/testbed-setup.
const (
	Password = "open-sesame"       // of alice and bob
	RPC      = "/run/factotum/rpc" // factotum's socket
)

// Patience is how long a test waits for what must come.
const Patience = 30 * time.Second

// A Bed is a running testbed.
type Bed struct {
	Dir string // holds log/ and keys/
	Top string // the source tree
	// Programs is the folder of our programs where it is not bin of the source tree.
	Programs string
	ns       string // its mount namespace
}

// Up starts a testbed and has it taken down at the end of the test. It skips
// the test where that cannot work.
func Up(tb testing.TB) *Bed {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("needs root, for the testbed")
	}
	_, file, _, _ := runtime.Caller(0)
	b := &Bed{Top: filepath.Join(filepath.Dir(file), "..", "..")}
	var err error
	if b.Dir, err = os.MkdirTemp("", "p9auth-bed"); err != nil {
		tb.Fatal(err)
	}
	script := filepath.Join(b.Top, "scripts", "testbed")
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("factotum's log:\n%s", tail(b.Log(), 60))
		}
		if out, err := exec.Command(script, "down", b.Dir).CombinedOutput(); err != nil {
			tb.Errorf("testbed down: %v: %s", err, out)
		}
	})
	if out, err := exec.Command(script, "up", b.Dir).CombinedOutput(); err != nil {
		tb.Fatalf("testbed up: %v: %s", err, out)
	}
	pid, err := os.ReadFile(filepath.Join(b.Dir, "pid"))
	if err != nil {
		tb.Fatal(err)
	}
	b.ns = "--mount=/proc/" + strings.TrimSpace(string(pid)) + "/ns/mnt"
	return b
}

// Programs are what a test's own program can be besides the test, by the first
// argument: it gets those after it.
type Programs map[string]func(args []string)

// Main is TestMain for tests whose program is run in a testbed: see Self.
func Main(m *testing.M, programs Programs) {
	if len(os.Args) > 1 {
		if f, ok := programs[os.Args[1]]; ok {
			f(os.Args[2:])
			return
		}
	}
	os.Exit(m.Run())
}

// Self is the path of the test's own program in the testbed, where each user can
// execute it: the test's own folder may be closed to them.
func (b *Bed) Self(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(b.Dir, "self")
	if _, err := os.Lstat(path); err == nil {
		return path
	}
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, exe, 0o755); err != nil {
		tb.Fatal(err)
	}
	return path
}

func tail(s string, n int) string {
	l := strings.Split(s, "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}

// Command is a command that runs as root inside the testbed. It is the same
// process all along: its pid is the program's.
func (b *Bed) Command(argv ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{b.ns, "--"}, argv...)...)
}

// Pipes starts a command, and returns its standard input and output. The test fails if it
// cannot be started.
func Pipes(tb testing.TB, cmd *exec.Cmd) (io.WriteCloser, *bufio.Reader) {
	tb.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	return in, bufio.NewReader(out)
}

// As puts before a command what makes it run as a user with no capability in
// any set but the bounding set, and no supplementary groups.
func As(user string, argv ...string) []string {
	return append([]string{"setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--inh-caps=-all", "--ambient-caps=-all", "--"}, argv...)
}

// Sh runs a shell script as root inside the testbed and returns what it
// prints. The test fails if the script does.
func (b *Bed) Sh(tb testing.TB, script string) string {
	tb.Helper()
	out, err := b.Command("/bin/sh", "-ec", script).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s: %v: %s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Write makes a file inside the testbed.
func (b *Bed) Write(tb testing.TB, path, text string) {
	tb.Helper()
	cmd := b.Command("tee", path)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("write %s: %v: %s", path, err, out)
	}
}

// Bin is the path of one of our programs.
func (b *Bed) Bin(name string) string {
	if b.Programs != "" {
		return filepath.Join(b.Programs, name)
	}
	return filepath.Join(b.Top, "bin", name)
}

// Log is factotum's log so far.
func (b *Bed) Log() string {
	log, _ := os.ReadFile(filepath.Join(b.Dir, "log", "factotum"))
	return string(log)
}

// Logged is how often factotum's log has the text.
func (b *Bed) Logged(text string) int { return strings.Count(b.Log(), text) }

// WantLog waits until factotum's log has a line that matches the expression.
func (b *Bed) WantLog(tb testing.TB, expr string) {
	tb.Helper()
	re := regexp.MustCompile(expr)
	if !Eventually(func() bool { return re.MatchString(b.Log()) }) {
		tb.Errorf("no line in factotum's log matches %s", expr)
	}
}

// FreePort is a TCP port of this machine that nobody listened on a moment ago. It is
// below those that the kernel gives to clients (ip_local_port_range), and those of
// scripts/testbed: the server that it is for may be slow to begin, and nobody else must
// get it meanwhile.
func FreePort(tb testing.TB) string {
	tb.Helper()
	for range 100 {
		port := strconv.Itoa(10000 + rand.IntN(10000))
		if l, err := net.Listen("tcp", ":"+port); err == nil {
			l.Close()
			return port
		}
	}
	tb.Fatal("no port is free")
	return ""
}

// Eventually waits until a condition holds. It returns false if that takes
// longer than Patience.
func Eventually(ok func() bool) bool {
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

// Pids are the processes in the testbed that run a program of that name.
func (b *Bed) Pids(program string) []int { return b.Processes()[program] }

// Processes are the processes in the testbed by the name of their program.
func (b *Bed) Processes() map[string][]int {
	ns, _ := os.ReadFile(filepath.Join(b.Dir, "ns"))
	pids := map[string][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		if l, _ := os.Readlink(d + "/ns/mnt"); l != strings.TrimSpace(string(ns)) {
			continue
		}
		// A process that is being executed or has ended has no command line.
		cmd, _ := os.ReadFile(d + "/cmdline")
		arg0, _, _ := bytes.Cut(cmd, []byte{0})
		n, _ := strconv.Atoi(filepath.Base(d))
		name := filepath.Base(string(arg0))
		pids[name] = append(pids[name], n)
	}
	return pids
}

// A Term is a program on a terminal of its own, and the person at it.
type Term struct {
	Cmd  *exec.Cmd
	tb   testing.TB
	pty  *os.File
	ends bool // with the program
	done chan struct{}

	mu   sync.Mutex
	all  []byte
	read int // how much Expect has passed
	eof  bool
}

// Start runs a command inside the testbed on a new terminal, as the leader of
// a session of its own.
func (b *Bed) Start(tb testing.TB, argv ...string) *Term {
	tb.Helper()
	cmd := b.Command(argv...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=linux"}
	return StartTerm(tb, cmd)
}

// StartTerm runs a command on a new terminal, as the leader of a session of its own.
func StartTerm(tb testing.TB, cmd *exec.Cmd) *Term {
	tb.Helper()
	p, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 200})
	if err != nil {
		tb.Fatal(err)
	}
	t := personAt(tb, p)
	t.Cmd = cmd
	t.ends = true
	go t.copy()
	tb.Cleanup(func() {
		t.Hangup()
		t.Cmd.Process.Signal(syscall.SIGKILL)
		t.Cmd.Wait()
	})
	return t
}

// AtTerminal is the person at a terminal whose programs others start. p is its
// master's side.
func AtTerminal(tb testing.TB, p *os.File) *Term {
	tb.Helper()
	t := personAt(tb, p)
	go t.copy()
	tb.Cleanup(t.Hangup)
	return t
}

// personAt closes p.
func personAt(tb testing.TB, p *os.File) *Term {
	tb.Helper()
	t := &Term{tb: tb, done: make(chan struct{})}
	// A file that blocks is not closed while somebody reads from it, so that
	// the line could not be dropped.
	fd, err := unix.FcntlInt(p.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	p.Close()
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		tb.Fatal(err)
	}
	t.pty = os.NewFile(uintptr(fd), "pty")
	return t
}

// copy reads what the screen shows. util-linux's login hangs the terminal up and
// opens it anew, so only one that stays hung up for some seconds is.
func (t *Term) copy() {
	defer close(t.done)
	buf := make([]byte, 4096)
	last := time.Now()
	for {
		n, err := t.pty.Read(buf)
		if errors.Is(err, unix.EIO) && (!t.ends || time.Since(last) < 3*time.Second) {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		last = time.Now()
		t.mu.Lock()
		t.all = append(t.all, buf[:n]...)
		t.eof = err != nil
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// PID is the process that was started.
func (t *Term) PID() int { return t.Cmd.Process.Pid }

// Send types something.
func (t *Term) Send(s string) {
	t.tb.Helper()
	if _, err := t.pty.WriteString(s); err != nil {
		t.tb.Errorf("send %q: %v", s, err)
	}
}

// Type types something at a program that may have ended.
func (t *Term) Type(s string) { t.pty.WriteString(s) }

// Expect waits until the screen shows something that matches, after what was
// expected before. It returns the match.
func (t *Term) Expect(expr string) string {
	t.tb.Helper()
	re := regexp.MustCompile(expr)
	for end := time.Now().Add(Patience); ; time.Sleep(5 * time.Millisecond) {
		t.mu.Lock()
		m := re.FindIndex(t.all[t.read:])
		if m != nil {
			s := string(t.all[t.read+m[0] : t.read+m[1]])
			t.read += m[1]
			t.mu.Unlock()
			return s
		}
		eof, rest := t.eof, string(t.all[t.read:])
		t.mu.Unlock()
		if eof || time.Now().After(end) {
			t.tb.Fatalf("%s did not come (hung up: %v); there was %q", expr, eof, rest)
		}
	}
}

// Screen is all that was shown so far.
func (t *Term) Screen() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.all)
}

// Run types a command at a shell and returns what it prints.
func (t *Term) Run(command string) string {
	t.tb.Helper()
	t.Send(fmt.Sprintf("echo 'BEG''IN'; %s; echo 'E''ND'\n", command))
	out := t.Expect(`(?s)BEGIN\r\n.*?END\r\n`)
	out = strings.TrimSuffix(strings.TrimPrefix(out, "BEGIN\r\n"), "END\r\n")
	return strings.TrimSpace(strings.ReplaceAll(out, "\r\n", "\n"))
}

// Wait waits for the program to end.
func (t *Term) Wait() error {
	t.tb.Helper()
	ended := make(chan error, 1)
	go func() { ended <- t.Cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(Patience):
		t.tb.Fatalf("the program does not end; the screen:\n%s", t.Screen())
		return nil
	}
}

// Hangup drops the line.
func (t *Term) Hangup() { t.pty.Close() }

// TTY is the terminal's path on the program's side.
func (t *Term) TTY() string {
	l, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", t.PID()))
	if err != nil {
		t.tb.Fatal(err)
	}
	return l
}
