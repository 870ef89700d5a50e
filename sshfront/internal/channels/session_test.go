package channels_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"

	"p9auth/internal/authkeys"
	sshuser "p9auth/sshfront/internal/user"
)

const wren = "wren@127.0.0.1"

func TestACommandHasItsOutputsAndItsStatus(t *testing.T) {
	h := newHost(t, "")
	h.want("hello\n", "", wren, "echo hello")
	h.want("to be echoed", "to be echoed", wren, "cat")
	out, errs, status := h.ssh("", wren, "echo out; echo err >&2; exit 42")
	if out != "out\n" || errs != "err\n" || status != 42 {
		t.Errorf("got %q, %q, %d", out, errs, status)
	}
	// All of it, though the program ends at once.
	for range 5 {
		if out, _, _ := h.ssh("", wren, "head -c 200000 /dev/zero; head -c 100000 /dev/zero >&2"); len(out) != 200000 {
			t.Errorf("%d bytes of output", len(out))
		}
		if out, _, _ := h.ssh("", "-tt", wren, "stty -opost; head -c 50000 /dev/zero"); len(out) != 50000 {
			t.Errorf("%d bytes of a terminal's output", len(out))
		}
	}
}

// client is x/crypto's.
func (h *host) client() *ssh.Client {
	h.t.Helper()
	c, err := ssh.Dial("tcp", "127.0.0.1:"+h.port, &ssh.ClientConfig{User: "wren", HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

func (h *host) newSession() *ssh.Session {
	h.t.Helper()
	s, err := h.client().NewSession()
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func TestSignalsGoBothWays(t *testing.T) {
	h := newHost(t, "")
	s := h.newSession()
	out, _ := s.StdoutPipe()
	if err := s.Start("trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.05; done"); err != nil {
		t.Fatal(err)
	}
	io.ReadFull(out, make([]byte, len("ready\n")))
	if err := s.Signal(ssh.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(out)
	var e *ssh.ExitError
	if err := s.Wait(); string(b) != "caught\n" || !asExit(err, &e) || e.ExitStatus() != 3 {
		t.Errorf("got %q, %v", b, err)
	}
	s = h.newSession()
	if err := s.Run("kill -KILL $$"); !asExit(err, &e) || e.Signal() != "KILL" {
		t.Errorf("killed: %v", err)
	}
}

func asExit(err error, e **ssh.ExitError) bool {
	var ok bool
	*e, ok = err.(*ssh.ExitError)
	return ok
}

func TestATerminalHasTheModesTheSizeAndTheName(t *testing.T) {
	h := newHost(t, "")
	s := h.newSession()
	if err := s.RequestPty("vt220", 33, 111, ssh.TerminalModes{ssh.ECHO: 0, ssh.VINTR: 5, ssh.IUTF8: 1, ssh.ONLCR: 0, ssh.TTY_OP_OSPEED: 9600, ssh.IXANY: 1}); err != nil {
		t.Fatal(err)
	}
	b, err := s.CombinedOutput("tty; echo $SSH_TTY $TERM; stat -c %U:%a $(tty); stty -a; ps -o tty= -p $$; echo x >/dev/tty")
	out := string(b)
	if err != nil {
		t.Error(err)
	}
	tty, _, _ := strings.Cut(out, "\n")
	for _, want := range []string{"\n" + tty + " vt220\n", "rows 33; columns 111", "speed 9600 baud", "intr = ^E", " -echo ", " iutf8", " -onlcr", " ixany", strings.TrimPrefix(tty, "/dev/") + "\nx\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in %q", want, out)
		}
	}
}

func TestAWindowChangeReachesTheProgram(t *testing.T) {
	h := newHost(t, "")
	s := h.newSession()
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	out, _ := s.StdoutPipe()
	if err := s.Start(`trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done`); err != nil {
		t.Fatal(err)
	}
	io.ReadFull(out, make([]byte, len("ready\r\n")))
	if err := s.WindowChange(50, 132); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(out); string(b) != "50 132\r\n" {
		t.Errorf("got %q", b)
	}
}

func TestAShellAtATerminal(t *testing.T) {
	h := newHost(t, "PrintMotd yes\n", func(i *sshuser.Info) { i.Messages = []string{"Last login: long ago", "two\nlines\n"} })
	cmd := exec.Command("ssh", h.args("-p", wren)...)
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 44, Cols: 99})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// What is typed before the prompt is shown amid what comes before it.
	var b []byte
	for buf := make([]byte, 4096); !bytes.HasSuffix(b, []byte("$ ")); {
		n, err := f.Read(buf)
		if b = append(b, buf[:n]...); err != nil {
			t.Fatalf("%v: there is no prompt in %q", err, b)
		}
	}
	io.WriteString(f, "stty size; echo $0; pwd; exit 7\n")
	rest, _ := io.ReadAll(f) // until EIO
	b = append(b, rest...)
	cmd.Wait()
	for _, want := range []string{"Last login: long ago\r\ntwo\r\nlines\r\n", "44 99\r\n", "-bash\r\n", "\r\n" + h.home + "\r\n"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("there is no %q in %q", want, b)
		}
	}
	if cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("status %d", cmd.ProcessState.ExitCode())
	}
	if err := os.WriteFile(filepath.Join(h.home, ".hushlogin"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _, _ := h.ssh("exit\n", "-tt", wren); strings.Contains(out, "Last login") {
		t.Errorf("with .hushlogin: %q", out)
	}
}

func TestTheEnvironmentIsThatOfSshd(t *testing.T) {
	h := newHost(t, "AcceptEnv LC_*\nSetEnv BY_ADMIN=yes\nPermitUserEnvironment yes\n", keyed(t, `environment="BY_KEY=yes"`))
	if err := os.MkdirAll(filepath.Join(h.home, ".ssh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.home, ".ssh/environment"), []byte("# mine\nBY_FILE=a b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, errs, _ := h.ssh("", "-o", "SetEnv=LC_X=1 SECRET=2", wren, "env -u _ -u SHLVL -u PWD -u OLDPWD | grep -v ^LS_ | sort; pwd; ulimit -c; ulimit -n; umask; grep Sig[IB] /proc/self/status; ls -l /proc/self/fd | wc -l")
	lines := strings.Split(out, "\n")
	for i, l := range lines {
		for _, name := range []string{"SSH_CLIENT", "SSH_CONNECTION"} {
			if f := strings.Fields(l); strings.HasPrefix(l, name+"=127.0.0.1 ") && f[len(f)-1] == h.port {
				lines[i] = name
			}
		}
	}
	limits, err := exec.Command("sh", "-c", "ulimit -c; ulimit -n").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"BY_ADMIN=yes", "BY_FILE=a b", "BY_KEY=yes", "FROM_PAM=yes", "HOME=" + h.home, "LC_X=1", "LOGNAME=wren",
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/games", "SHELL=/bin/bash", "SSH_CLIENT", "SSH_CONNECTION", "USER=wren", h.home, strings.TrimSpace(string(limits)), "0022",
		"SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "5", ""}
	// Signal 32 is the C library's own; whoever started the test may ignore it.
	got := strings.Replace(strings.Join(lines, "\n"), "SigIgn:\t0000000080000000", "SigIgn:\t0000000000000000", 1)
	if got != strings.Join(want, "\n") || errs != "" {
		t.Errorf("got\n%s\n%s\nwant\n%s", got, errs, strings.Join(want, "\n"))
	}
}

// keyed has the user logged in with a key of those options.
func keyed(t *testing.T, options string) func(*sshuser.Info) {
	o, _, err := authkeys.ParseOptions(options)
	if err != nil {
		t.Fatal(err)
	}
	return func(i *sshuser.Info) { i.Options = &o }
}

func TestAForcedCommandIsForced(t *testing.T) {
	byConfig := newHost(t, "ForceCommand echo forced: $SSH_ORIGINAL_COMMAND\n")
	byKey := newHost(t, "", keyed(t, `restrict,command="echo forced: $SSH_ORIGINAL_COMMAND"`))
	if _, _, status := byKey.ssh("", "-W", "127.0.0.1:"+byKey.port, wren); status == 0 {
		t.Error("restrict: a port is forwarded")
	}
	if out, _, status := byKey.ssh("", "-tt", wren); out != "" || status != 255 {
		t.Errorf("restrict: %q at a terminal, status %d", out, status)
	}
	for _, h := range []*host{byConfig, byKey} {
		h.want("forced: rm -rf /\n", "", wren, "rm -rf /")
		h.want("forced:\n", "", "-T", wren)
		h.want("forced: internal-sftp\n", "", "-s", wren, "sftp")
	}
	h := newHost(t, "ForceCommand internal-sftp\n")
	if out, errs, status := h.ssh("", wren, "id"); out != "This service allows sftp connections only.\n" || errs != "" || status != 1 {
		t.Errorf("got %q, %q, %d", out, errs, status)
	}
}

func TestRCFilesRun(t *testing.T) {
	h := newHost(t, "")
	if err := os.MkdirAll(filepath.Join(h.home, ".ssh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.home, ".ssh/rc"), []byte("echo from rc in $PWD\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.want("from rc in "+h.home+"\nmain\n", "", wren, "echo main")
	h2 := newHost(t, "PermitUserRC no\n", func(i *sshuser.Info) { i.Home = h.home })
	h2.want("main\n", "", wren, "echo main")
}

func TestAShellOrAHomeThatIsMissing(t *testing.T) {
	h := newHost(t, "", func(i *sshuser.Info) { i.Home = "/nonexistent" })
	if out, errs, status := h.ssh("", wren, "pwd"); out != "/\n" || errs != "Could not chdir to home directory /nonexistent: No such file or directory\n" || status != 0 {
		t.Errorf("got %q, %q, %d", out, errs, status)
	}
	h = newHost(t, "", func(i *sshuser.Info) { i.Shell = "/nonexistent" })
	if out, errs, status := h.ssh("", wren, "pwd"); out != "" || errs != "/nonexistent: No such file or directory\n" || status != 1 {
		t.Errorf("got %q, %q, %d", out, errs, status)
	}
}

// noise is a reader of n bytes that do not repeat.
func noise(n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{1}), n)
}

func TestMuchDataArrivesWhole(t *testing.T) {
	size := int64(50 << 20)
	if testing.Short() {
		size = 5 << 20
	}
	h := newHost(t, "")
	sum := sha256.New()
	io.Copy(sum, noise(size))
	want := fmt.Sprintf("%x", sum.Sum(nil))
	cmd := exec.Command("ssh", h.args("-p", wren, "sha256sum")...)
	cmd.Stdin = noise(size)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("to the server: %v: %q, want %s", err, out, want)
	}
	file := filepath.Join(h.home, "noise")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(f, noise(size))
	f.Close()
	sum.Reset()
	cmd = exec.Command("ssh", h.args("-p", wren, "cat noise")...)
	cmd.Stdout = sum
	h.run(cmd)
	if got := fmt.Sprintf("%x", sum.Sum(nil)); got != want {
		t.Errorf("from the server: %s, want %s", got, want)
	}
}

func TestFilesAreCopied(t *testing.T) {
	h := newHost(t, "")
	local := t.TempDir()
	data, _ := io.ReadAll(noise(3 << 20))
	if err := os.WriteFile(filepath.Join(local, "a file"), data, 0o640); err != nil {
		t.Fatal(err)
	}
	for _, legacy := range []string{"-s", "-O"} {
		for _, argv := range [][]string{
			{filepath.Join(local, "a file"), wren + ":copy" + legacy},
			{wren + ":copy" + legacy, filepath.Join(local, "back"+legacy)},
		} {
			cmd := exec.Command("scp", append([]string{legacy, "-p", "-q"}, h.args("-P", argv...)...)...)
			cmd.Stderr = h
			h.run(cmd)
			if !cmd.ProcessState.Success() {
				t.Errorf("%v: %v", cmd.Args, cmd.ProcessState)
			}
		}
		b, _ := os.ReadFile(filepath.Join(local, "back"+legacy))
		if !bytes.Equal(b, data) {
			t.Errorf("scp %s: %d bytes came back", legacy, len(b))
		}
		st, err := os.Stat(filepath.Join(h.home, "copy"+legacy))
		if err != nil || st.Mode().Perm() != 0o640 || st.Sys().(*syscall.Stat_t).Uid != h.uid {
			t.Errorf("scp %s: %v, %v", legacy, st, err)
		}
	}
	cmd := exec.Command("sftp", h.args("-P", "-q", "-b", "-", wren)...)
	cmd.Stdin = strings.NewReader("pwd\nmkdir d\nrename copy-s d/x\nln -s d/x link\nchmod 600 d/x\nls -l d\nrm link\ndf\nrm copy-O\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), h.home) {
		t.Errorf("sftp: %v: %s", err, out)
	}
	if st, err := os.Stat(filepath.Join(h.home, "d/x")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("after sftp: %v, %v", st, err)
	}
}

func TestTenSessionsShareAConnection(t *testing.T) {
	h := newHost(t, "")
	control := h.background(wren)
	done := make(chan string, 10)
	for i := range 10 {
		go func() {
			out, err := exec.Command("ssh", h.args("-p", "-S", control, wren, "sleep 0.2; echo "+strconv.Itoa(i))...).CombinedOutput()
			if err != nil {
				out = append(out, err.Error()...)
			}
			done <- string(out)
		}()
	}
	got := map[string]bool{}
	for range 10 {
		got[<-done] = true
	}
	for i := range 10 {
		if !got[strconv.Itoa(i)+"\n"] {
			t.Errorf("session %d is missing: %v", i, got)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.users) != 1 {
		t.Errorf("%d user processes", len(h.users))
	}
}

func TestMaxSessionsIsTheMost(t *testing.T) {
	h := newHost(t, "MaxSessions 2\n")
	c := h.client()
	var open []*ssh.Session
	for range 2 {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.StdinPipe(); err != nil { // else it ends at once
			t.Fatal(err)
		}
		if err := s.Start("cat"); err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	if _, err := c.NewSession(); err == nil {
		t.Error("a third session was opened")
	}
	open[0].Close()
	eventually(t, "room for another session", func() bool {
		s, err := c.NewSession()
		return err == nil && s.Run("true") == nil
	})
}

func TestWhatStaysInTheBackground(t *testing.T) {
	h := newHost(t, "")
	start := time.Now()
	// On a terminal the channel closes with the program.
	h.want("started\r\n", "", "-tt", wren, "(trap '' HUP; sleep 600) & echo $! >pid; echo started")
	b, err := os.ReadFile(filepath.Join(h.home, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	if pid > 1 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	// On pipes it stays open, and passes on what still comes.
	h.want("started\nlater\n", "", wren, "(sleep 0.3; echo later) & echo started")
	if time.Since(start) > 5*time.Minute {
		t.Error("the channel waited for what was in the background")
	}
}

// processes are those of the host's user.
func (h *host) processes() (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		env, _ := os.ReadFile(d + "/environ")
		exe, _ := os.Readlink(d + "/exe")
		if bytes.Contains(env, []byte("HOME="+h.home+"\x00")) && exe != "" {
			pid, _ := strconv.Atoi(filepath.Base(d))
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestAClientThatVanishesLeavesNothing(t *testing.T) {
	h := newHost(t, "")
	cmd := exec.Command("ssh", h.args("-p", "-tt", "-A", "-R", filepath.Join(h.dir, "r")+":127.0.0.1:1", wren, "sleep 600 & cat")...)
	in, _ := cmd.StdinPipe()
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	eventually(t, "the programs", func() bool { return len(h.processes()) >= 3 })
	cmd.Process.Kill()
	eventually(t, "their end", func() bool { return len(h.processes()) == 0 })
	eventually(t, "the end of the socket", func() bool { _, err := os.Lstat(filepath.Join(h.dir, "r")); return os.IsNotExist(err) })
	select {
	case err := <-h.ends[0]:
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(patience):
		t.Error("Serve does not return")
	}
}

func TestAUserProcessThatIsKilledEndsTheConnection(t *testing.T) {
	h := newHost(t, "")
	cmd := exec.Command("ssh", h.args("-p", "-tt", wren, "sleep 600")...)
	in, _ := cmd.StdinPipe()
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the program", func() bool { return len(h.processes()) >= 1 })
	h.mu.Lock()
	h.users[0].Process.Kill()
	h.mu.Unlock()
	cmd.Wait()
	eventually(t, "the program's end", func() bool { return len(h.processes()) == 0 })
}

func TestRequestsOfSFTPCanBeForbidden(t *testing.T) {
	h := newHost(t, "Subsystem sftp internal-sftp -P remove,posix-rename,rename -e -l VERBOSE -u 077\n")
	cmd := exec.Command("sftp", h.args("-P", "-q", "-b", "-", wren)...)
	big := filepath.Join(t.TempDir(), "big")
	data, _ := io.ReadAll(noise(1 << 20))
	if err := os.WriteFile(big, data, 0o666); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader("put " + big + " x\n-rm x\n-rename x y\nget x " + big + ".back\n")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), ": Permission denied") != 2 {
		t.Errorf("sftp: %v: %s", err, out)
	}
	for _, line := range []string{"session opened for local user wren from [127.0.0.1]", `open "` + h.home + `/x" flags WRITE,CREATE,TRUNCATE`, "Refusing denylisted remove request", "session closed"} {
		if !strings.Contains(string(out), line) {
			t.Errorf("there is no line %s in: %s", line, out)
		}
	}
	if b, err := os.ReadFile(big + ".back"); err != nil || !bytes.Equal(b, data) {
		t.Errorf("%v: %d bytes came back", err, len(b))
	}
	if st, err := os.Stat(filepath.Join(h.home, "x")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("-u: %v, %v", st, err)
	}
}

func TestNoMoreSessionsMeansNone(t *testing.T) {
	h := newHost(t, "X11Forwarding yes\n")
	c := h.client()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if ok, _, err := c.SendRequest("no-more-sessions@openssh.com", true, nil); !ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	if err := s.Setenv("LC_ALL", "C"); err == nil {
		t.Error("an environment variable is accepted that is not")
	}
	if out, err := s.Output("echo the last"); err != nil || string(out) != "the last\n" {
		t.Errorf("%v: %q", err, out)
	}
	if _, err := c.NewSession(); err == nil {
		t.Error("another session was opened")
	}
}

// OpenSSH's client sends no-more-sessions@openssh.com right after it has opened
// its session.
func TestASessionThatWasOpenedBeforeNoMoreSessionsRuns(t *testing.T) {
	h := newHost(t, "")
	for range 20 {
		h.want("hello\n", "", wren, "echo hello")
	}
}

// A client whose output nobody reads any more says so by eow@openssh.com. The
// program gets EPIPE (or SIGPIPE), even if the channel's window is full.
func TestAProgramWhoseOutputTheClientDoesNotWantEnds(t *testing.T) {
	h := newHost(t, "")
	for range 5 {
		began := time.Now()
		cmd := exec.Command("bash", append([]string{"-c", `ssh "$@" </dev/null | head -n 1; echo "${PIPESTATUS[0]}"`, "ssh"}, h.args("-p", "127.0.0.1", "yes; echo $? >ended")...)...)
		var out bytes.Buffer
		cmd.Stdout = &out
		h.run(cmd)
		if got := out.String(); got != "y\n0\n" && got != "y\n255\n" {
			t.Errorf("%q", got)
		}
		if d := time.Since(began); d > patience/2 {
			t.Errorf("it took %v", d)
		}
		eventually(t, "the program's end", func() bool {
			b, _ := os.ReadFile(filepath.Join(h.home, "ended"))
			return string(b) == "141\n"
		})
		os.Remove(filepath.Join(h.home, "ended"))
	}
}

// eow@openssh.com from a client that does not read what it was sent: the window
// stays closed.
func TestAFullWindowDoesNotKeepAProgramThatNobodyWants(t *testing.T) {
	h := newHost(t, "")
	ch, reqs, err := h.client().OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{"yes; exit 3"})); !ok || err != nil {
		t.Fatal(ok, err)
	}
	time.Sleep(time.Second) // until the window is full
	if _, err := ch.SendRequest("eow@openssh.com", false, nil); err != nil {
		t.Fatal(err)
	}
	after := time.After(patience)
	for {
		select {
		case r, ok := <-reqs:
			if !ok {
				t.Fatal("no exit status")
			}
			if r.Type == "exit-status" {
				if want := ssh.Marshal(struct{ N uint32 }{3}); !bytes.Equal(r.Payload, want) {
					t.Errorf("exit status %x", r.Payload)
				}
				return
			}
		case <-after:
			t.Fatal("the program goes on")
		}
	}
}

func TestASessionCanReadHowItWasAuthenticated(t *testing.T) {
	h := newHost(t, "ExposeAuthInfo yes\n", func(i *sshuser.Info) { i.Methods = []string{"publickey ssh-ed25519 AAAA", "password"} })
	out, _, _ := h.ssh("", wren, "cat $SSH_USER_AUTH; stat -c %a $SSH_USER_AUTH; echo $SSH_USER_AUTH")
	l := strings.Split(out, "\n")
	if len(l) != 5 || l[0] != "publickey ssh-ed25519 AAAA" || l[1] != "password" || l[2] != "600" {
		t.Fatalf("got %q", out)
	}
	eventually(t, "the end of the file", func() bool { _, err := os.Stat(l[3]); return os.IsNotExist(err) })
}

func TestAnExternalSubsystemIsRunByTheShell(t *testing.T) {
	h := newHost(t, "Subsystem greet echo $0 hello\n")
	h.want("bash hello\n", "", "-s", wren, "greet")
	if _, _, status := h.ssh("", "-s", wren, "none"); status == 0 {
		t.Error("there is no such subsystem")
	}
}
