package daemon

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
	"p9auth/internal/proc"
)

// TestMain is a worker process where a test has started one.
func TestMain(m *testing.M) {
	if how := os.Getenv("FACTOTUM_TEST_WORKER"); how != "" {
		beWorker(how)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// beWorker is a worker that lets everybody in, but for what how says.
func beWorker(how string) {
	conn, err := capproto.FileConn(os.NewFile(3, "factotum"), capproto.MaxReply)
	must(err)
	say := func(e pamwire.Event) { conn.Send(e.Encode()) }
	p, err := conn.Recv()
	must(err)
	must(pamwire.CheckFactotum(p.Msg))
	switch how {
	case "another version":
		conn.Send(capproto.NewMsg("hello", "version", "99", "more", "x"))
		time.Sleep(time.Minute)
	case "no greeting":
		say(pamwire.Begun{})
		time.Sleep(time.Minute)
	case "ends at once":
		return
	}
	say(pamwire.Hello{Version: pamwire.Version})
	for {
		p, err := conn.Recv()
		if err != nil {
			return
		}
		r, err := pamwire.DecodeRequest(p.Msg, len(p.Files))
		must(err)
		switch r := r.(type) {
		case pamwire.Begin:
			switch how {
			case "nonsense":
				conn.Send(capproto.NewMsg("opened", "user", "x"))
			case "too much":
				for range 2 * maxQueue {
					say(pamwire.Prompt{Style: capproto.Info, Text: "!"})
				}
			case "deaf":
				for {
					time.Sleep(time.Minute)
				}
			}
			say(pamwire.Begun{LogName: r.User})
		case pamwire.OpenSession:
			say(opened("alice"))
			if how == "dies in the session" {
				time.Sleep(50 * time.Millisecond)
				os.Exit(1)
			}
			serveSession(say, p.Files[0])
			return
		case pamwire.Adopt:
			say(pamwire.Prompt{Style: capproto.Info, Text: "at the end of a session"})
			serveSession(say, p.Files[0])
			return
		}
		p.Close()
	}
}

// serveSession waits for the end of the session's process.
func serveSession(say func(pamwire.Event), pidfd *os.File) {
	unix.Poll([]unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}, 20000)
	say(pamwire.Closing{})
	say(pamwire.Closed{})
}

// A workshop starts worker processes.
type workshop struct {
	log     bytes.Buffer
	stats   status.Stats
	running atomic.Int64
	w       *workerProc
}

func startTestWorker(t *testing.T, how string) *workshop {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "worker")
	must(os.WriteFile(script, []byte("#!/bin/sh\nFACTOTUM_TEST_WORKER='"+how+"' exec "+exe+"\n"), 0o755))
	c := config.Default()
	c.PAMWorker = script
	s := &workshop{}
	if s.w, err = startWorker(c, status.NewLog(slog.New(slog.NewTextHandler(&s.log, nil)), &s.stats), nil, "", &s.running); err != nil {
		t.Fatal(err)
	}
	return s
}

// over waits until nothing is left of the worker.
func (s *workshop) over(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s.w.mu.Lock()
		over := s.w.over
		s.w.mu.Unlock()
		if over && s.running.Load() == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the worker does not end")
		}
	}
}

func (s *workshop) want(t *testing.T, want string) {
	t.Helper()
	select {
	case e, ok := <-s.w.Events():
		if got := fmt.Sprintf("%T", e); !ok && want != "" || ok && got != want {
			t.Fatalf("it says %s (%v), not %q", got, ok, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("it does not say %q", want)
	}
}

// leader is a process that a session is for.
func leader(t *testing.T) (*proc.Handle, *os.Process) {
	t.Helper()
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "60"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := openLeader(p.Pid, uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	return h, p
}

func TestAWorkerProcessOpensASessionAndAnotherTakesItOver(t *testing.T) {
	for how, lost := range map[string]uint64{"obliging": 0, "dies in the session": 1} {
		t.Run(how, func(t *testing.T) {
			s := startTestWorker(t, how)
			if s.w.PID() <= 0 || s.running.Load() != 1 {
				t.Error("it does not run")
			}
			must(s.w.Tell(pamwire.Begin{Service: "login", User: "alice"}))
			s.want(t, "pamwire.Begun")
			h, p := leader(t)
			var all sessions
			x, err := all.add(1, &person{name: "alice", uid: uidAlice}, h, config.Default())
			must(err)
			must(s.w.Open(x))
			s.want(t, "pamwire.Opened")
			if lost > 0 {
				// Another adopts it, which the events are not told of.
				s.want(t, "")
				for end := time.Now().Add(20 * time.Second); s.stats.Of(status.WorkerLost) < lost && time.Now().Before(end); {
					time.Sleep(5 * time.Millisecond)
				}
				time.Sleep(50 * time.Millisecond)
			}
			must(p.Kill())
			p.Wait()
			s.over(t)
			if _, n := all.list(); n != 0 || s.stats.Of(status.SessionClosed) != 1 || s.stats.Of(status.WorkerLost) != lost {
				t.Errorf("%d sessions, %d closed, %d workers lost: %s", n, s.stats.Of(status.SessionClosed), s.stats.Of(status.WorkerLost), s.log.String())
			}
			// One that is over takes no session.
			h, err = proc.Open(os.Getpid())
			must(err)
			x, err = all.add(1, &person{name: "alice", uid: uidAlice}, h, config.Default())
			must(err)
			if s.w.Open(x) == nil {
				t.Error("a worker that is over takes a session")
			}
			if _, n := all.list(); n != 0 {
				t.Error("the session is left")
			}
		})
	}
}

func TestAWorkerProcessThatCannotBeUsedIsEnded(t *testing.T) {
	for how, log := range map[string]string{
		"another version": "factotum-pam is newer than factotum; restart factotum", "no greeting": "factotum-pam is older than factotum",
		"ends at once": "", "nonsense": "not a message between factotum and factotum-pam", "too much": "it says too much",
	} {
		t.Run(how, func(t *testing.T) {
			s := startTestWorker(t, how)
			s.w.Tell(pamwire.Begin{Service: "login", User: "alice"})
			for how == "too much" && s.running.Load() > 0 { // nobody listens until it is killed
				time.Sleep(time.Millisecond)
			}
			for range s.w.Events() {
			}
			s.over(t)
			if !strings.Contains(s.log.String(), log) {
				t.Errorf("the log does not say %q: %s", log, s.log.String())
			}
		})
	}
}

func TestAWorkerThatIsAbandonedEnds(t *testing.T) {
	s := startTestWorker(t, "obliging")
	must(s.w.Tell(pamwire.Begin{Service: "login", User: "alice"}))
	s.want(t, "pamwire.Begun")
	s.w.Abandon()
	s.want(t, "")
	s.over(t)
}

func TestAWorkerThatIsNotThereIsAnError(t *testing.T) {
	c := config.Default()
	c.PAMWorker = filepath.Join(t.TempDir(), "gone")
	var n atomic.Int64
	if _, err := startWorker(c, status.NewLog(slog.New(slog.DiscardHandler), new(status.Stats)), nil, "", &n); err == nil {
		t.Error("it starts")
	}
	gen := *host().gen
	b := newBench(&gen)
	b.hire = func(config.Config, status.Log, *tty, string) (Worker, error) { return nil, os.ErrNotExist }
	if m := b.dial(t, uidLogin, uidLogin, 100).wantEnd(capproto.CodeInternal, startMsg("pam", "user", "alice")); m.Get("text") != "authentication failed: the PAM worker crashed; try again" {
		t.Errorf("%v", m)
	}
	if b.stats.Of(status.WorkerFailed) != 1 {
		t.Error("it is not counted")
	}
}

func TestTheLeaderIsTheProcessOfTheSender(t *testing.T) {
	h, err := openLeader(os.Getpid(), uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	if _, err := openLeader(os.Getpid(), uint32(os.Getuid())+1); err == nil {
		t.Error("a process of another uid")
	}
	if _, err := openLeader(1<<22+1, 0); err == nil {
		t.Error("a process that is not there")
	}
}
