package daemon

import (
	"os"
	"slices"
	"testing"
	"time"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/pamwire"
)

// passwordBench is a bench where passwd and unix_chkpwd are configured, and whose worker
// changes passwords and finds them right. The caller is alice, or who is given.
func passwordBench() *bench {
	gen := *host().gen
	gen.conf.Local = map[string]config.Binding{"passwd": {Service: "passwd", Proto: "passwd"}, "chkpwd": {Service: "chkpwd", Proto: "chkpwd"}}
	b := newBench(&gen)
	b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		switch r := r.(type) {
		case pamwire.Begin:
			name := r.User
			if name == "" {
				name = "alice"
			}
			return []pamwire.Event{pamwire.Begun{LogName: name, Caller: "alice"}}
		case pamwire.ChangePassword:
			return []pamwire.Event{pamwire.Prompt{Style: capproto.EchoOff, Text: "Current password: "}}
		case pamwire.Answer:
			if r.Fail {
				return []pamwire.Event{pamwire.Refused{Code: capproto.CodeDenied, Text: "Authentication token manipulation error"}}
			}
			return []pamwire.Event{pamwire.Changed{}}
		case pamwire.PasswordStatus:
			return []pamwire.Event{pamwire.Status{Line: r.User + " P 2026-11-28 0 99999 7 -1"}}
		case pamwire.CheckPassword:
			return []pamwire.Event{pamwire.Checked{Status: 0}}
		}
		return obliging(w, r)
	}
	return b
}

func (b *bench) caller(t testing.TB, uid uint32) *front {
	return b.dial(t, uid, uid, int32(os.Getpid()))
}

// TestEachVerbInEachPhaseOfPasswdDoesWhatItsTableSays and no verb makes a capability.
func TestEachVerbInEachPhaseOfPasswdDoesWhatItsTableSays(t *testing.T) {
	start := startMsg("passwd")
	write := msg(capproto.VerbWrite, "data", typed)
	for _, phase := range []struct {
		name    string
		way     []capproto.Msg
		allowed []string
	}{
		{"idle", nil, []string{"start", "attr"}},
		{"talking", []capproto.Msg{start}, []string{"read"}},
		{"asked", []capproto.Msg{start, msg("read")}, []string{"write"}},
		{"typed", []capproto.Msg{start, msg("read"), write}, []string{"read"}},
		{"changed", []capproto.Msg{start, msg("read"), write, msg("read")}, []string{"attr"}},
		{"status", []capproto.Msg{startMsg("passwd", "status", "yes")}, []string{"attr"}},
		{"checked", []capproto.Msg{startMsg("chkpwd", "user", "alice", "option", "nullok", "password", typed)}, []string{"attr"}},
	} {
		for verb := range verbs {
			b := passwordBench()
			f := b.caller(t, uidAlice)
			for _, m := range phase.way {
				if r, ok := f.ask(m); !ok || r.Verb == "error" {
					t.Fatalf("%s: %v is answered by %v; %s", phase.name, m.Verb, r, b.log.String())
				}
			}
			m := msg(verb)
			switch verb {
			case capproto.VerbStart:
				m = start
			case capproto.VerbWrite:
				m = write
			}
			r, ok := f.ask(m)
			allowed := slices.Contains(phase.allowed, verb)
			if attr := verb == capproto.VerbAttr; !attr && (ok && r.Verb != "error") != allowed || !allowed && !attr && r.Get("code") != capproto.CodeProtocol {
				t.Errorf("in phase %s %s is answered by %v", phase.name, verb, r)
			}
			if _, made := b.hash.count(); made != 0 {
				t.Errorf("in phase %s %s makes a capability", phase.name, verb)
			}
			f.hangUp()
		}
	}
}

func TestNoAnswerIsToldToPAM(t *testing.T) {
	b := passwordBench()
	f := b.caller(t, uidAlice)
	f.want("ok", startMsg("passwd"))
	f.want("ok", msg("read"))
	f.want("ok", msg(capproto.VerbWrite, "fail", "yes"))
	if r, _ := f.ask(msg("read")); r.Get("text") != "Authentication token manipulation error" {
		t.Errorf("%v", r)
	}
	for _, m := range []capproto.Msg{msg(capproto.VerbWrite, "fail", "no"), msg(capproto.VerbWrite, "fail", "yes", "data", "x")} {
		f := passwordBench().caller(t, uidAlice)
		f.want("ok", startMsg("passwd"))
		f.want("ok", msg("read"))
		f.wantEnd(capproto.CodeProtocol, m)
	}
}

// TestAWrongGuessOfChkpwdHoldsTheNextOneBack and is itself answered at once.
func TestAWrongGuessOfChkpwdHoldsTheNextOneBack(t *testing.T) {
	b := passwordBench()
	right := b.reply
	b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		if c, ok := r.(pamwire.CheckPassword); ok && c.Option != "chkexpiry" {
			return []pamwire.Event{pamwire.Checked{Status: 7}}
		}
		return right(w, r)
	}
	guess := startMsg("chkpwd", "user", "alice", "option", "nullok", "password", "wrong")
	began := time.Now()
	first := b.caller(t, uidAlice)
	if r := first.want("ok", guess); r.Get("status") != "7" || time.Since(began) > 900*time.Millisecond {
		t.Errorf("%v after %v", r, time.Since(began))
	}
	// What is not a guess does not wait.
	b.caller(t, uidAlice).want("ok", startMsg("chkpwd", "user", "alice", "option", "chkexpiry"))
	if d := time.Since(began); d > 900*time.Millisecond {
		t.Errorf("after %v", d)
	}
	b.caller(t, uidAlice).want("ok", guess)
	if d := time.Since(began); d < time.Second {
		t.Errorf("the next guess was judged after %v", d)
	}
}

// FuzzPasswords starts conversations of a caller who is not root. Whatever they say, the
// worker hears of no other account than theirs, and each is begun with their uid.
func FuzzPasswords(f *testing.F) {
	for _, s := range []string{
		"start proto=passwd version=4", "start proto=passwd version=4 user=root", "start proto=passwd version=4 user=alice status=yes", "start proto=chkpwd version=4 user=alice option=nullok password=x",
		"start proto=chkpwd version=4 user=root option=chkexpiry", "start proto=passwd version=4 expired=yes quiet=yes", "start proto=chkpwd version=4 user='a b' option=nonull",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := capproto.DecodeMsg([]byte(s))
		if err != nil || m.Verb != capproto.VerbStart {
			return
		}
		b := passwordBench()
		front := b.caller(t, uidAlice)
		front.ask(m)
		front.hangUp()
		for _, w := range b.workers {
			for _, r := range w.told {
				switch r := r.(type) {
				case pamwire.Begin:
					if r.Caller == nil || r.Caller.UID != uidAlice || r.User != "" && r.User != "alice" || r.Service != "passwd" {
						t.Errorf("%q: %+v", s, r)
					}
				case pamwire.PasswordStatus:
					if r.User != "alice" {
						t.Errorf("%q: %+v", s, r)
					}
				case pamwire.CheckPassword:
					if r.User != "alice" || !slices.Contains(chkpwdOptions, r.Option) {
						t.Errorf("%q: %v", s, r)
					}
				}
			}
		}
	})
}
