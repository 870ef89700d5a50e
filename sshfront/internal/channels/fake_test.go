package channels_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/channels"
	"p9auth/sshfront/internal/userlink"
)

// A fakeUser is a user process that the test plays. Its programs end when they
// are told to.
type fakeUser struct {
	mu     sync.Mutex
	asked  []string
	refuse error // every request
	done   chan struct{}
	err    error
	closed bool
}

func newFakeUser() *fakeUser { return &fakeUser{done: make(chan struct{})} }

func (f *fakeUser) ask(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, what)
	return f.refuse
}

func (f *fakeUser) log() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.asked, ", ")
}

func (f *fakeUser) PTY(term string, _ userlink.Size, _ []byte) (userlink.PTY, error) {
	if err := f.ask("pty " + term); err != nil {
		return nil, err
	}
	return nil, userlink.Failedf("the fake has no terminals")
}

func (f *fakeUser) Exec(e userlink.Exec) (userlink.Program, error) {
	if err := f.ask("exec " + e.Command); err != nil {
		return nil, err
	}
	p := &fakeProgram{f: f, ended: make(chan userlink.Exit, 1), dropped: make(chan struct{})}
	for i := range p.ours {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		p.ours[i], p.its[i] = r, w
		if i == 0 {
			p.ours[i], p.its[i] = w, r
		}
	}
	if strings.HasPrefix(e.Command, "say ") {
		io.WriteString(p.its[1], e.Command[4:])
		p.end(userlink.Exit{Status: 7})
	}
	return p, nil
}

func (f *fakeUser) Dial(host string, port uint32) (*os.File, error) {
	if err := f.ask("dial " + host); err != nil {
		return nil, err
	}
	return nil, userlink.Failedf("connection refused")
}

func (f *fakeUser) DialUnix(path string) (*os.File, error) { return nil, f.ask("dial-unix " + path) }

func (f *fakeUser) Listen(host string, port uint32) (userlink.Listener, error) {
	return nil, errors.Join(f.ask("listen "+host), userlink.Failedf("no"))
}

func (f *fakeUser) ListenUnix(path string) (userlink.Listener, error) {
	return nil, errors.Join(f.ask("listen-unix "+path), userlink.Failedf("no"))
}

func (f *fakeUser) Agent() (userlink.Listener, error) {
	return nil, errors.Join(f.ask("agent"), userlink.Failedf("no"))
}

func (f *fakeUser) X11(bool, string, string, uint32) (userlink.Listener, error) {
	return nil, errors.Join(f.ask("x11"), userlink.Failedf("no"))
}

func (f *fakeUser) NoMoreSessions() error { return f.ask("no-more-sessions") }
func (f *fakeUser) Done() <-chan struct{} { return f.done }
func (f *fakeUser) Err() error            { return f.err }

func (f *fakeUser) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

type fakeProgram struct {
	f         *fakeUser
	ours, its [3]*os.File
	ended     chan userlink.Exit
	dropped   chan struct{}
	once      sync.Once
}

func (p *fakeProgram) end(e userlink.Exit) {
	for _, f := range p.its {
		f.Close()
	}
	p.ended <- e
}

func (p *fakeProgram) Stdio() (in, out, errs *os.File) { return p.ours[0], p.ours[1], p.ours[2] }
func (p *fakeProgram) Signal(name string) error        { return p.f.ask("signal " + name) }

func (p *fakeProgram) Wait() (userlink.Exit, error) {
	select {
	case e := <-p.ended:
		return e, nil
	case <-p.dropped:
		return userlink.Exit{}, userlink.ErrGone
	}
}

func (p *fakeProgram) Drop() error {
	p.once.Do(func() { close(p.dropped) })
	return nil
}

// serveFake serves a client of the library. ended has what Serve returns.
func serveFake(t *testing.T, f *fakeUser, set sshdconf.Connection) (c *ssh.Client, ended <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	end := make(chan error, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			end <- err
			return
		}
		sc := &ssh.ServerConfig{NoClientAuth: true}
		sc.AddHostKey(newSigner(t))
		m := channels.NewMeter(nc)
		conn, chans, reqs, err := ssh.NewServerConn(m, sc)
		if err != nil {
			end <- err
			return
		}
		end <- channels.Serve(conn, chans, reqs, f, channels.Options{Settings: &set, Meter: m, Log: t.Logf})
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, chans, reqs, err := ssh.NewClientConn(nc, "x", &ssh.ClientConfig{User: "wren", HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		t.Fatal(err)
	}
	c = ssh.NewClient(conn, chans, reqs)
	t.Cleanup(func() { c.Close() })
	return c, end
}

// The number of sessions is factotum's, whatever the user process, which is the
// user's, might say or permit.
func TestMaxSessionsIsFactotumsWhateverTheUserProcessPermits(t *testing.T) {
	f := newFakeUser()
	c, _ := serveFake(t, f, sshdconf.Connection{MaxSessions: 2})
	for n := range 2 {
		if _, err := c.NewSession(); err != nil {
			t.Fatalf("session %d: %v", n, err)
		}
	}
	if _, err := c.NewSession(); err == nil || !strings.Contains(err.Error(), "too many sessions") {
		t.Errorf("the third one: %v", err)
	}
	if got := f.log(); got != "" {
		t.Errorf("the user process is asked for %s", got)
	}
}

func TestAnIdleConnectionIsEndedWhateverTheUserProcessDoes(t *testing.T) {
	_, ended := serveFake(t, newFakeUser(), sshdconf.Connection{MaxSessions: 2, UnusedConnectionTimeout: 50 * time.Millisecond})
	if err := <-ended; !errors.Is(err, channels.ErrUnused) {
		t.Error(err)
	}
}

func TestAProgramsOutputAndStatusReachTheClient(t *testing.T) {
	f := newFakeUser()
	c, ended := serveFake(t, f, sshdconf.Connection{MaxSessions: 1})
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Output("say hello")
	var status *ssh.ExitError
	if string(out) != "hello" || !errors.As(err, &status) || status.ExitStatus() != 7 {
		t.Errorf("%q, %v", out, err)
	}
	c.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !f.closed {
		t.Error("the user process is not told of the end")
	}
}

func TestWhatTheUserProcessRefusesIsRefusedToTheClient(t *testing.T) {
	f := newFakeUser()
	f.refuse = userlink.Prohibitedf("it is not permitted")
	c, _ := serveFake(t, f, sshdconf.Connection{MaxSessions: 1})
	var open *ssh.OpenChannelError
	if _, err := c.Dial("tcp", "192.0.2.1:80"); !errors.As(err, &open) || open.Reason != ssh.Prohibited || open.Message != "it is not permitted" {
		t.Errorf("dial: %v", err)
	}
	f.mu.Lock()
	f.refuse = nil
	f.mu.Unlock()
	if _, err := c.Dial("tcp", "192.0.2.1:80"); !errors.As(err, &open) || open.Reason != ssh.ConnectionFailed {
		t.Errorf("a failed dial: %v", err)
	}
	if _, err := c.Listen("tcp", "192.0.2.1:0"); err == nil {
		t.Error("listening is granted")
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("vt100", 24, 80, nil); err == nil {
		t.Error("a terminal is granted")
	}
	if got := f.log(); got != "dial 192.0.2.1, dial 192.0.2.1, listen 192.0.2.1, pty vt100" {
		t.Errorf("the user process is asked for %s", got)
	}
}

// The client says so once it has its sessions; what it has opened may still get
// its program.
func TestNoMoreSessionsWaitsForThoseThatAreOpen(t *testing.T) {
	f := newFakeUser()
	c, _ := serveFake(t, f, sshdconf.Connection{MaxSessions: 5})
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if ok, _, err := c.SendRequest("no-more-sessions@openssh.com", true, nil); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, err := c.NewSession(); err == nil {
		t.Error("another session is opened")
	}
	if got := f.log(); got != "" {
		t.Errorf("too early: %s", got)
	}
	if err := s.Start("sleep"); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(patience); f.log() != "exec sleep, no-more-sessions"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("asked for %s", f.log())
		}
	}
}

func TestTheEndOfTheUserProcessEndsTheConnectionAndSaysWhy(t *testing.T) {
	f := newFakeUser()
	c, ended := serveFake(t, f, sshdconf.Connection{MaxSessions: 1})
	f.err = errors.New("the user's process has gone")
	close(f.done)
	if err := <-ended; err != f.err {
		t.Errorf("%v", err)
	}
	if err := c.Wait(); err == nil {
		t.Error("the client sees no end")
	}
}

func TestAClientIsToldWhyItsSessionCouldNotBeOpened(t *testing.T) {
	f := newFakeUser()
	f.err = userlink.Failedf("the account has expired")
	f.refuse = f.err
	close(f.done)
	c, _ := serveFake(t, f, sshdconf.Connection{MaxSessions: 1})
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.CombinedOutput("true")
	var status *ssh.ExitError
	if string(out) != "the account has expired\r\n" || !errors.As(err, &status) || status.ExitStatus() != 254 {
		t.Errorf("%q, %v", out, err)
	}
}
