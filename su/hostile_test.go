package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/capuse"
	"p9auth/test/testbed"
)

// The caller is hostile here: the program that speaks to factotum is alice's own.

func TestMain(m *testing.M) {
	testbed.Main(m, testbed.Programs{"flood": flood, "guess": guess, "ask": ask, "redeem": redeemText, "hold": hold, "syslogd": syslogd,
		"look-into": lookInto, "trace-from-the-start": traceFromTheStart, "type-into": typeInto, "guess-many": guessMany, "nothing": func([]string) {}})
}

// begin is su's conversation up to the question.
func begin(user string) (*capproto.Client, error) {
	c, err := capproto.Dial(testbed.RPC)
	if err != nil {
		return nil, err
	}
	return c, c.StartSu(user, false, nil)
}

// proven is su's conversation up to the proof.
func proven(user string) (*capproto.Client, error) {
	c, err := begin(user)
	if err != nil {
		return nil, err
	}
	return c, c.Converse(func(capproto.Prompt) (string, error) { return testbed.Password, nil })
}

// opened is su's conversation up to the capability, for a command.
func openedFor(user string, run capproto.Run) (*capproto.Client, *capproto.AuthInfo, error) {
	c, err := proven(user)
	if err == nil {
		err = c.Run(run)
	}
	if err == nil {
		err = c.Session()
	}
	if err == nil {
		err = c.Converse(func(capproto.Prompt) (string, error) { return "", nil })
	}
	if err != nil {
		return nil, nil, err
	}
	a, err := c.AuthInfo()
	return c, a, err
}

func must[T any](v T, err error) T {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	return v
}

// flood holds as many conversations as there may be, again and again, until it is
// killed. It says how many there were.
func flood(args []string) {
	n, _ := strconv.Atoi(args[0])
	var held, refused int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			_, err := begin("bob")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				held++
			} else {
				refused++
			}
		})
	}
	all.Wait()
	fmt.Printf("held %d refused %d\n", held, refused)
	for {
		if c, err := begin("bob"); err == nil {
			c.Close()
		}
	}
}

// guess answers wrong in as many conversations at once, and prints how long all took.
func guess(args []string) {
	n, _ := strconv.Atoi(args[0])
	var all sync.WaitGroup
	start := time.Now()
	for range n {
		c := must(begin("bob"))
		all.Go(func() {
			c.Converse(func(capproto.Prompt) (string, error) { return "wrong", nil })
		})
	}
	all.Wait()
	fmt.Println(time.Since(start).Milliseconds())
}

// hold is proven, and waits in the middle of the conversation.
func hold([]string) {
	must(begin("bob"))
	fmt.Println("held")
	time.Sleep(time.Minute)
}

// redeemText redeems a capability.
func redeemText(args []string) {
	fmt.Println("error:", capuse.Redeem(capuse.DefaultPath, args[0]))
}

// ask does what must not work, one of several, and prints how it was answered.
func ask(args []string) {
	switch args[0] {
	case "groups":
		c := must(proven("bob"))
		fmt.Println("error:", c.Run(capproto.Run{Groups: []string{"root"}}))
	case "large":
		c := must(proven("bob"))
		fmt.Println("error:", c.Run(capproto.Run{Args: []string{strings.Repeat("x", 600<<10)}}))
	case "session first":
		c := must(begin("bob"))
		fmt.Println("error:", c.Session())
	case "no run":
		c := must(proven("bob"))
		must(0, c.Session())
		must(0, c.Converse(func(capproto.Prompt) (string, error) { return "", nil }))
		_, err := c.AuthInfo()
		fmt.Println("error:", err)
	case "run in an open session":
		c, _, err := openedFor("bob", capproto.Run{Args: []string{"-c", "id"}})
		must(0, err)
		fmt.Println("error:", c.Run(capproto.Run{Args: []string{"-c", "id"}}))
	case "signal":
		c, _, err := openedFor("bob", capproto.Run{})
		must(0, err)
		pid, _ := strconv.Atoi(args[1])
		fmt.Println("error:", c.Signal(pid, "KILL"))
	case "signal to a child of its own":
		c, _, err := openedFor("bob", capproto.Run{})
		must(0, err)
		cmd := exec.Command("sleep", "60")
		must(0, cmd.Start())
		fmt.Println("error:", c.Signal(cmd.Process.Pid, "KILL"))
	case "capability":
		_, a, err := openedFor("bob", capproto.Run{Args: []string{"-c", "echo I am $(id -un) $*", "sh", "as asked"}})
		must(0, err)
		fmt.Println(a.Cap)
		time.Sleep(time.Minute)
	case "redeem":
		_, a, err := openedFor("bob", capproto.Run{Args: []string{"-c", "echo I am $(id -u)"}})
		must(0, err)
		fmt.Println("error:", capuse.Redeem(capuse.DefaultPath, a.Cap))
	case "pam":
		_, err := must(capproto.Dial(testbed.RPC)).Start(capproto.Start{User: "bob"})
		fmt.Println("error:", err)
	case "terminal":
		f := os.Stdin
		if args[1] != "its own" {
			f = must(os.OpenFile(args[1], unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0))
		}
		c := must(capproto.Dial(testbed.RPC))
		must(0, c.StartSu("bob", false, f))
		must(0, c.Converse(func(capproto.Prompt) (string, error) { return testbed.Password, nil }))
		fmt.Println("at", must(os.Readlink("/proc/self/fd/0")))
	case "nothing":
		_, err := must(capproto.Dial(testbed.RPC)).AuthInfo()
		fmt.Println("error:", err)
	}
}

// as runs the test's own program as somebody and returns what it prints.
func as(t *testing.T, b *testbed.Bed, user string, args ...string) string {
	t.Helper()
	argv := testbed.AsPerson(user, append([]string{b.Self(t)}, args...)...)
	if user == "_sshfront" || user == "_login" {
		argv = testbed.As(user, append([]string{b.Self(t)}, args...)...)
	}
	out, _ := b.Command(argv...).CombinedOutput()
	return strings.TrimSpace(string(out))
}

func TestWhatACallerMustNotAskIsRefused(t *testing.T) {
	b := up(t)
	sleep := b.Command("sleep", "100")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleep.Wait()
	defer sleep.Process.Kill()
	for _, c := range []struct {
		user string
		args []string
		want string
	}{
		{"alice", []string{"ask", "groups"}, "only root can specify alternative groups"},
		{"alice", []string{"ask", "large"}, "the command and the environment are too large"},
		{"alice", []string{"ask", "session first"}, "session in state talking"},
		{"alice", []string{"ask", "no run"}, "authinfo before run"},
		{"alice", []string{"ask", "run in an open session"}, "run in state open"},
		{"alice", []string{"ask", "signal", fmt.Sprint(sleep.Process.Pid)}, "no child of the sender"},
		{"alice", []string{"ask", "signal", "1"}, "no child of the sender"},
		{"alice", []string{"ask", "signal to a child of its own"}, "no child of the sender, or not the user"},
		{"alice", []string{"ask", "pam"}, "pam is not configured here"},
		{"alice", []string{"ask", "nothing"}, "authinfo before start"},
		{"_login", []string{"ask", "groups"}, "proto=su, but this front end is for pam"},
		{"_sshfront", []string{"ask", "groups"}, "proto=su, but this front end is for ssh"},
	} {
		if got := as(t, b, c.user, c.args...); !strings.Contains(got, "error:") || !strings.Contains(got, c.want) {
			t.Errorf("%s, %q: %s", c.user, c.args, got)
		}
	}
	if err := sleep.Process.Signal(syscall.Signal(0)); err != nil {
		t.Error("a process of root's got a signal")
	}
}

func TestACapabilityRunsWhatWasAskedForAndIsTheCallersAlone(t *testing.T) {
	b := up(t)
	cmd := b.Command(testbed.AsPerson("alice", b.Self(t), "ask", "capability")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line := make([]byte, 512)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSpace(string(line[:n]))
	if got := as(t, b, "bob", "redeem", text); !strings.Contains(got, "refused") {
		t.Errorf("bob redeems alice's capability: %s", got)
	}
	if got := as(t, b, "alice", "redeem", text); got != "I am bob as asked" {
		t.Errorf("alice redeems her capability in another process: %s", got)
	}
	if got := as(t, b, "alice", "redeem", text); !strings.Contains(got, "refused") {
		t.Errorf("the second time: %s", got)
	}
}

func TestACallerWithNoNewPrivsIsToldWhy(t *testing.T) {
	b := up(t)
	out, err := b.Command(testbed.AsPerson("alice", "setpriv", "--no-new-privs", b.Bin("su"), "bob")...).CombinedOutput()
	if err == nil || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "no_new_privs") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestANamespaceOfTheCallersOwnGivesNothing: there is no uid of bob's in it.
func TestANamespaceOfTheCallersOwnGivesNothing(t *testing.T) {
	b := up(t)
	for _, flags := range []string{"-U", "-Ur", "-Urp --fork", "-Urm"} {
		argv := append([]string{"unshare"}, strings.Fields(flags)...)
		cmd := b.Command(testbed.AsPerson("alice", append(argv, b.Bin("su"), "-c", "echo I am $(id -u)", "bob")...)...)
		cmd.Stdin = strings.NewReader(testbed.Password + "\n")
		out, err := cmd.CombinedOutput()
		t.Logf("unshare %s: %s", flags, out)
		if err == nil || !strings.Contains(string(out), "user namespace of its own") {
			t.Errorf("unshare %s: %v: %s", flags, err, out)
		}
		// A program of her own does not stop there.
		out, _ = b.Command(testbed.AsPerson("alice", append(argv, b.Self(t), "ask", "redeem")...)...).CombinedOutput()
		t.Logf("unshare %s: %s", flags, out)
		if strings.Contains(string(out), "I am") {
			t.Errorf("unshare %s, without su: %s", flags, out)
		}
	}
	if out := as(t, b, "alice", "ask", "redeem"); !strings.Contains(out, "I am") {
		t.Errorf("without a namespace: %s", out)
	}
	if n := b.Logged("panic"); n > 0 {
		t.Error("factotum has failed")
	}
}

// TestTheWorkerHasTheCallersRealUidAndNothingElse of the caller's.
func TestTheWorkerHasTheCallersRealUidAndNothingElse(t *testing.T) {
	b := up(t)
	sh := `ulimit -Sn 33; ulimit -c 0; cd /home/alice; umask 077; export LD_PRELOAD=/x EVIL=yes; exec 9</etc/hosts; trap '' HUP; exec ` + b.Self(t) + ` hold`
	cmd := b.Command(testbed.AsPerson("alice", "sh", "-c", sh)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if !testbed.Eventually(func() bool {
		p := b.Pids("factotum-pam")
		return len(p) == 1 && strings.Contains(b.Sh(t, fmt.Sprintf("cat /proc/%d/status", p[0])), b.Sh(t, `printf 'Uid:\t%d\t0\t0\t0\nGid:\t%d\t0\t0\t0\n' $(id -u alice) $(id -g alice)`))
	}) {
		t.Fatal("no worker with alice's real ids and root's effective one")
	}
	pid := b.Pids("factotum-pam")[0]
	read := func(command, file string) string { return b.Sh(t, fmt.Sprintf("%s /proc/%d/%s", command, pid, file)) }
	if cwd := read("readlink", "cwd"); cwd != "/" {
		t.Errorf("it is in %s", cwd)
	}
	if env := read("cat", "environ"); strings.Contains(env, "EVIL") || strings.Contains(env, "LD_PRELOAD") {
		t.Errorf("its environment is %q", env)
	}
	if fds := read("ls -l", "fd/"); strings.Contains(fds, "hosts") {
		t.Errorf("its descriptors are %s", fds)
	}
	if limits := read("cat", "limits"); strings.Contains(limits, "Max open files            33 ") {
		t.Errorf("it has alice's limits: %s", limits)
	}
	// Alice may send it signals, as a setuid program, but not look into it.
	for _, try := range []string{"cat /proc/%d/environ", "cat /proc/%d/mem", "ls -l /proc/%d/fd", "prlimit --pid %d --nofile=1:1", "strace -p %d"} {
		script := fmt.Sprintf(try, pid)
		if out, err := b.Command(testbed.AsPerson("alice", "sh", "-c", script)...).CombinedOutput(); err == nil {
			t.Errorf("%s: %s", script, out)
		}
	}
}

func TestAKilledWorkerLetsNobodyIn(t *testing.T) {
	t.Parallel()
	b := up(t)
	// In a session another worker takes over, which alice cannot kill.
	term := b.Start(t, testbed.AsPerson("alice", b.Bin("su"), "bob")...)
	term.Expect("Password: ")
	term.Send(testbed.Password + "\n")
	term.Expect(`\$ `)
	first := b.Pids("factotum-pam")[0]
	kill := func(pid int) error {
		return b.Command(testbed.AsPerson("alice", "kill", "-9", fmt.Sprint(pid))...).Run()
	}
	if err := kill(first); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { p := b.Pids("factotum-pam"); return len(p) == 1 && p[0] != first }) {
		t.Fatal("no worker takes over")
	}
	if err := kill(b.Pids("factotum-pam")[0]); err == nil {
		t.Error("alice kills the second worker")
	}
	term.Send("exit\n")
	term.Wait()
	b.WantLog(t, "session closed")
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Fatal("the second worker does not end")
	}
	// Before the proof it ends the conversation.
	term = b.Start(t, testbed.AsPerson("alice", b.Bin("su"), "bob")...)
	term.Expect("Password: ")
	if err := kill(b.Pids("factotum-pam")[0]); err != nil {
		t.Fatal(err)
	}
	term.Send(testbed.Password + "\n")
	term.Expect("su: authentication failed: the PAM worker crashed")
	if term.Wait() == nil {
		t.Error("the status is 0")
	}
}

// TestMoreConversationsGetNoMoreGuesses: each wrong answer takes as long as PAM and
// FAIL_DELAY want, one after the other.
func TestMoreConversationsGetNoMoreGuesses(t *testing.T) {
	t.Parallel()
	b := up(t)
	got, err := strconv.Atoi(as(t, b, "alice", "guess", "3"))
	// At once they took 4 s at most: 1 to 3 s of PAM, and FAIL_DELAY of 1 s.
	if want := 5000; err != nil || got < want {
		t.Errorf("3 guesses took %d ms, want at least %d: %v", got, want, err)
	}
}

// TestAFloodOfConversationsKeepsNobodyOut: alice has a thousand, and makes more.
func TestAFloodOfConversationsKeepsNobodyOut(t *testing.T) {
	b := up(t)
	cmd := b.Command(testbed.AsPerson("alice", b.Self(t), "flood", "1000")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line := make([]byte, 100)
	n, err := out.Read(line)
	if err != nil || !strings.HasPrefix(string(line[:n]), "held ") {
		t.Fatalf("%v: %s", err, line[:n])
	}
	var held int
	fmt.Sscanf(string(line[:n]), "held %d", &held)
	if held == 0 || held > 32 {
		t.Errorf("alice has %d conversations", held)
	}
	for who, argv := range map[string][]string{
		"root at a console":  {b.Bin("login"), "-f", "bob"},
		"bob, who calls su":  testbed.AsPerson("bob", b.Bin("su"), "alice"),
		"bob at a console":   testbed.As("_login", b.Bin("login"), "bob"),
		"root, who calls su": {b.Bin("su"), "bob"},
	} {
		start := time.Now()
		term := b.Start(t, argv...)
		if !strings.HasPrefix(who, "root") {
			term.Expect("Password: ")
			term.Send(testbed.Password + "\n")
		}
		term.Expect(`\$ $`)
		took := time.Since(start)
		t.Logf("%s: %d ms", who, took.Milliseconds())
		if took > time.Second {
			t.Errorf("%s is let in after %v", who, took)
		}
		term.Send("exit\n")
		term.Wait()
	}
}

// TestATerminalOfSuPIsNotTheCallers: what the shell pushes into its terminal's input
// (TIOCSTI) stays there.
func TestATerminalOfSuPIsNotTheCallers(t *testing.T) {
	b := up(t)
	term := b.Start(t, testbed.AsPerson("alice", b.Bin("su"), "-P", "bob")...)
	term.Expect("Password: ")
	outer := term.TTY()
	term.Send(testbed.Password + "\n")
	term.Expect(`\$ `)
	if got := term.Run("tty"); got == outer || !strings.HasPrefix(got, "/dev/pts/") {
		t.Errorf("the shell's terminal is %s, su's is %s", got, outer)
	}
	if got := term.Run("stty -a | grep -o 'columns [0-9]*'; sleep 0.1; id -un"); !strings.Contains(got, "bob") {
		t.Errorf("in the terminal: %s", got)
	}
	term.Send("sleep 100\n")
	time.Sleep(200 * time.Millisecond)
	term.Send("\x03")
	term.Send("echo interrupted=$?\n")
	term.Expect("interrupted=130")
	term.Send("exit 7\n")
	var exit *exec.ExitError
	if err := term.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("the status is %v", err)
	}
}

// TestSuEndsItsShellWhenItIsTold, though that is another user's.
func TestSuEndsItsShellWhenItIsTold(t *testing.T) {
	b := up(t)
	term := b.Start(t, testbed.AsPerson("alice", b.Bin("su"), "-c", "trap '' TERM; echo ready; sleep 100", "bob")...)
	term.Expect("Password: ")
	term.Send(testbed.Password + "\n")
	term.Expect("ready")
	if out, err := b.Command(testbed.AsPerson("alice", "kill", fmt.Sprint(term.PID()))...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	term.Expect("Session terminated, killing shell...")
	term.Expect("...killed.") // a shell may say between the two that its child was killed
	err := term.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGTERM {
		t.Errorf("su ends with %v", err)
	}
	if !testbed.Eventually(func() bool { return b.Sh(t, "pgrep -u bob -x sh || true") == "" }) {
		t.Error("the shell lives on")
	}
}

// TestATerminalIsNamedOnlyIfItIsTheCallers in the log, and to PAM.
func TestATerminalIsNamedOnlyIfItIsTheCallers(t *testing.T) {
	b := up(t)
	other := b.Start(t, testbed.AsPerson("alice", "sh", "-c", "tty; exec sleep 100")...)
	other.Expect("/dev/pts/")
	b.Sh(t, "chown alice "+other.TTY()+"; mkfifo -m 666 /tmp/fifo.$$; mv /tmp/fifo.$$ "+b.Dir+"/fifo")
	taken := 0
	for _, path := range []string{"/dev/null", "/etc/hostname", "/", b.Dir + "/fifo", other.TTY(), "/dev/tty", "its own"} {
		before := b.Logged("user authenticated")
		term := b.Start(t, testbed.AsPerson("alice", b.Self(t), "ask", "terminal", path)...)
		said := term.Expect(`at /dev/\S+|a descriptor that is neither a TCP socket nor a terminal`)
		term.Wait()
		own, ok := strings.CutPrefix(said, "at /dev/")
		if !ok {
			continue
		}
		taken++
		if !testbed.Eventually(func() bool { return b.Logged("user authenticated") > before }) {
			t.Fatalf("%s: not in the log", path)
		}
		lines := strings.Split(b.Log(), "\n")
		for i := len(lines) - 1; i >= 0; i-- {
			if !strings.Contains(lines[i], "user authenticated") {
				continue
			}
			want := `tty=""`
			if path == "its own" {
				want = "tty=" + own
			}
			if !strings.HasSuffix(lines[i], want) {
				t.Errorf("%s: %s, want %s", path, lines[i], want)
			}
			break
		}
	}
	if taken < 2 {
		t.Errorf("%d descriptors are taken, want at least the two of terminals", taken)
	}
}
