package daemon

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"p9auth/test/testbed"
)

// manager is what a service manager does for a socket unit: it listens at a
// path and starts the command with the socket, see sd_listen_fds(3), once for
// each line that it reads.
func manager(args []string) {
	fatal := func(err error) {
		if err != nil {
			fmt.Fprintf(os.Stderr, "manager: %v\n", err)
			os.Exit(1)
		}
	}
	network, path, command := args[0], args[1], args[2:]
	ln, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	fatal(err)
	fatal(os.Chmod(path, 0o666))
	f, err := ln.File()
	fatal(err)
	// Since Linux 6.16 those who connect before factotum starts need it.
	fatal(syscall.SetsockoptInt(int(f.Fd()), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1))
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		c := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, command...)...)
		c.Env = append(os.Environ(), "LISTEN_FDS=1")
		c.ExtraFiles = []*os.File{f}
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		fatal(c.Start())
		go c.Wait()
	}
}

// A managed factotum is started by a manager.
type managed struct {
	*bed
	in io.WriteCloser
}

// manage ends the testbed's factotum and puts a manager with a socket in its
// place. It starts none.
func (b *bed) manage(t *testing.T, network, path string) *managed {
	t.Helper()
	b.end(t)
	c := b.Command(b.Self(t), "manager", network, path, b.Bin("factotum"))
	log, err := os.OpenFile(filepath.Join(b.Dir, "log", "factotum"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); c.Wait() })
	if !testbed.Eventually(func() bool { return b.Command("test", "-S", path).Run() == nil }) {
		t.Fatal("the manager does not listen")
	}
	return &managed{b, in}
}

// end ends factotum and waits for that.
func (b *bed) end(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(b.Factotum(t), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum")) == 0 }) {
		t.Fatal("factotum does not end")
	}
}

// start has the manager start factotum.
func (m *managed) start(t *testing.T, want string) {
	t.Helper()
	n := m.Logged(want)
	if _, err := io.WriteString(m.in, "start\n"); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return m.Logged(want) == n+1 }) {
		t.Fatalf("factotum does not say %q", want)
	}
}

// wait starts a login that waits at the socket.
func (m *managed) wait(t *testing.T, user string) *testbed.Term {
	t.Helper()
	term := m.Start(t, m.Bin("login"), "--", user)
	connected := func() bool {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", term.PID()))
		table, _ := os.ReadFile("/proc/net/unix")
		for _, fd := range fds {
			link, _ := os.Readlink(fd)
			inode, ok := strings.CutPrefix(link, "socket:[")
			for line := range strings.Lines(string(table)) {
				// Num RefCount Protocol Flags Type St Inode
				f := strings.Fields(line)
				if ok && len(f) > 6 && f[6]+"]" == inode && f[4] == "0005" && f[5] == "03" { // SOCK_SEQPACKET, SS_CONNECTED
					return true
				}
			}
		}
		return false
	}
	if !testbed.Eventually(connected) {
		t.Fatal("login does not connect")
	}
	return term
}

func TestLoginsWaitAtAnInheritedSocketWhileFactotumIsRestarted(t *testing.T) {
	b := up(t)
	m := b.manage(t, "unixpacket", testbed.RPC)
	first := m.wait(t, "alice") // before factotum was ever started
	m.start(t, "factotum is ready")
	enter := func(term *testbed.Term, user string) {
		t.Helper()
		term.Expect("Password: ")
		term.Send(testbed.Password + "\n")
		testbed.Shell(t, term, user)
	}
	enter(first, "alice")
	for range 3 {
		b.end(t)
		b.Sh(t, "test -S "+testbed.RPC) // it is not factotum's to remove
		second := m.wait(t, "bob")
		m.start(t, "factotum is ready")
		enter(second, "bob")
		b.Out(t, second)
	}
	testbed.Kill(t, b.Factotum(t))
	third := m.wait(t, "bob")
	m.start(t, "factotum is ready")
	enter(third, "bob")
	b.Out(t, third)
	if got := first.Run("echo goes on"); got != "goes on" {
		t.Errorf("the shell says %s", got)
	}
	b.Out(t, first)
	b.WantNoWorker(t)
}

func TestAFactotumThatCannotStartTellsThoseWhoWaitAtItsSocket(t *testing.T) {
	b := up(t)
	m := b.manage(t, "unixpacket", testbed.RPC)
	for lines, want := range map[string]string{
		"Nonsense 1\n":               "unknown keyword",
		"CapDir /dev/null/no\n":      "not a directory",
		"StatusSocket /dev/null/s\n": "StatusSocket: ",
	} {
		b.Write(t, "/etc/p9auth/factotum.conf", testbed.LoginsConfig+lines)
		term := m.wait(t, "alice")
		m.start(t, want)
		term.Expect("login: factotum cannot start; the administrator finds the reason in its log")
		if term.Wait() == nil {
			t.Error("login succeeds")
		}
		b.Sh(t, "test -S "+testbed.RPC)
	}
	b.Write(t, "/etc/p9auth/factotum.conf", testbed.LoginsConfig)
	m.start(t, "factotum is ready")
	b.Out(t, b.In(t, "alice"))
}

func TestAnInheritedSocketElsewhereIsServedToo(t *testing.T) {
	b := up(t)
	m := b.manage(t, "unixpacket", "/run/elsewhere")
	m.start(t, "factotum is ready")
	b.Out(t, b.In(t, "alice"))
	b.Out(t, b.In(t, "alice", "-o", "socket=/run/elsewhere"))
}

func TestAnInheritedSocketOfAnotherTypeIsRefused(t *testing.T) {
	b := up(t)
	m := b.manage(t, "unix", testbed.RPC)
	m.start(t, "which is not of type SOCK_SEQPACKET")
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum")) == 0 }) {
		t.Error("factotum runs")
	}
}
