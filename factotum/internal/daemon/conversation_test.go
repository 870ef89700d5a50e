package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
)

// sessionByPAM carries a conversation of proto=pam on until a session is asked for.
func sessionByPAM(t testing.TB, b *bench) *front {
	f := b.dial(t, uidLogin, uidLogin, 100)
	f.want("ok", startMsg("pam", "user", "alice"))
	f.want("ok", msg("read"))
	f.want("ok", msg("write", "data", typed))
	f.want("done", msg("read"))
	f.want("ok", msg("session"))
	return f
}

// loginByPAM carries a conversation of proto=pam on until a session is open.
func loginByPAM(t testing.TB, b *bench) *front {
	f := sessionByPAM(t, b)
	f.want("done", msg("read"))
	return f
}

// admitBySSH carries a conversation of proto=ssh on until the user is admitted.
func admitBySSH(t testing.TB, b *bench, user string) *front {
	f := b.dial(t, uidSSH, uidSSH, 200)
	f.want("ok", startMsg("ssh"), socket())
	f.want("ok", f.signMsg())
	f.want("ok", msg("user", "name", user))
	f.want("done", keyMsg(user, f.sid))
	return f
}

func TestACapabilityIsForTheSenderAndTheUserAndDiesWithTheConversation(t *testing.T) {
	b := newBench(host().gen)
	f := loginByPAM(t, b)
	var caps []capproto.Cap
	for range 2 {
		m := f.want("ok", msg("authinfo"))
		c, err := capproto.Parse(m.Get("cap"))
		if err != nil || c.Grant.From != uidLogin || c.Grant.To != uidAlice || len(c.Grant.Groups) != 2 || !b.hash.has(c.Hash()) {
			t.Errorf("%v: %v", m, err)
		}
		caps = append(caps, c)
		// Exactly what is named, and nothing else that a worker may say.
		for _, name := range []string{"user", "uid", "gid", "home", "shell", "env", "umask", "nofile", "nohome", "hush", "cap"} {
			if m.Get(name) == "" {
				t.Errorf("authinfo has no %s", name)
			}
		}
		if len(m.Attrs) != 12 { // env is there twice: TERM, and PAM's
			t.Errorf("authinfo has %d attributes: %v", len(m.Attrs), m)
		}
	}
	if caps[0].Key == caps[1].Key {
		t.Error("twice the same capability")
	}
	if open, all := b.sessions.list(); len(open) != 1 || all != 1 || open[0].User != "alice" || open[0].Service != "login" {
		t.Errorf("sessions: %v", open)
	}
	f.hangUp()
	if n, _ := b.hash.count(); n != 0 || b.caps.count() != 0 {
		t.Errorf("%d capabilities outlive their conversation", n)
	}
	if _, all := b.sessions.list(); all != 1 {
		t.Error("the session ends with the conversation")
	}
	w := b.workers[0]
	if w.abandoned {
		t.Error("the worker of an open session is abandoned")
	}
	w.session.end()
	w.session.end()
	if _, all := b.sessions.list(); all != 0 {
		t.Error("the session is still counted")
	}
}

func TestAConversationHasSoManyCapabilitiesAndAUidToo(t *testing.T) {
	b := newBench(host().gen)
	f := loginByPAM(t, b)
	for range config.MaxCapsPerConversation {
		f.want("ok", msg("authinfo"))
	}
	for range 2 {
		if m := f.want("error", msg("authinfo")); m.Get("code") != capproto.CodeLimit {
			t.Errorf("%v", m)
		}
	}
	if n := b.stats.Of(status.CapabilityRefused); n != 1 {
		t.Errorf("it is in the log %d times", n)
	}
	f.want("ok", msg("attr"))
	other := loginByPAM(t, b)
	b.caps.most = config.MaxCapsPerConversation
	if m := other.want("error", msg("authinfo")); m.Get("code") != capproto.CodeLimit {
		t.Errorf("more than the uid may have: %v", m)
	}
	b.caps.most = 100
	b.hash.err = unix.ENOSPC
	if m := other.want("error", msg("authinfo")); m.Get("code") != capproto.CodeLimit {
		t.Errorf("caphash is full: %v", m)
	}
	b.hash.err = unix.EIO
	other.wantEnd(capproto.CodeInternal, msg("authinfo"))
}

func TestALoginBySSHIsHandedOverOnce(t *testing.T) {
	b := newBench(host().gen)
	f := admitBySSH(t, b, "alice")
	f.want("ok", msg("nonce"))
	f.want("ok", f.signMsg())
	token := f.want("ok", msg("ticket")).Get("ticket")
	b.dial(t, uidLogin, uidLogin, 101).wantEnd(capproto.CodeProtocol, msg("attach", "ticket", token))
	b.dial(t, uidSSH, uidSSH, 202).wantEnd(capproto.CodeProtocol, msg("attach", "ticket", token+"A"))
	s := b.dial(t, uidSSH, uidSSH, 201)
	s.want("ok", msg("attach", "ticket", token))
	b.dial(t, uidSSH, uidSSH, 203).wantEnd(capproto.CodeProtocol, msg("attach", "ticket", token))
	s.want("ok", msg("session"))
	s.want("done", msg("read"))
	m := s.want("ok", msg("authinfo"))
	if m.Get("settings") == "" || m.Get("options") == "" || !strings.HasPrefix(m.Get("method"), "publickey ssh-ed25519 ") || m.Get("remote") == "" {
		t.Errorf("authinfo: %v", m)
	}
	f.hangUp()
	s.want("ok", msg("authinfo")) // it is its own
	s.hangUp()
}

func TestAHandoverThatNobodyTakesEndsWithItsConversation(t *testing.T) {
	b := newBench(host().gen)
	f := admitBySSH(t, b, "alice")
	token := f.want("ok", msg("ticket")).Get("ticket")
	f.hangUp()
	b.dial(t, uidSSH, uidSSH, 201).wantEnd(capproto.CodeProtocol, msg("attach", "ticket", token))
	if w := b.workers[0]; !w.abandoned {
		t.Error("the worker is left")
	}
}

// The configuration is taken once: a conversation that was accepted, and has not
// started, does not fall into the gap that a reload makes.
func TestAFrontEndForSSHThatIsTakenAwayMeanwhileHarmsNobody(t *testing.T) {
	dir := t.TempDir()
	s := newServer(host().gen, slog.New(slog.DiscardHandler))
	b := newBench(host().gen)
	s.core.hire, s.core.leader = b.hire, b.leader
	s.caps.hash = &b.hash
	w := newFakeWire()
	f := &front{t: t, b: b, w: w, cred: &unix.Ucred{Pid: 200, Uid: uidSSH}, ended: make(chan struct{})}
	s.accept(w, f.cred, "")
	f.want("ok", msg("attr"))
	without := host().gen.conf
	without.FrontEnds = map[string]config.Binding{"_login": {Service: "login", Proto: "pam"}}
	s.gen.Store(&generation{without, map[uint32]config.Binding{uidLogin: {Service: "login", Proto: "pam"}}, nil, nil, nil})
	f.want("ok", startMsg("ssh"), socket())
	f.want("ok", f.signMsg())
	f.want("done", keyMsg("alice", f.sid))
	// Whoever comes later is no front end.
	late := newFakeWire()
	s.accept(late, &unix.Ucred{Pid: 201, Uid: uidSSH}, "")
	if m := <-late.out; m.Get("code") != capproto.CodeProtocol || !strings.Contains(m.Get("text"), "add a FrontEnd line") {
		t.Errorf("%v", m)
	}
	if n := s.stats.Of(status.Panicked); n != 0 {
		t.Errorf("%d faults", n)
	}
	// And a configuration that is not good changes nothing.
	s.file, s.level = filepath.Join(dir, "gone"), new(slog.LevelVar)
	before := s.gen.Load()
	s.Reload()
	if s.gen.Load() != before {
		t.Error("a configuration that is not there is taken")
	}
	close(w.in)
	s.Close()
}

// A fault in one conversation ends that one: another goes on, and what the first
// held is free.
func TestAFaultEndsItsConversationAlone(t *testing.T) {
	b := newBench(host().gen)
	other := loginByPAM(t, b)
	const secret = "a-secret-that-no-log-may-have"
	for name, fault := range map[string]func(*fakeWorker, pamwire.Request) []pamwire.Event{
		"a nil dereference": func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
			if _, ok := r.(pamwire.Answer); ok {
				var c *conversation
				c.user.name = secret
			}
			return obliging(w, r)
		},
		"a panic": func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
			if _, ok := r.(pamwire.Answer); ok {
				panic(errors.New(secret))
			}
			return obliging(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := b.stats.Of(status.Panicked)
			b.reply = fault
			f := b.dial(t, uidLogin, uidLogin, 300)
			f.want("ok", startMsg("pam", "user", "alice"))
			f.want("ok", msg("read"))
			f.wantEnd(capproto.CodeInternal, msg("write", "data", secret))
			if n := b.stats.Of(status.Panicked) - before; n != 1 {
				t.Errorf("%d faults are counted", n)
			}
			if !b.workers[len(b.workers)-1].abandoned {
				t.Error("its worker is left")
			}
			other.want("ok", msg("authinfo"))
		})
	}
	text := b.log.String()
	if !strings.Contains(text, "daemon.(*conversation).write:") || !strings.Contains(text, "nil pointer dereference") {
		t.Errorf("the log does not say where: %s", text)
	}
	if strings.Contains(text, secret) {
		t.Error("the log has what was typed")
	}
	other.hangUp()
}

// A fault where the connection is read ends the conversation too.
func TestAFaultInTheReaderEndsTheConversation(t *testing.T) {
	b := newBench(host().gen)
	f := loginByPAM(t, b)
	f.want("ok", msg("authinfo"))
	f.c.wire.(*fakeWire).in <- capproto.Packet{Cred: nil} // is read, and refused
	<-f.ended
	if n, _ := b.hash.count(); n != 0 {
		t.Error("a capability is left")
	}
	c := newConversation(&b.core, b.gen, faultyWire{newFakeWire()}, &unix.Ucred{Uid: uidLogin})
	c.run()
	c.leaving.Wait()
	if b.stats.Of(status.Panicked) != 1 {
		t.Errorf("%d faults", b.stats.Of(status.Panicked))
	}
}

type faultyWire struct{ *fakeWire }

func (faultyWire) Recv() (capproto.Packet, error) { panic("a fault") }

func TestProgramsOfTwoVersionsRefuseEachOther(t *testing.T) {
	b := newBench(host().gen)
	for _, c := range []struct {
		uid  uint32
		m    capproto.Msg
		code string
		text string
	}{
		{uidSSH, msg("start", "proto", "ssh"), capproto.CodeVersion, "sshfront is older than factotum; restart it"},
		{uidSSH, msg("start", "proto", "ssh", "version", "1"), capproto.CodeVersion, "sshfront is older than factotum; restart it"},
		{uidSSH, msg("start", "proto", "ssh", "version", fmt.Sprint(capproto.Version+1)), capproto.CodeVersion, "factotum is older than sshfront; restart factotum"},
		{uidLogin, msg("start", "proto", "pam", "user", "alice"), capproto.CodeVersion, "login is older than factotum; log in again; if that does not help, restart the console's getty"},
		{uidLogin, msg("start", "proto", "pam", "version", "02"), capproto.CodeProtocol, "version=02"},
		{uidLogin, msg("start", "proto", "pam", "version", "-1"), capproto.CodeProtocol, "version=-1"},
		{uidLogin, msg("start", "proto", "pam", "version", "2", "version", "2"), capproto.CodeProtocol, ""},
	} {
		f := b.dial(t, c.uid, c.uid, 100)
		if m := f.wantEnd(c.code, c.m); c.text != "" && m.Get("text") != c.text {
			t.Errorf("%v is refused: %s", c.m, m.Get("text"))
		}
	}
	f := b.dial(t, uidLogin, uidLogin, 100)
	if v := f.want("ok", startMsg("pam", "user", "alice")).Get("version"); v != fmt.Sprint(capproto.Version) {
		t.Errorf("factotum is of version %q", v)
	}
	f.hangUp()
}

func TestOnlyRootSkipsThePasswordAndOnlyAtOnce(t *testing.T) {
	b := newBench(host().gen)
	pre := startMsg("pam", "user", "alice", "preauth", "yes")
	root := b.dial(t, uidLogin, 0, 100)
	root.want("ok", pre)
	root.want("done", msg("read"))
	root.hangUp()
	for name, f := range map[string]func() *front{
		"not root": func() *front { return b.dial(t, uidLogin, uidLogin, 100) },
		"not the first request": func() *front {
			f := b.dial(t, uidLogin, 0, 100)
			f.want("ok", msg("attr"))
			return f
		},
	} {
		front := f()
		if m := front.want("error", pre); m.Get("code") != capproto.CodeDenied {
			t.Errorf("%s: %v", name, m)
		}
		front.hangUp()
	}
	b.dial(t, uidLogin, 0, 100).wantEnd(capproto.CodeProtocol, startMsg("pam", "user", "alice", "preauth", "no"))
	if m := b.dial(t, uidLogin, 0, 100).want("error", startMsg("pam", "preauth", "yes")); m.Get("code") != capproto.CodeDenied {
		t.Errorf("without a name: %v", m)
	}
}

func TestAllPacketsComeFromOneProcessOfAFrontEnd(t *testing.T) {
	b := newBench(host().gen)
	for name, c := range map[string]struct {
		peer, uid uint32
		cred      *unix.Ucred
	}{
		"no credentials":           {uidLogin, uidLogin, nil},
		"pid 0":                    {uidLogin, uidLogin, &unix.Ucred{Uid: uidLogin}},
		"not a front end":          {uidLogin, uidStranger, nil},
		"root itself":              {0, 0, nil},
		"another front end's":      {uidSSH, uidLogin, nil},
		"a connection of root's":   {0, uidLogin, &unix.Ucred{Pid: 101, Uid: uidLogin}},
		"a connection of nobody's": {uidStranger, uidLogin, nil},
	} {
		f := b.dial(t, c.uid, c.peer, 100)
		if c.cred != nil || name == "no credentials" {
			f.cred = c.cred
		}
		if m := f.wantEnd(capproto.CodeProtocol, msg("attr")); m.Get("state") != "" {
			t.Errorf("%s: %v", name, m)
		}
	}
	for _, cred := range []unix.Ucred{{Pid: 101, Uid: uidLogin}, {Pid: 100, Uid: uidSSH}, {Pid: 100, Uid: 0}} {
		f := b.dial(t, uidLogin, uidLogin, 100)
		f.want("ok", msg("attr"))
		f.cred = &cred
		f.wantEnd(capproto.CodeProtocol, msg("attr"))
	}
}

func TestAWrongPasswordCanBeTriedAgainSoOften(t *testing.T) {
	b := newBench(host().gen)
	b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		if _, ok := r.(pamwire.Answer); ok {
			return []pamwire.Event{pamwire.Refused{Code: capproto.CodeDenied, Text: "Login incorrect"}}
		}
		return obliging(w, r)
	}
	f := b.dial(t, uidLogin, 0, 100)
	for range b.gen.conf.MaxAuthTries {
		f.want("ok", startMsg("pam", "user", "alice", "host", "192.0.2.1"))
		f.want("ok", msg("read"))
		f.want("ok", msg("write", "data", typed))
		if m := f.want("error", msg("read")); m.Get("code") != capproto.CodeDenied || m.Get("text") != "Login incorrect" {
			t.Errorf("%v", m)
		}
	}
	f.wantEnd(capproto.CodeLimit, startMsg("pam", "user", "alice"))
	if got, want := b.stats.Of(status.Refused), uint64(b.gen.conf.MaxAuthTries); got != want {
		t.Errorf("%d refusals are counted, not %d", got, want)
	}
	if strings.Contains(b.log.String(), typed) {
		t.Error("the log has a password")
	}
}

func TestAWorkerThatSaysWhatItShouldNotEndsTheLogin(t *testing.T) {
	for name, bad := range map[string]struct {
		to pamwire.Request
		e  pamwire.Event
	}{
		"proven twice":                  {pamwire.CheckAccount{}, pamwire.Proven{User: "alice"}},
		"the account before the proof":  {pamwire.Answer{}, accountValid("alice")},
		"opened before the proof":       {pamwire.Answer{}, opened("alice")},
		"failed":                        {pamwire.Answer{}, pamwire.Failed{Text: "x"}},
		"a session of somebody else":    {pamwire.OpenSession{}, opened("bob")},
		"proven in place of a session":  {pamwire.OpenSession{}, pamwire.Proven{User: "alice"}},
		"proven before it has begun":    {pamwire.Begin{}, pamwire.Proven{User: "alice"}},
		"no session, for a bad account": {pamwire.OpenSession{}, pamwire.Refused{Code: capproto.CodeAccount, Text: "no"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(host().gen)
			b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
				if r.Encode().Verb == bad.to.Encode().Verb {
					return []pamwire.Event{bad.e}
				}
				return obliging(w, r)
			}
			f := b.dial(t, uidLogin, uidLogin, 100)
			for _, m := range []capproto.Msg{startMsg("pam", "user", "alice"), msg("read"), msg("write", "data", "x"), msg("read"), msg("session"), msg("read")} {
				if r, ok := f.ask(m); !ok || r.Verb == "error" {
					break
				}
			}
			select {
			case <-f.ended:
			case <-time.After(10 * time.Second):
				t.Fatalf("the conversation goes on in state %s", f.c.state)
			}
			if _, made := b.hash.count(); made != 0 {
				t.Error("there is a capability")
			}
		})
	}
}

func TestALoginThatTakesTooLongEnds(t *testing.T) {
	gen := *host().gen
	gen.conf.LoginGraceTime = 20 * time.Millisecond
	b := newBench(&gen)
	f := b.dial(t, uidLogin, uidLogin, 100)
	if m := <-f.w.out; m.Get("code") != capproto.CodeTimeout {
		t.Errorf("%v", m)
	}
	<-f.ended
	// A session that is open has all the time.
	gen.conf.LoginGraceTime = 300 * time.Millisecond
	open := loginByPAM(t, b)
	time.Sleep(400 * time.Millisecond)
	open.want("ok", msg("authinfo"))
	open.hangUp()
}

func TestTooManySessionsAreRefused(t *testing.T) {
	gen := *host().gen
	gen.conf.MaxSessions = 1
	b := newBench(&gen)
	loginByPAM(t, b).hangUp()
	f := b.dial(t, uidLogin, uidLogin, 100)
	f.want("ok", startMsg("pam", "user", "alice"))
	f.want("ok", msg("read"))
	f.want("ok", msg("write", "data", typed))
	f.want("done", msg("read"))
	f.wantEnd(capproto.CodeLimit, msg("session"))
}

func TestADescriptorWhereThereIsNoneEndsTheConversation(t *testing.T) {
	b := newBench(host().gen)
	f := b.dial(t, uidLogin, uidLogin, 100)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	f.wantEnd(capproto.CodeProtocol, msg("attr"), r)
	if _, err := r.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Error("the descriptor is left open")
	}
	r2, _, _ := os.Pipe()
	b.dial(t, uidLogin, uidLogin, 100).wantEnd(capproto.CodeProtocol, startMsg("pam", "user", "alice"), r2)
	r3, _, _ := os.Pipe()
	b.dial(t, uidSSH, uidSSH, 100).wantEnd(capproto.CodeProtocol, startMsg("ssh"), r3)
}

func TestAFrontEndThatStopsReadingIsLeft(t *testing.T) {
	b := newBench(host().gen)
	w := stalledWire{newFakeWire()}
	f := &front{t: t, b: b, w: w.fakeWire, cred: &unix.Ucred{Pid: 1, Uid: uidLogin}, ended: make(chan struct{})}
	c := newConversation(&b.core, b.gen, w, f.cred)
	go func() { c.run(); close(f.ended) }()
	if _, ok := f.ask(msg("attr")); ok {
		t.Error("there is a reply")
	}
	if !strings.Contains(b.log.String(), "the front end stopped reading") {
		t.Errorf("the log: %s", b.log.String())
	}
}

type stalledWire struct{ *fakeWire }

func (stalledWire) Send(capproto.Msg, ...*os.File) error { return os.ErrDeadlineExceeded }

var _ io.Writer = (*fakeHash)(nil)
