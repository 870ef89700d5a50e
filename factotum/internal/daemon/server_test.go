package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/status"
	"p9auth/internal/becomerecord"
)

// serving is a server at sockets of its own, whose front end for pam is the user
// who runs the test. Workers are fakes.
func serving(t *testing.T) (s *Server, b *bench, conf config.Config) {
	t.Helper()
	dir := t.TempDir()
	gen := *host().gen
	gen.conf.Socket = filepath.Join(dir, "rpc")
	gen.conf.StatusSocket, gen.conf.MetricsSocket = filepath.Join(dir, "new", "status"), filepath.Join(dir, "metrics")
	gen.fronts = map[uint32]config.Binding{uint32(os.Getuid()): {Service: "login", Proto: "pam"}}
	b = newBench(&gen)
	s = newServer(&gen, slog.New(slog.NewTextHandler(&b.log, nil)))
	s.hire, s.caps.hash = b.hire, &b.hash
	must(s.view())
	var err error
	s.lns, err = listeners(gen.conf.Socket, nil)
	must(err)
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		s.Ending("a test")
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, b, gen.conf
}

func TestAClientLogsInOverTheSocket(t *testing.T) {
	s, b, conf := serving(t)
	c, err := capproto.Dial(conf.Socket)
	if err != nil {
		t.Fatal(err)
	}
	say := func(p capproto.Prompt) (string, error) { return typed, nil }
	_, err = c.Start(capproto.Start{User: "alice"})
	must(err)
	must(c.Converse(say))
	must(c.Session())
	must(c.Converse(say))
	info, err := c.AuthInfo()
	if err != nil || info.User != "alice" || info.UID != uidAlice || info.NoFile == nil || info.Umask != 0o22 {
		t.Errorf("%+v, %v", info, err)
	}
	var text bytes.Buffer
	must(status.Show(&text, conf.StatusSocket))
	for _, want := range []string{"conversations 1\nsessions      1\nworkers       0\ncapabilities  1 (given", "alice            login"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the status does not say %q: %s", want, text.String())
		}
	}
	m, err := net.Dial("unix", conf.MetricsSocket)
	must(err)
	fmt.Fprint(m, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
	answer, err := io.ReadAll(m)
	if err != nil || !strings.Contains(string(answer), "\np9auth_capabilities 1\n") || !strings.Contains(string(answer), "\np9auth_sessions_opened_total 1\n") {
		t.Errorf("%s, %v", answer, err)
	}
	c.Close()
	for end := time.Now().Add(20 * time.Second); s.now().Conversations > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the conversation goes on")
		}
	}
	if n, _ := b.hash.count(); n != 0 {
		t.Error("the capability outlives it")
	}
}

func TestTooManyConversationsAreTurnedAway(t *testing.T) {
	s, b, conf := serving(t)
	gen := *s.gen.Load()
	gen.conf.MaxConversations = 1
	s.gen.Store(&gen)
	c, err := capproto.Dial(conf.Socket)
	must(err)
	must(c.Renounce())
	for range 50 {
		d, err := capproto.Dial(conf.Socket)
		must(err)
		if err := d.Renounce(); capproto.CodeOf(err) != capproto.CodeLimit {
			t.Errorf("%v", err)
		}
		d.Close()
	}
	if n := s.stats.Of(status.ConversationRefused); n != 50 {
		t.Errorf("%d refusals are counted", n)
	}
	if n := strings.Count(b.log.String(), "conversation refused"); n >= 50 {
		t.Errorf("%d refusals fill the log", n)
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	more := gen
	more.conf.MaxConversations = 2
	s.gen.Store(&more)
	d, err := capproto.Dial(conf.Socket)
	must(err)
	if err := d.Renounce(); capproto.CodeOf(err) == "" {
		t.Errorf("a server that ends begins a conversation: %v", err)
	}
	c.Close()
}

func TestASocketIsReplacedOnlyIfNobodyAnswersThere(t *testing.T) {
	_, _, conf := serving(t)
	if _, err := listen(conf.Socket); err == nil || !strings.Contains(err.Error(), "another factotum answers") {
		t.Errorf("%v", err)
	}
	path := filepath.Join(t.TempDir(), "new", "rpc")
	ln, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	ln, err = listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if l, err := listeners(path, []*net.UnixListener{ln}); err != nil || len(l) != 1 {
		t.Errorf("a socket that is given: %v, %v", l, err)
	}
	// Those who wait at a socket that was given are told.
	c, err := capproto.Dial(path)
	must(err)
	turnAway([]*net.UnixListener{ln})
	if err := c.Renounce(); capproto.CodeOf(err) != capproto.CodeInternal {
		t.Errorf("%v", err)
	}
}

func TestAConfigurationThatCannotWorkIsFoundWithoutStarting(t *testing.T) {
	dir := t.TempDir()
	worker := filepath.Join(dir, "worker")
	must(os.WriteFile(worker, nil, 0o755))
	must(os.WriteFile(filepath.Join(dir, "text"), nil, 0o644))
	check := func(lines string) error {
		file := filepath.Join(dir, "factotum.conf")
		must(os.WriteFile(file, []byte(lines+"\n"), 0o644))
		return Check(file, io.Discard)
	}
	good := "FrontEnd nobody login\nPAMWorker " + worker + "\nBecome " + worker + "\nStatusSocket none"
	if err := check(good); err != nil {
		t.Error(err)
	}
	for lines, want := range map[string]string{
		"FrontEnd root login": "root must not be a front end", "FrontEnd nobody-such login": "there is no such user",
		"FrontEnd nobody login\nPAMWorker " + dir: "is not a program", "FrontEnd nobody login\nPAMWorker " + dir + "/text": "is not a program",
		"FrontEnd nobody login\nPAMWorker " + dir + "/gone": "no such file", "FrontEnd nobody sshd ssh\nSSHDConfig " + dir + "/gone": "no such file",
		"Nonsense": "unknown keyword",
	} {
		if err := check(lines); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", lines, err)
		}
		if _, err := Start(filepath.Join(dir, "factotum.conf")); err == nil {
			t.Errorf("%q: it starts", lines)
		}
	}
	if err := check(good); err != nil {
		t.Fatal(err)
	}
	if err := ShowStatus(io.Discard, filepath.Join(dir, "factotum.conf")); err == nil || !strings.Contains(err.Error(), "StatusSocket none") {
		t.Errorf("%v", err)
	}
	// A reload takes it, unless something would need a restart.
	s := newServer(host().gen, slog.New(slog.DiscardHandler))
	s.file, s.level = filepath.Join(dir, "factotum.conf"), new(slog.LevelVar)
	before := s.gen.Load()
	s.Reload()
	if s.gen.Load() != before {
		t.Error("a change of StatusSocket is taken")
	}
	conf, err := config.Read(s.file)
	must(err)
	must(check(good + "\nLogLevel debug"))
	s.gen.Store(&generation{conf: conf})
	s.Reload()
	if s.level.Level() != slog.LevelDebug || len(s.gen.Load().fronts) != 1 {
		t.Error("the configuration is not read again")
	}
}

// TestATerminalIsTheSendersOwn gives the check all that is no terminal of the
// sender's.
func TestATerminalIsTheSendersOwn(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudoterminals here")
	}
	defer master.Close()
	must(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(err)
	path := fmt.Sprintf("/dev/pts/%d", n)
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	must(err)
	defer slave.Close()
	cmd := exec.Command("sleep", "60")
	cmd.Stdin = slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	got, err := checkTTY(int(slave.Fd()), cmd.Process.Pid, uidLogin)
	if err != nil {
		t.Fatal(err)
	}
	if "/dev/"+got.name != path || got.owner.UID != uint32(os.Getuid()) || !got.isOf(cmd.Process.Pid) || got.byHand || got.isOf(os.Getpid()) {
		t.Errorf("%+v", got)
	}
	var st unix.Stat_t
	if must(unix.Fstat(int(slave.Fd()), &st)); got.file != (becomerecord.TTY{Dev: st.Dev, Ino: st.Ino}) {
		t.Errorf("fstat says %d %d, not %+v", st.Dev, st.Ino, got.file)
	}
	got.f.Close()
	null, err := os.Open("/dev/null")
	must(err)
	r, w, err := os.Pipe()
	must(err)
	w.Close()
	closed, err := os.Open("/dev/null")
	must(err)
	closed.Close()
	for name, f := range map[string]*os.File{"another device": null, "a pipe": r, "the other end": master, "a descriptor that is closed": closed} {
		if _, err := checkTTY(int(f.Fd()), cmd.Process.Pid, uidLogin); err == nil {
			t.Errorf("%s is taken for the terminal", name)
		}
	}
	if _, err := checkTTY(int(slave.Fd()), os.Getpid(), uidLogin); err == nil {
		t.Error("the terminal of another process is taken")
	}
	if _, err := checkTTY(int(slave.Fd()), 1<<22+1, uidLogin); err == nil {
		t.Error("the terminal of no process is taken")
	}
	// A process that does not lead the session could not have it again.
	child := exec.Command("sh", "-c", "sleep 60 & echo $!; wait")
	child.Stdin = slave
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	unix.Kill(cmd.Process.Pid, unix.SIGKILL)
	cmd.Wait()
	out, err := child.StdoutPipe()
	must(err)
	must(child.Start())
	defer func() { child.Process.Kill(); child.Wait() }()
	var pid int
	_, err = fmt.Fscan(out, &pid)
	must(err)
	defer unix.Kill(pid, unix.SIGKILL)
	if got, err := checkTTY(int(slave.Fd()), pid, got.owner.UID); err == nil {
		t.Errorf("a child's terminal that is the front end's: %+v", got)
	}
	got, err = checkTTY(int(slave.Fd()), pid, uidLogin)
	if byRoot := os.Getuid() == 0; byRoot && (err != nil || !got.byHand) || !byRoot && err == nil {
		t.Errorf("a child's terminal, of a session that uid %d leads: %+v, %v", os.Getuid(), got, err)
	}
	unix.Kill(pid, unix.SIGKILL)
	child.Process.Kill()
	child.Wait()
	cmd = exec.Command("sleep", "60")
	cmd.Stdin = slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(cmd.Start())
	// A login keeps it until its worker is done with it.
	b := newBench(host().gen)
	f := b.dial(t, uidLogin, uidLogin, int32(cmd.Process.Pid))
	dup, err := unix.FcntlInt(slave.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(err)
	f.want("ok", startMsg("pam", "user", "alice"), os.NewFile(uintptr(dup), "tty"))
	if f.w.files != 1 {
		t.Errorf("start is answered with %d descriptors", f.w.files)
	}
	if w := b.workers[0]; w.tty == nil || "/dev/"+w.tty.name != path {
		t.Errorf("the worker has %+v", w.tty)
	}
	f.want("ok", msg("read"))
	f.want("ok", msg("write", "data", typed))
	f.want("done", msg("read"))
	// Meanwhile it is somebody else's.
	f.c.tty.rdev++
	if m := f.wantEnd(capproto.CodeAccount, msg("session")); m.Get("text") != "the terminal was taken over by another process; log in again" {
		t.Errorf("%v", m)
	}
}

func TestTheJournalGetsPriorities(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "1:2")
	var b bytes.Buffer
	log := newLogger(&b, slog.LevelDebug)
	log.Debug("d")
	log.Info("i")
	log.Warn("w")
	log.Error("e")
	if got := b.String(); got != "<7>msg=d\n<6>msg=i\n<4>msg=w\n<3>msg=e\n" {
		t.Errorf("%q", got)
	}
	if _, err := (journalLines{failing{}}).Write([]byte("level=INFO msg=x\n")); err == nil {
		t.Error("no error")
	}
	t.Setenv("JOURNAL_STREAM", "")
	b.Reset()
	newLogger(&b, slog.LevelInfo).Info("x")
	if !strings.Contains(b.String(), "level=INFO msg=x") {
		t.Errorf("%q", b.String())
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }
