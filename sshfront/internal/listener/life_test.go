package listener

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSIGHUPReadsAgainAndTouchesNoConnection(t *testing.T) {
	r := begin(t, "MaxStartups 50\n")
	c := r.dial()
	c.say("pid")
	old := r.addr
	port := freePort(t)
	_, p, _ := net.SplitHostPort(old)
	r.configure(fmt.Sprintf("LogLevel DEBUG3\nListenAddress 127.0.0.1:%s\nListenAddress 127.0.0.1:%d\nMaxStartups 1\n", p, port))
	r.cmd.Process.Signal(syscall.SIGHUP)
	r.want(`Received SIGHUP; configuration read again\.`)
	r.want(fmt.Sprintf(`Server listening on 127\.0\.0\.1 port %d\.`, port))
	if c.say("pid") == "" {
		t.Error("the connection is gone")
	}
	r.addr = fmt.Sprintf("127.0.0.1:%d", port)
	if s, _ := r.dial().r.ReadString('\n'); s != "Not allowed at this time\r\n" {
		t.Errorf("the new MaxStartups does not count: %q", s)
	}

	// A configuration that is wrong changes nothing.
	r.configure("Nonsense\n")
	r.cmd.Process.Signal(syscall.SIGHUP)
	r.want(`error: Received SIGHUP; the configuration stays as it was: .*sshd_config:1: bad configuration option: Nonsense`)
	r.addr = old
	if s, _ := r.dial().r.ReadString('\n'); s != "Not allowed at this time\r\n" {
		t.Errorf("the old socket: %q", s)
	}

	// An address that is not wanted any more is closed.
	r.configure(fmt.Sprintf("LogLevel DEBUG3\nListenAddress 127.0.0.1:%d\n", port))
	r.cmd.Process.Signal(syscall.SIGHUP)
	if !eventually(func() bool {
		c, err := net.Dial("tcp", old)
		if err == nil {
			c.Close()
		}
		return err != nil
	}) {
		t.Error("the old socket is open")
	}
	c.say("pid")
}

func TestSocketActivation(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	l.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// A process that has just been started does not know its pid for
	// LISTEN_PID, so a shell tells it.
	r := prepare(t, "")
	r.cmd.Path = "/bin/sh"
	r.cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"`, program}, r.cmd.Args[1:]...)
	r.cmd.ExtraFiles = []*os.File{f}
	r.start()
	r.addr = l.Addr().String()
	r.want(`Server listening on ` + strings.Replace(r.addr, ":", " port ", 1))
	c := r.dial()
	pid := c.say("pid")
	env, err := os.ReadFile("/proc/" + pid + "/environ")
	if err != nil || strings.Contains(string(env), "LISTEN_") {
		t.Errorf("environment %q, %v", env, err)
	}
	r.cmd.Process.Signal(syscall.SIGHUP)
	r.want(`configuration read again`)
	r.dial().say("pid")
}

func TestInetdServesOneConnectionAndEndsWithIt(t *testing.T) {
	r, c := inetd(t)
	c.say("authenticated alice")
	session := atoi(c.say("session"))
	c.Close()
	if r.wait(); r.err != nil || alive(session) {
		t.Errorf("%v, session alive: %v", r.err, alive(session))
	}

	// As with sshd, the status tells whether somebody has logged in.
	r, c = inetd(t)
	c.say("pid")
	c.Close()
	r.wait()
	if e := (*exec.ExitError)(nil); !errors.As(r.err, &e) || e.ExitCode() != 255 {
		t.Errorf("without a login: %v", r.err)
	}

	// A client that has gone before it has said anything, and by no TCP.
	r = prepare(t, "LogLevel VERBOSE\n", "-i")
	r.start()
	<-r.ended
	if e := (*exec.ExitError)(nil); !errors.As(r.err, &e) || e.ExitCode() != 255 || !strings.Contains(r.Log(), "Connection from UNKNOWN port 65535 on UNKNOWN port 65535") {
		t.Errorf("%v: %s", r.err, r.Log())
	}
}

// inetd starts a listener with -i for a connection, and returns both.
func inetd(t *testing.T) (*running, *client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := prepare(t, "", "-i")
	r.addr = l.Addr().String()
	c := r.dial()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.(*net.TCPConn).File()
	s.Close()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stdin = f
	r.start()
	f.Close()
	return r, c
}

func TestDebugServesOneConnection(t *testing.T) {
	r := begin(t, "LogLevel QUIET\n", "-d")
	r.dial().Close()
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if r.err != nil {
		t.Error(r.err)
	}
}

func TestNotifyAndPidFile(t *testing.T) {
	dir := t.TempDir()
	os.Chmod(dir, 0o777)
	os.Chmod(filepath.Dir(dir), 0o755)
	addr := &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}
	c, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	os.Chmod(addr.Name, 0o777)
	next := func(want string) {
		t.Helper()
		b := make([]byte, 1000)
		c.SetReadDeadline(time.Now().Add(patience))
		n, _ := c.Read(b)
		if got := string(b[:n]); !strings.HasPrefix(got, want) {
			t.Errorf("notified %q, want %s", got, want)
		}
	}
	pidFile := filepath.Join(dir, "pid")
	r := prepare(t, "PidFile "+pidFile+"\n")
	r.cmd.Env = append(r.cmd.Env, "NOTIFY_SOCKET="+addr.Name)
	r.start()
	next("READY=1")
	if b, err := os.ReadFile(pidFile); err != nil || string(b) != fmt.Sprintln(r.cmd.Process.Pid) {
		t.Errorf("pid file %q, %v", b, err)
	}
	r.cmd.Process.Signal(syscall.SIGHUP)
	next("RELOADING=1\nMONOTONIC_USEC=")
	next("READY=1")
	// As with sshd, whose listener begins anew.
	moved := filepath.Join(dir, "moved")
	r.configure("PidFile " + moved + "\nListenAddress 127.0.0.1:" + fmt.Sprint(freePort(t)) + "\n")
	r.cmd.Process.Signal(syscall.SIGHUP)
	next("RELOADING=1\nMONOTONIC_USEC=")
	next("READY=1")
	if b, err := os.ReadFile(moved); err != nil || string(b) != fmt.Sprintln(r.cmd.Process.Pid) {
		t.Errorf("pid file %q, %v", b, err)
	}
	if _, err := os.Stat(pidFile); err == nil {
		t.Error("the pid file of the old configuration is left")
	}
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	next("STOPPING=1")
	if _, err := os.Stat(moved); err == nil {
		t.Error("the pid file is left")
	}
}

func TestWithoutDescriptorsTheListenerWaits(t *testing.T) {
	r := prepare(t, "PerSourcePenalties no\n")
	r.cmd.Path = "/bin/sh"
	r.cmd.Args = append([]string{"sh", "-c", `ulimit -n 24; exec "$0" "$@"`, program}, r.cmd.Args[1:]...)
	r.start()
	m := r.want(`Server listening on (127\.0\.0\.1) port (\d+)\.`)
	r.addr = m[1] + ":" + m[2]
	var all []net.Conn
	for range 40 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	r.want(`error: (accept: .*|no process for the connection from .*)too many open files`)
	before := cpu(t, r.cmd.Process.Pid)
	time.Sleep(300 * time.Millisecond)
	if spent := cpu(t, r.cmd.Process.Pid) - before; spent > 20 { // of 30 ticks
		t.Errorf("it spins: %d ticks", spent)
	}
	for _, c := range all {
		c.Close()
	}
	if !eventually(func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		fmt.Fprintln(c, "pid")
		n, _ := c.Read(make([]byte, 10))
		return n > 0
	}) {
		t.Error("it does not recover")
	}
}

// cpu is how much time a process has had, in clock ticks.
func cpu(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')'):])
	return atoi(f[12]) + atoi(f[13])
}

func TestTheListenerDoesNotStartAsRootsUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to give it up")
	}
	for user, want := range map[string]string{"root": "user root is root", "no-such-user": "there is no user no-such-user"} {
		r := prepare(t, "", "-u", user)
		r.start()
		<-r.ended
		if r.err == nil || !strings.Contains(r.Log(), want) {
			t.Errorf("%s: %v", user, r.err)
		}
	}
}

func TestAPortThatIsTakenIsSaid(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := prepare(t, "")
	r.configure("ListenAddress " + l.Addr().String() + "\n")
	r.start()
	<-r.ended
	if r.err == nil || !strings.Contains(r.Log(), "bind to port") || !strings.Contains(r.Log(), "cannot bind any address") {
		t.Errorf("%v: %s", r.err, r.Log())
	}
	if _, err := unix.Getpgid(r.cmd.Process.Pid); err == nil {
		t.Error("it runs on")
	}
}

func TestANameToListenOnIsLookedUpInHosts(t *testing.T) {
	r := prepare(t, "")
	port := freePort(t)
	r.configure(fmt.Sprintf("AddressFamily inet\nListenAddress localhost:%d\n", port))
	r.start()
	r.want(fmt.Sprintf(`Server listening on 127\.0\.0\.1 port %d\.`, port))

	r = prepare(t, "")
	r.configure("ListenAddress no-such-host.example:2222\n")
	r.start()
	<-r.ended
	if r.err == nil || !strings.Contains(r.Log(), "no-such-host.example:2222: ") || !strings.Contains(r.Log(), "a name must be in /etc/hosts") {
		t.Errorf("%v: %s", r.err, r.Log())
	}
}
