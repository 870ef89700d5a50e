package listener

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p9auth/capproto"
	"p9auth/internal/proc"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/control"

	"golang.org/x/sys/unix"
)

// The test binary is sshfront too: the listener starts it as /proc/self/exe.
// As connection process it does what the client tells it, line by line, so
// that tests can have one that lies; as session process it sends hello on its
// link and waits for the link to close.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "connection":
			puppet()
			return
		case "session":
			puppetSession()
			return
		case "heir":
			Heir()
			return
		case "listener":
			listenerMain(os.Args[2:])
			return
		}
	}
	dir, err := os.MkdirTemp("", "sshfront-test")
	if err != nil {
		panic(err)
	}
	os.Chmod(dir, 0o755)
	// Like the program, and unlike go test's choice, without cgo: with it a
	// process cannot give up the rights of all of its threads.
	program = filepath.Join(dir, "sshfront")
	build := exec.Command("go", "test", "-c", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	status := 1
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %v: %s", build, err, out)
	} else {
		status = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(status)
}

// listenerMain runs the listener as sshfront's main does, for the options that
// these tests give.
func listenerMain(args []string) {
	var o Options
	var file string
	fl := flag.NewFlagSet("listener", flag.ExitOnError)
	fl.StringVar(&file, "f", "", "")
	fl.StringVar(&o.User, "u", "", "")
	fl.StringVar(&o.RPC, "rpc", "", "")
	fl.StringVar(&o.LogFile, "E", "", "")
	fl.BoolVar(&o.Inetd, "i", false, "")
	fl.BoolFunc("d", "", func(string) error { o.Debug++; return nil })
	fl.Parse(args)
	o.Conf = func() (*sshdconf.Listen, error) {
		c, err := sshdconf.Parse(file, nil)
		if err != nil {
			return nil, err
		}
		return c.Global().Listen(), nil
	}
	if err := Run(o); errors.Is(err, ErrNoLogin) {
		os.Exit(255)
	} else if err != nil {
		fmt.Fprintf(os.Stderr, "sshfront: %v\n", err)
		os.Exit(1)
	}
}

// program is the listener with puppets for connection and session processes.
var program string

func must[T any](v T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "puppet:", err)
		os.Exit(control.ExitFailure)
	}
	return v
}

func puppet() {
	conf := must(control.ReadConfig(control.ConnConfigFD))
	raw := must(unix.Dup(control.ConnControlFD))
	ctl := must(control.Open(control.ConnControlFD))
	c := must(net.FileConn(os.NewFile(control.ConnSocketFD, "tcp")))
	link := os.NewFile(control.ConnLinkFD, "link")
	for in := bufio.NewScanner(c); in.Scan(); {
		cmd, arg, _ := strings.Cut(in.Text(), " ")
		switch cmd {
		case "exit":
			os.Exit(atoi(arg))
		case "panic":
			panic("told to")
		case "kill":
			syscall.Kill(os.Getpid(), syscall.Signal(atoi(arg)))
		case "authenticated":
			fmt.Fprintln(c, ctl.Authenticated(arg))
		case "session":
			pid, err := ctl.Session()
			if err != nil {
				fmt.Fprintln(c, err)
				break
			}
			hello := make([]byte, 100)
			n, _ := link.Read(hello)
			fmt.Fprintln(c, pid, string(hello[:n]))
		case "pass": // a descriptor
			fmt.Fprintln(c, unix.Sendmsg(raw, []byte(arg), unix.UnixRights(0), nil, 0))
		case "send": // a raw message
			fmt.Fprintln(c, must(unix.Write(raw, []byte(arg))) > 0)
		case "pid":
			fmt.Fprintln(c, os.Getpid())
		case "rpc":
			fmt.Fprintln(c, conf.RPC)
		}
	}
	link.Close()
}

func atoi(s string) (n int) {
	fmt.Sscan(s, &n)
	return n
}

func puppetSession() {
	must(control.ReadConfig(control.SessionConfigFD))
	link := must(capproto.FileConn(os.NewFile(control.SessionLinkFD, "link"), 1000))
	link.Send(capproto.NewMsg("hello"))
	link.Recv()
}

// patience is how long something may take that takes no time.
const patience = 30 * time.Second

func eventually(ok func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

// A running is a listener under test.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	conf string // its configuration file
	addr string

	ended chan struct{}
	err   error // how it ended
}

func (r *running) Log() string {
	b, _ := os.ReadFile(r.cmd.Stderr.(*os.File).Name())
	return string(b)
}

// begin runs a listener with a configuration, on a free port of 127.0.0.1
// unless the configuration says more.
func begin(t *testing.T, conf string, args ...string) *running {
	t.Helper()
	r := prepare(t, conf, args...)
	r.start()
	m := r.want(`Server listening on (127\.0\.0\.1) port (\d+)\.`)
	r.addr = m[1] + ":" + m[2]
	return r
}

func prepare(t *testing.T, conf string, args ...string) *running {
	t.Helper()
	r := &running{t: t, conf: filepath.Join(t.TempDir(), "sshd_config")}
	r.configure(fmt.Sprintf("ListenAddress 127.0.0.1:%d\nLogLevel DEBUG3\n", freePort(t)) + conf)
	r.cmd = exec.Command(program, append([]string{"listener", "-u", "nobody", "-f", r.conf}, args...)...)
	r.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SECRET=1"}
	log, err := os.OpenFile(filepath.Join(filepath.Dir(r.conf), "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	r.cmd.Stderr = log
	return r
}

func (r *running) configure(conf string) {
	r.t.Helper()
	if err := os.WriteFile(r.conf, []byte(conf), 0o644); err != nil {
		r.t.Fatal(err)
	}
	for d := filepath.Dir(r.conf); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
}

func (r *running) start() {
	r.t.Helper()
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.ended = make(chan struct{})
	go func() {
		r.err = r.cmd.Wait()
		close(r.ended)
	}()
	r.t.Cleanup(func() {
		r.cmd.Process.Kill()
		<-r.ended
		if r.t.Failed() {
			r.t.Logf("the listener's log:\n%s", r.Log())
		}
	})
}

// freePort is a port that nobody has just now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// over says whether the listener has ended.
func (r *running) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// wait waits for the end.
func (r *running) wait() {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		r.t.Fatal("it does not end")
	}
}

// stop sends a signal and waits for the end.
func (r *running) stop(sig os.Signal) error {
	r.t.Helper()
	r.cmd.Process.Signal(sig)
	r.wait()
	return r.err
}

// want waits for a line in the log and returns its submatches.
func (r *running) want(expr string) []string {
	r.t.Helper()
	re := regexp.MustCompile(expr)
	if !eventually(func() bool { return re.MatchString(r.Log()) || r.over() }) || !re.MatchString(r.Log()) {
		r.t.Fatalf("no line in the log matches %s:\n%s", expr, r.Log())
	}
	return re.FindStringSubmatch(r.Log())
}

// A client holds the strings of one connection process.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (r *running) dial() *client {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &client{r.t, c, bufio.NewReader(c)}
}

// say tells the process to do something that has an answer.
func (c *client) say(format string, args ...any) string {
	c.t.Helper()
	fmt.Fprintf(c, format+"\n", args...)
	s, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%s: %v", format, err)
	}
	return strings.TrimSpace(s)
}

// gone waits until the process has closed the connection.
func (c *client) gone() {
	c.t.Helper()
	if _, err := c.r.ReadByte(); err == nil {
		c.t.Fatal("there is more to read")
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		c.t.Fatal("the connection stays")
	}
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestAConnectionHasAProcessAndALoginASession(t *testing.T) {
	r := begin(t, "", "--rpc", "/some/where")
	c := r.dial()
	pid := atoi(c.say("pid"))
	if got := c.say("rpc"); got != "/some/where" {
		t.Errorf("the configuration says rpc %s", got)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || bytes.Contains(env, []byte("SECRET")) {
		t.Errorf("environment %q, %v", env, err)
	}
	if st, err := proc.ReadStat(pid); err != nil || st.Session != pid {
		t.Errorf("connection process: %+v, %v", st, err)
	}
	if got := c.say("authenticated alice"); got != "<nil>" {
		t.Fatal(got)
	}
	var session int
	var hello string
	got := c.say("session")
	if fmt.Sscan(got, &session, &hello); hello != "hello" || !alive(session) {
		t.Fatalf("session: %s", got)
	}
	st, err := proc.ReadStat(session)
	if err != nil || st.Session != session {
		t.Errorf("session process: %+v, %v", st, err)
	}
	c.Close()
	if !eventually(func() bool { return !alive(pid) && !alive(session) }) {
		t.Error("a process is left")
	}
}

func TestTheListenersEndIsNotTheSessions(t *testing.T) {
	r := begin(t, "")
	c := r.dial()
	c.say("authenticated alice")
	session := atoi(c.say("session"))
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	pid := atoi(c.say("pid")) // still there
	if !alive(session) {
		t.Error("the session is gone")
	}
	c.Close()
	if !eventually(func() bool { return !alive(pid) && !alive(session) }) {
		t.Error("a process is left")
	}
}

func TestAProcessThatBreaksTheRulesIsKilledAlone(t *testing.T) {
	r := begin(t, "PerSourcePenalties no\n")
	other := r.dial()
	other.say("authenticated alice")
	for name, lines := range map[string][]string{
		"nonsense":                {"send \x01"},
		"unknown verb":            {"send mount what=/"},
		"no user":                 {"send authenticated version=2"},
		"no version":              {"send authenticated user=a"},
		"another version":         {"send authenticated version=1 user=a"},
		"authenticated twice":     {"authenticated a", "authenticated a"},
		"session before login":    {"send session"},
		"session with a link":     {"authenticated a", "pass session"},
		"a login with a link":     {"pass authenticated version=2 user=a"},
		"too long":                {"send authenticated version=2 user=" + strings.Repeat("a", 2*control.MaxPacket)},
		"a session with a reason": {"authenticated a", "send session user=a"},
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dial()
			for _, l := range lines {
				fmt.Fprintln(c, l)
			}
			io.Copy(io.Discard, c.r)
			r.want(`broke the rules and is killed`)
		})
	}
	c := r.dial()
	c.say("authenticated a")
	c.say("session")
	fmt.Fprintln(c, "session") // a second one
	c.gone()
	if got := other.say("pid"); got == "" {
		t.Error("the other one is gone")
	}
}

func TestLoginGraceTimeEndsWhoHasNotAuthenticated(t *testing.T) {
	r := begin(t, "LoginGraceTime 3\nPerSourcePenalties no\n")
	in, out := r.dial(), r.dial()
	in.say("authenticated alice")
	out.gone()
	r.want(`sshfront\[\d+\]: Timeout before authentication for 127\.0\.0\.1 port \d+, pid = \d+\n`)
	if in.say("pid") == "" {
		t.Error("who has authenticated is gone too")
	}
}

func TestMaxStartupsDropsAndRecovers(t *testing.T) {
	r := begin(t, "MaxStartups 2\n")
	a, b := r.dial(), r.dial()
	a.say("pid")
	b.say("pid")
	c := r.dial()
	if s, _ := c.r.ReadString('\n'); s != "Not allowed at this time\r\n" {
		t.Errorf("told %q", s)
	}
	r.want(`error: beginning MaxStartups throttling\n`)
	r.want(`: drop connection #2 from \[127\.0\.0\.1\]:\d+ on \[127\.0\.0\.1\]:\d+ past MaxStartups\n`)
	a.say("authenticated alice")
	b.say("authenticated bob")
	r.want(`is authenticated as alice`)
	r.want(`is authenticated as bob`)
	r.dial().say("pid")
	r.want(`exited MaxStartups throttling after 0\ds, 1 connections dropped\n`)
}

func TestAProcessThatIsKilledAfterALoginIsInTheLog(t *testing.T) {
	r := begin(t, "PerSourcePenalties crash:30 min:10\n")
	c := r.dial()
	c.say("authenticated alice")
	fmt.Fprintln(c, "kill 9")
	c.gone()
	r.want(`session process \d+ for connection from 127\.0\.0\.1 to 127\.0\.0\.1 killed by signal 9`)
	if r.dial().say("pid") == "" { // whoever has logged in is known
		t.Error("the address has a penalty")
	}
}

func TestExitStatusesBringPenalties(t *testing.T) {
	for why, how := range map[string]string{
		"caused crash":                                   "panic",
		"failed authentication":                          "exit 5",
		"connection prohibited by RefuseConnection":      "exit 6",
		"attempted authentication by invalid user":       "exit 7",
		"connections without attempting authentication":  "exit 8",
		"caused crash, by a signal that the kernel sent": "kill 31",
		"exceeded LoginGraceTime":                        "stay",
	} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			grace := ""
			if how == "stay" {
				grace = "LoginGraceTime 3\n"
			}
			r := begin(t, "PerSourcePenalties crash:30 authfail:30 invaliduser:30 noauth:30 grace-exceeded:30 refuseconnection:30 min:10\n"+grace)
			// What is our own fault has no penalty, nor what comes after a login.
			fmt.Fprintln(r.dial(), "exit 1")
			r.want(`exited with status 1`)
			c := r.dial()
			c.say("authenticated alice")
			fmt.Fprintln(c, "exit 8")
			c.gone()
			fmt.Fprintln(r.dial(), how)
			why, _, _ := strings.Cut(why, ",")
			r.want(`new 127\.0\.0\.1/32 active penalty of 30\.000 seconds for penalty: ` + why)
			if s, _ := r.dial().r.ReadString('\n'); s != "Not allowed at this time\r\n" {
				t.Errorf("told %q", s)
			}
			r.want(`drop connection #0 from \[127\.0\.0\.1\]:\d+ on \[127\.0\.0\.1\]:\d+ penalty: ` + why)
		})
	}
}

func TestTheListenerIsNotInTheSandboxButHasNoRights(t *testing.T) {
	r := begin(t, "")
	st, err := proc.ReadStatus(r.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if st.UID == 0 || st.EUID == 0 || st.Permitted != 0 || st.Effective != 0 || st.NoNewPrivs {
		t.Errorf("%+v", st)
	}
	if os.Getuid() == 0 {
		tasks, err := os.ReadDir("/proc/" + strconv.Itoa(r.cmd.Process.Pid) + "/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			b, _ := os.ReadFile("/proc/" + strconv.Itoa(r.cmd.Process.Pid) + "/task/" + task.Name() + "/status")
			if s := string(b); s != "" && (!strings.Contains(s, "Groups:\t \n") || !strings.Contains(s, "CapAmb:\t0000000000000000\n")) {
				t.Errorf("a thread has groups or capabilities:\n%s", s)
			}
		}
	}
}
