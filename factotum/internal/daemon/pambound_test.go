package daemon

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/becomerecord"
)

// environ passes variables on.
func environ(vars ...string) capproto.Msg {
	m := msg(capproto.VerbEnviron)
	for _, kv := range vars {
		m.Add("env", kv)
	}
	return m
}

// boundByPAM logs alice in over a connection that peer has made, and returns what
// the grant is bound to. first are requests before the first start.
func boundByPAM(t *testing.T, peer uint32, o pamwire.Opened, first ...capproto.Msg) (*becomerecord.Bound, capproto.Msg) {
	t.Helper()
	b := newBench(host().gen)
	b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		if _, ok := r.(pamwire.OpenSession); ok {
			return []pamwire.Event{o}
		}
		return obliging(w, r)
	}
	var bound []becomerecord.Record
	b.caps.bind = func(h capproto.Hash, r becomerecord.Record) error {
		bound = append(bound, r)
		_, err := b.hash.Write(h[:])
		return err
	}
	f := b.dial(t, uidLogin, peer, 100)
	defer f.hangUp()
	for _, m := range first {
		f.want("ok", m)
	}
	f.want("ok", startMsg("pam", "user", "alice"))
	f.want("ok", msg("read"))
	f.want("ok", msg("write", "data", typed))
	f.want("done", msg("read"))
	f.want("ok", msg("session"))
	f.want("done", msg("read"))
	m := f.want("ok", msg("authinfo"))
	if len(bound) != 1 || bound[0].UID != uidAlice || bound[0].From != uidLogin {
		t.Fatalf("bound are %+v", bound)
	}
	if _, err := bound[0].Encode(); err != nil {
		t.Error(err)
	}
	return bound[0].Bound, m
}

func TestALoginAtATerminalIsBoundToTheShell(t *testing.T) {
	o := opened("alice")
	o.NoHome, o.NProc = "", &pamwire.Limit{Soft: 3, Hard: 4}
	o.Login = []string{"HOME=/home/alice", "PATH=/bin", "A=of login.defs"}
	b, m := boundByPAM(t, uidLogin, o, environ("TERM=vt100", "LANG=C", "LC_TIME=de_DE"))
	if b.Path != "/bin/sh" || !slices.Equal(b.Argv, []string{"-sh"}) || b.Dir != "/home/alice" || !slices.Equal(b.FDs, []uint32{0, 1, 2}) ||
		b.Root != nil || b.Umask != 0o22 {
		t.Errorf("it executes %+v", b)
	}
	if want := []string{"A=b", "HOME=/home/alice", "LANG=C", "LC_TIME=de_DE", "PATH=/bin", "TERM=vt100"}; !slices.Equal(b.Env, want) || !slices.Equal(m.All("env"), want) {
		t.Errorf("with %q, and authinfo says %q", b.Env, m.All("env"))
	}
	if b.Limits[unix.RLIMIT_NOFILE] != (becomerecord.Limit{Soft: 1, Hard: 2}) || b.Limits[unix.RLIMIT_NPROC] != (becomerecord.Limit{Soft: 3, Hard: 4}) {
		t.Errorf("limits %v", b.Limits)
	}
}

func TestTheShellIsThatOfTheAccount(t *testing.T) {
	for shell, want := range map[string]string{
		"/bin/rbash": "/bin/rbash [-rbash]", "": "/bin/sh [-sh]", "/usr/bin/env -i bash": "/bin/sh [-sh -c exec /usr/bin/env -i bash]",
	} {
		o := opened("alice")
		o.Shell = shell
		b, _ := boundByPAM(t, uidLogin, o)
		if got := fmt.Sprint(b.Path, " ", b.Argv); got != want || b.Dir != "/" { // there is no home
			t.Errorf("%q: %s in %s, not %s", shell, got, b.Dir, want)
		}
		if !slices.Contains(b.Env, "TERM=dumb") {
			t.Errorf("without a TERM: %q", b.Env)
		}
	}
}

func TestAShellWithoutAnAbsolutePathIsRefused(t *testing.T) {
	b := newBench(host().gen)
	b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		if _, ok := r.(pamwire.OpenSession); ok {
			o := opened("alice")
			o.Shell = "bash"
			return []pamwire.Event{o}
		}
		return obliging(w, r)
	}
	f := loginByPAM(t, b)
	r := f.want("error", msg("authinfo"))
	if r.Get("code") != capproto.CodeAccount || !strings.Contains(r.Get("text"), `"bash"`) {
		t.Errorf("%v", r)
	}
	if _, made := b.hash.count(); made != 0 {
		t.Error("there is a capability")
	}
}

// What a front end that somebody has taken over would make of the environment.
func TestOnlyRootPassesOnTheWholeEnvironment(t *testing.T) {
	any := environ("LD_PRELOAD=/tmp/x.so", "EMPTY=", "TERM=a/b")
	b, _ := boundByPAM(t, 0, opened("alice"), any, msg("attr"))
	for _, kv := range []string{"LD_PRELOAD=/tmp/x.so", "EMPTY=", "TERM=a/b"} {
		if !slices.Contains(b.Env, kv) {
			t.Errorf("of root: %q", b.Env)
		}
	}
	b, _ = boundByPAM(t, 0, opened("alice"), msg("attr"), environ("TERM=x"))
	if !slices.Contains(b.Env, "TERM=x") {
		t.Errorf("after the first request: %q", b.Env)
	}
	many := make([]string, capproto.MaxEnv+1)
	for i := range many {
		many[i] = "TERM=x"
	}
	for _, c := range []struct {
		what  string
		peer  uint32
		first []capproto.Msg
		last  capproto.Msg
	}{
		{"a connection that root did not make", uidLogin, nil, any},
		{"not the first request", 0, []capproto.Msg{msg("attr")}, any},
		{"a path as a terminal", uidLogin, nil, environ("TERM=../../tmp/x")},
		{"too many", 0, nil, environ(many...)},
		{"no value", 0, nil, environ("A")},
		{"no name", 0, nil, environ("=A")},
		{"twice", 0, []capproto.Msg{environ("A=b")}, environ("TERM=b")},
	} {
		bench := newBench(host().gen)
		f := bench.dial(t, uidLogin, c.peer, 100)
		for _, m := range c.first {
			f.want("ok", m)
		}
		f.wantEnd(capproto.CodeProtocol, c.last)
		if !strings.Contains(bench.log.String(), "protocol violation") {
			t.Errorf("%s is not logged: %s", c.what, bench.log.String())
		}
	}
}

func TestAfterTheEnvironmentPreauthIsStillTheFirstThing(t *testing.T) {
	for name, c := range map[string]struct {
		peer  uint32
		first []capproto.Msg
		want  string
	}{
		"at once":                   {0, nil, "ok"},
		"after environ":             {0, []capproto.Msg{environ("A=b")}, "ok"},
		"after environ and attr":    {0, []capproto.Msg{environ("A=b"), msg("attr")}, "error"},
		"after attr":                {0, []capproto.Msg{msg("attr")}, "error"},
		"after attr and environ":    {0, []capproto.Msg{msg("attr"), environ("TERM=b")}, "error"},
		"over login's own, at once": {uidLogin, []capproto.Msg{environ("TERM=b")}, "error"},
	} {
		f := newBench(host().gen).dial(t, uidLogin, c.peer, 100)
		for _, m := range c.first {
			f.want("ok", m)
		}
		if r, _ := f.ask(startMsg("pam", "user", "alice", "preauth", "yes")); r.Verb != c.want {
			t.Errorf("%s: %v", name, r)
		}
		f.hangUp()
	}
}
