package conversation

import (
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msteinert/pam/v2"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/records"
	"p9auth/internal/sys"
)

// A fakePAM is a PAM whose modules are functions. It keeps what was called.
type fakePAM struct {
	say pam.ConversationFunc

	mu      sync.Mutex
	modules map[string]func() error // one that is missing succeeds
	calls   []string
	items   map[pam.Item]string
	env     map[string]string
}

// on sets what a module does.
func (f *fakePAM) on(name string, module func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.modules[name] = module
}

// called returns the calls so far.
func (f *fakePAM) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// last returns the last call.
func (f *fakePAM) last() string {
	calls := f.called()
	if len(calls) == 0 {
		return ""
	}
	return calls[len(calls)-1]
}

func (f *fakePAM) call(name string, flags pam.Flags) error {
	f.mu.Lock()
	module := f.modules[name]
	if flags != 0 {
		name += ":" + strconv.Itoa(int(flags))
	}
	f.calls = append(f.calls, name)
	f.mu.Unlock()
	if module == nil {
		return nil
	}
	return module()
}

func (f *fakePAM) Authenticate(fl pam.Flags) error  { return f.call("authenticate", fl) }
func (f *fakePAM) AcctMgmt(fl pam.Flags) error      { return f.call("account", fl) }
func (f *fakePAM) ChangeAuthTok(fl pam.Flags) error { return f.call("change", fl) }
func (f *fakePAM) SetCred(fl pam.Flags) error       { return f.call("setcred", fl) }
func (f *fakePAM) OpenSession(fl pam.Flags) error   { return f.call("open", fl) }
func (f *fakePAM) CloseSession(fl pam.Flags) error  { return f.call("close", fl) }
func (f *fakePAM) End() error                       { return f.call("end", 0) }

func (f *fakePAM) SetItem(i pam.Item, v string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.items[i] = v
	return nil
}

func (f *fakePAM) GetItem(i pam.Item) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.items[i], nil
}

func (f *fakePAM) GetEnvList() (map[string]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.env), nil
}

func (f *fakePAM) PutEnv(kv string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	k, v, _ := strings.Cut(kv, "=")
	f.env[k] = v
	return nil
}

// A factotum is the other end of a conversation.
type factotum struct {
	t    *testing.T
	conn *capproto.Conn
	c    *Conversation
	pam  *fakePAM
	done chan error // what Run returned
	dir  string     // of records
}

// begin starts a conversation with a factotum that has said nothing yet.
func begin(t *testing.T, change ...func(*Conversation)) *factotum {
	a, b, err := sys.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	f := &factotum{t: t, done: make(chan error, 1), dir: t.TempDir(), pam: &fakePAM{modules: map[string]func() error{}, items: map[pam.Item]string{}, env: map[string]string{}}}
	if f.conn, err = capproto.FileConn(a, capproto.MaxReply); err != nil {
		t.Fatal(err)
	}
	worker, err := capproto.FileConn(b, capproto.MaxReply)
	if err != nil {
		t.Fatal(err)
	}
	f.c = New(worker)
	f.c.start = func(service, user, confDir string, say pam.ConversationFunc) (Transaction, error) {
		f.pam.call("start "+service+" "+user+" "+confDir, 0)
		f.pam.say = say
		return f.pam, f.pam.SetItem(pam.User, user)
	}
	f.c.setGroups = func([]int) error { return nil }
	place := func(name string) string {
		path := filepath.Join(f.dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	f.c.places = records.Places{Utmp: place("utmp"), Wtmp: place("wtmp"), Btmp: place("btmp"), Lastlog: place("lastlog")}
	for _, ch := range change {
		ch(f.c)
	}
	go func() {
		err := f.c.Run()
		worker.Close()
		f.done <- err
	}()
	t.Cleanup(func() {
		f.conn.Close()
		select {
		case <-f.done:
		case <-time.After(10 * time.Second):
			t.Error("the conversation does not end")
		}
	})
	return f
}

// meet starts a conversation and says hello.
func meet(t *testing.T, change ...func(*Conversation)) *factotum {
	f := begin(t, change...)
	f.say(pamwire.Hello{Version: pamwire.Version})
	f.want(pamwire.Hello{Version: pamwire.Version})
	return f
}

func (f *factotum) say(r pamwire.Request, files ...*os.File) {
	f.t.Helper()
	if err := f.conn.Send(r.Encode(), files...); err != nil {
		f.t.Fatalf("%T: %v", r, err)
	}
}

// hear returns the next event, or nil at the end.
func (f *factotum) hear() pamwire.Event {
	f.t.Helper()
	f.conn.Socket().SetReadDeadline(time.Now().Add(10 * time.Second))
	p, err := f.conn.Recv()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		f.t.Fatal(err)
	}
	e, err := pamwire.DecodeEvent(p.Msg)
	if err != nil {
		f.t.Fatal(err)
	}
	return e
}

// want hears an event that is equal to this one; nil is the end.
func (f *factotum) want(w pamwire.Event) {
	f.t.Helper()
	got := f.hear()
	if w == nil || got == nil {
		if w != got {
			f.t.Fatalf("heard %#v, want %#v", got, w)
		}
		return
	}
	if a, b := got.Encode(), w.Encode(); a.Verb != b.Verb || !slices.Equal(a.Attrs, b.Attrs) {
		f.t.Fatalf("heard %v, want %v", a, b)
	}
}

// wantFailed hears that the worker failed, and that it ends with an error.
func (f *factotum) wantFailed() {
	f.t.Helper()
	if e, ok := f.hear().(pamwire.Failed); !ok {
		f.t.Fatalf("heard %#v, want Failed", e)
	}
	if err := f.end(); err == nil {
		f.t.Error("the conversation ended without an error")
	}
}

// end waits for the end of the conversation and returns why it ended.
func (f *factotum) end() error {
	f.t.Helper()
	f.want(nil)
	err := <-f.done
	f.done <- err
	return err
}

// self is an account that this process may be: its own.
func self(t *testing.T) string {
	u, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	return u.Username
}

// A process is one that a session is for.
type process struct {
	cmd *exec.Cmd
	fd  *os.File
}

func startProcess(t *testing.T) process {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := process{cmd, os.NewFile(uintptr(fd), "pidfd")}
	t.Cleanup(func() { p.end(); p.fd.Close() })
	return p
}

func (p process) pid() int { return p.cmd.Process.Pid }

func (p process) end() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}
