package daemon

import (
	"fmt"
	"strings"
	"testing"

	"p9auth/capproto"
)

// The model is a second, independent description of what a front end can do: in
// each phase, what each verb leads to. A verb that is not there ends the
// conversation. The worker lets alice in.
var (
	modelPAM = map[string]map[string]string{
		"idle":    {"start": "waiting", "attr": "idle", "environ": "told"},
		"told":    {"start": "waiting", "attr": "told"},
		"waiting": {"read": "owing", "attr": "waiting"},
		"owing":   {"write": "written", "attr": "owing"},
		"written": {"read": "proven", "attr": "written"},
		"proven":  {"session": "opening", "attr": "proven"},
		"opening": {"read": "open", "attr": "opening"},
		"open":    {"authinfo": "open", "attr": "open"},
	}
	modelSSH = map[string]map[string]string{
		"idle":     {"start": "ssh", "attr": "idle"},
		"ssh":      {"sign": "keyed", "attr": "ssh"},
		"keyed":    {"user": "named", "auth": "admitted", "attr": "keyed"},
		"named":    {"auth": "admitted", "attr": "named"},
		"admitted": {"prove": "admitted", "nonce": "rekeying", "ticket": "spent", "attr": "admitted"},
		"rekeying": {"prove": "rekeying", "sign": "admitted", "ticket": "spent, rekeying", "attr": "rekeying"},
		"spent":    {"prove": "spent", "nonce": "spent, rekeying", "attr": "spent"},

		"spent, rekeying": {"prove": "spent, rekeying", "sign": "spent", "attr": "spent, rekeying"},
	}
	modelAttached = map[string]map[string]string{
		"idle":     {"start": "ssh", "attach": "proven", "attr": "idle"},
		"ssh":      {"sign": "keyed", "attr": "ssh"},
		"keyed":    {"user": "named", "auth": "admitted", "attr": "keyed"},
		"named":    {"auth": "admitted", "attr": "named"},
		"admitted": {"prove": "admitted", "nonce": "rekeying", "ticket": "spent", "attr": "admitted"},
		"rekeying": {"prove": "rekeying", "sign": "admitted", "ticket": "spent, rekeying", "attr": "rekeying"},
		"spent":    {"prove": "spent", "nonce": "spent, rekeying", "attr": "spent"},

		"spent, rekeying": {"prove": "spent, rekeying", "sign": "spent", "attr": "spent, rekeying"},

		"proven":  {"session": "opening", "attr": "proven"},
		"opening": {"read": "open", "attr": "opening"},
		"open":    {"authinfo": "open", "attr": "open"},
	}
	// What attr says in a phase.
	modelState = map[string]string{
		"told":    "idle",
		"waiting": "talking", "owing": "talking", "written": "talking", "keyed": "ssh", "named": "ssh",
		"rekeying": "admitted", "spent, rekeying": "spent",
	}
)

// TestEachSequenceOfVerbsDoesWhatTheModelSays, up to a length: for as long as the
// conversation goes on each verb is tried in each phase, after each way to it.
func TestEachSequenceOfVerbsDoesWhatTheModelSays(t *testing.T) {
	length := 7
	if testing.Short() {
		length = 5
	}
	for name, m := range map[string]struct {
		model map[string]map[string]string
		proto string
		uid   uint32
		token bool
	}{
		"pam":      {modelPAM, "pam", uidLogin, false},
		"ssh":      {modelSSH, "ssh", uidSSH, false},
		"attached": {modelAttached, "ssh", uidSSH, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 0
			var from func(done []string, phase string)
			from = func(done []string, phase string) {
				for verb := range verbs {
					b := newBench(host().gen)
					token := strings.Repeat("A", 43)
					if m.token {
						first := admitBySSH(t, b, "alice")
						token = first.want("ok", msg("ticket")).Get("ticket")
						defer first.hangUp()
					}
					f := b.dial(t, m.uid, m.uid, 700)
					for _, v := range done {
						if r, ok := f.ask(f.modelMsg(v, m.proto, token), modelFile(v, m.proto)...); !ok || r.Verb == "error" {
							t.Fatalf("%v: %s is answered by %v", done, v, r)
						}
					}
					r, ok := f.ask(f.modelMsg(verb, m.proto, token), modelFile(verb, m.proto)...)
					n++
					next, allowed := m.model[phase][verb]
					_, made := b.hash.count()
					switch {
					case !allowed && (r.Verb != "error" || r.Get("code") != capproto.CodeProtocol):
						t.Errorf("%v: in phase %s %s is answered by %v", done, phase, verb, r)
					case allowed && (!ok || r.Verb == "error"):
						t.Errorf("%v: in phase %s %s is answered by %v; %s", done, phase, verb, r, b.log.String())
					case verb == "attr" && allowed && r.Get("state") != firstOf(modelState[phase], phase):
						t.Errorf("%v: attr in phase %s says %s", done, phase, r.Get("state"))
					case (made > 0) != (phase == "open" && (verb == "authinfo" || strings.Contains(fmt.Sprint(done), "authinfo"))):
						t.Errorf("%v, %s: %d capabilities", done, verb, made)
					case allowed && len(done)+1 < length:
						from(append(done[:len(done):len(done)], verb), next)
					}
					f.hangUp()
					if valid, _ := b.hash.count(); valid != 0 {
						t.Errorf("%v, %s: a capability outlives the conversation", done, verb)
					}
					if t.Failed() {
						return
					}
				}
			}
			from(nil, "idle")
			t.Logf("%d sequences", n)
		})
	}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (f *front) modelMsg(verb, proto, token string) capproto.Msg {
	switch verb {
	case capproto.VerbStart:
		if proto == "pam" {
			return startMsg(proto, "user", "alice")
		}
		return startMsg(proto)
	case capproto.VerbEnviron:
		return msg(verb, "env", "TERM=linux", "env", "LANG=C")
	case capproto.VerbWrite:
		return msg(verb, "data", typed)
	case capproto.VerbSign:
		return f.signMsg()
	case capproto.VerbProve:
		return msg(verb, "key", capproto.B64(host().key.Marshal()))
	case capproto.VerbUser:
		return msg(verb, "name", "alice")
	case capproto.VerbAuth:
		return keyMsg("alice", f.sid)
	case capproto.VerbAttach:
		return msg(verb, "ticket", token)
	}
	return msg(verb)
}
