package daemon

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/becomerecord"
)

// uidBob is somebody who is logged in. The worker lets him become alice.
const uidBob = 5001

// localBench is a bench where su is configured, and grants are bound: those it has made
// are in the list.
func localBench(grants *[]becomerecord.Record) *bench {
	gen := *host().gen
	gen.conf.Local = map[string]config.Binding{"su": {Service: "su", Proto: "su"}}
	b := newBench(&gen)
	b.caps.bind = func(h capproto.Hash, r becomerecord.Record) error {
		if grants != nil {
			*grants = append(*grants, r)
		}
		_, err := b.hash.Write(h[:])
		return err
	}
	return b
}

// bob begins a conversation: the sender has to be a process that there is.
func (b *bench) bob(t testing.TB) *front { return b.dial(t, uidBob, uidBob, int32(os.Getpid())) }

var modelSU = map[string]map[string]string{
	"idle":         {"start": "waiting", "attr": "idle"},
	"waiting":      {"read": "owing", "attr": "waiting"},
	"owing":        {"write": "written", "attr": "owing"},
	"written":      {"read": "proven", "attr": "written"},
	"proven":       {"run": "ran", "session": "opening", "attr": "proven"},
	"ran":          {"run": "ran", "session": "opening, ran", "attr": "ran"},
	"opening":      {"read": "open", "attr": "opening"},
	"opening, ran": {"read": "open, ran", "attr": "opening, ran"},
	"open":         {"signal": "open", "attr": "open"},
	"open, ran":    {"authinfo": "open, ran", "signal": "open, ran", "attr": "open, ran"},
}

func suMsg(verb string) capproto.Msg {
	switch verb {
	case capproto.VerbStart:
		return startMsg("su", "user", "alice")
	case capproto.VerbWrite:
		return msg(verb, "data", typed)
	case capproto.VerbSignal:
		return msg(verb, "pid", "2147483646", "signal", "TERM") // which there is not
	}
	return msg(verb)
}

// TestEachVerbInEachPhaseOfSuDoesWhatTheModelSays, after the shortest way to the phase.
func TestEachVerbInEachPhaseOfSuDoesWhatTheModelSays(t *testing.T) {
	ways := map[string][]string{"idle": nil}
	for todo := []string{"idle"}; len(todo) > 0; todo = todo[1:] {
		for _, verb := range slices.Sorted(maps.Keys(modelSU[todo[0]])) {
			next := modelSU[todo[0]][verb]
			if _, ok := ways[next]; !ok {
				ways[next] = append(slices.Clone(ways[todo[0]]), verb)
				todo = append(todo, next)
			}
		}
	}
	if len(ways) != len(modelSU) {
		t.Fatalf("ways to %d of %d phases", len(ways), len(modelSU))
	}
	for phase, way := range ways {
		for verb := range verbs {
			b := localBench(nil)
			f := b.bob(t)
			for _, v := range way {
				if r, ok := f.ask(suMsg(v)); !ok || r.Verb == "error" {
					t.Fatalf("%v: %s is answered by %v", way, v, r)
				}
			}
			r, ok := f.ask(suMsg(verb))
			_, made := b.hash.count()
			_, allowed := modelSU[phase][verb]
			switch {
			case !allowed && (r.Verb != "error" || r.Get("code") != capproto.CodeProtocol):
				t.Errorf("in phase %s %s is answered by %v", phase, verb, r)
			case allowed && (!ok || r.Verb == "error"):
				t.Errorf("in phase %s %s is answered by %v; %s", phase, verb, r, b.log.String())
			case (made > 0) != (phase == "open, ran" && verb == capproto.VerbAuthInfo):
				t.Errorf("in phase %s %s makes %d capabilities", phase, verb, made)
			}
			f.hangUp()
			if valid, _ := b.hash.count(); valid != 0 {
				t.Errorf("phase %s, %s: a capability outlives the conversation", phase, verb)
			}
		}
	}
}

// TestADisplayIsPossibleAndOfSu, or it ends the conversation. The worker is told of it as it
// is.
func TestADisplayIsPossibleAndOfSu(t *testing.T) {
	long := strings.Repeat("x", 4096)
	for _, c := range []struct {
		display, authority string
		good               bool
	}{
		{":0", "", true}, {"localhost:10.0", "/home/bob/.Xauthority", true}, {"", "/tmp/ein schöner Name", true},
		{long[:255], "/" + long[:4094], true}, {long[:256], "", false}, {":0", "/" + long[:4095], false},
		{"-q", "", false}, {":0 :1", "", false}, {":0\n", "", false}, {":\x7f", "", false}, {"ö:0", "", false},
		{":0", "Xauthority", false}, {":0", "-f", false}, {":0", "/x\ny", false}, {":0", "/x\x1b[2J", false},
	} {
		var told []pamwire.OpenSession
		b := localBench(nil)
		b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
			if o, ok := r.(pamwire.OpenSession); ok {
				told = append(told, o)
			}
			return obliging(w, r)
		}
		f := b.bob(t)
		f.want("ok", suMsg("start"))
		f.want("ok", msg("read"))
		f.want("ok", suMsg("write"))
		f.want("done", msg("read"))
		m := msg("session")
		for name, v := range map[string]string{"display": c.display, "authority": c.authority} {
			if v != "" {
				m.Add(name, v)
			}
		}
		r, _ := f.ask(m)
		if good := r.Verb == "ok"; good != c.good || !good && (r.Get("code") != capproto.CodeProtocol || told != nil) {
			t.Errorf("%.40q %.40q: %v", c.display, c.authority, r)
		}
		if c.good && (len(told) != 1 || told[0].Display != c.display || told[0].XAuthority != c.authority) {
			t.Errorf("%.40q %.40q: the worker is told %.80v", c.display, c.authority, told)
		}
		f.hangUp()
	}
	f := newBench(host().gen).dial(t, uidLogin, uidLogin, 100)
	defer f.hangUp()
	f.want("ok", startMsg("pam", "user", "alice"))
	f.want("ok", msg("read"))
	f.want("ok", msg("write", "data", typed))
	f.want("done", msg("read"))
	if r, _ := f.ask(msg("session", "display", ":0")); r.Get("code") != capproto.CodeProtocol {
		t.Errorf("of a login: %v", r)
	}
}

// suGrant has bob become the user of o by su with these requests run, and returns the grant.
func suGrant(t *testing.T, o pamwire.Opened, login bool, run ...capproto.Msg) becomerecord.Record {
	t.Helper()
	var grants []becomerecord.Record
	b := localBench(&grants)
	b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		if _, ok := r.(pamwire.OpenSession); ok {
			return []pamwire.Event{o}
		}
		return obliging(w, r)
	}
	f := b.bob(t)
	defer f.hangUp()
	start := suMsg("start")
	if login {
		start.Add("login", "yes")
	}
	f.want("ok", start)
	begun := b.workers[0].told[0].(pamwire.Begin)
	if want := map[bool]string{false: "su", true: "su-l"}[login]; begun.Service != want || begun.Caller == nil || begun.Caller.UID != uidBob {
		t.Errorf("PAM is begun with %+v", begun)
	}
	f.want("ok", msg("read"))
	f.want("ok", suMsg("write"))
	f.want("done", msg("read"))
	for _, m := range run {
		f.want("ok", m)
	}
	f.want("ok", msg("session"))
	f.want("done", msg("read"))
	f.want("ok", msg("authinfo"))
	if len(grants) != 1 || grants[0].From != uidBob || grants[0].UID != uidAlice || !grants[0].Bound.KeepLoginUID {
		t.Fatalf("the grants are %+v", grants)
	}
	if _, err := grants[0].Encode(); err != nil {
		t.Error(err)
	}
	return grants[0]
}

func TestWhatComesInPiecesIsPutTogether(t *testing.T) {
	g := suGrant(t, opened("alice"), false, msg("run", "umask", "027", "fd", "5", "fd", "9", "arg", "-c", "arg", "echo "), msg("run", "more", "a ", "more", "b", "arg", "x"),
		msg("run", "env", "P=1", "env", "Q="), msg("run", "more", "2"))
	if want := []string{"sh", "-c", "echo a b", "x"}; !slices.Equal(g.Bound.Argv, want) {
		t.Errorf("argv is %q", g.Bound.Argv)
	}
	if !slices.Contains(g.Bound.Env, "P=1") || !slices.Contains(g.Bound.Env, "Q=2") {
		t.Errorf("the environment is %q", g.Bound.Env)
	}
	if !slices.Equal(g.Bound.FDs, []uint32{0, 1, 2, 5, 9}) || g.Bound.Dir != "" {
		t.Errorf("%+v", g.Bound)
	}
}

func TestAShellThatIsNotListedCannotBeChosen(t *testing.T) {
	shells = t.TempDir() + "/shells"
	defer func() { shells = "/etc/shells" }()
	if err := os.WriteFile(shells, []byte("# /usr/bin/backup\n/bin/sh\n/bin/dash\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for own, want := range map[string]string{"/bin/sh": "/bin/dash", "/usr/bin/backup": "/usr/bin/backup", "": "/bin/dash"} {
		o := opened("alice")
		o.Shell = own
		if g := suGrant(t, o, false, msg("run", "shell", "/bin/dash")); g.Bound.Path != want {
			t.Errorf("%q: %s is executed, want %s", own, g.Bound.Path, want)
		}
		if g := suGrant(t, o, false, msg("run", "shell", "/bin/dash", "preserve", "yes")); g.Bound.Path != want {
			t.Errorf("%q, with the environment: %s is executed, want %s", own, g.Bound.Path, want)
		}
	}
}

func TestVariablesThatASetuidProgramDoesNotGetAreLeftOut(t *testing.T) {
	for _, preserve := range []string{"yes", "no"} {
		m := msg("run", "preserve", preserve)
		for _, name := range []string{"LD_PRELOAD", "LD_ANYTHING", "GLIBC_TUNABLES", "TMPDIR", "LOCPATH", "GOOD"} {
			m.Add("env", name+"=x")
		}
		g := suGrant(t, opened("alice"), false, m)
		for _, kv := range g.Bound.Env {
			if unsafeVariable(kv) {
				t.Errorf("%s is passed on", kv)
			}
		}
		if !slices.Contains(g.Bound.Env, "GOOD=x") {
			t.Errorf("the environment is %q", g.Bound.Env)
		}
	}
}

// TestLimitsAreInTheGrantAndNoneIsRaised above the caller's hard ones.
func TestLimitsAreInTheGrantAndNoneIsRaised(t *testing.T) {
	var mine unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &mine); err != nil {
		t.Fatal(err)
	}
	o := opened("alice")
	o.NoFile = &pamwire.Limit{Soft: 33, Hard: mine.Max + 1}
	o.Limits = pamwire.Limits{unix.RLIMIT_CORE: {Soft: 0, Hard: 0}}
	l := suGrant(t, o, false, msg("run")).Bound.Limits
	if got := l[unix.RLIMIT_NOFILE]; got != (becomerecord.Limit{Soft: 33, Hard: mine.Max}) {
		t.Errorf("open files: %+v", got)
	}
	for _, n := range []int{unix.RLIMIT_CORE, unix.RLIMIT_NICE, unix.RLIMIT_RTPRIO} {
		if got, ok := l[n]; !ok || got != (becomerecord.Limit{}) {
			t.Errorf("resource %d: %+v, %v", n, got, ok)
		}
	}
}

func TestSuIsRefusedWhereNothingCanBeBound(t *testing.T) {
	for proto, workers := range map[string]int{"su": 0, "doas": 0, "passwd": 1} {
		b := localBench(nil)
		b.gen.conf.Local = map[string]config.Binding{proto: {Service: proto, Proto: proto}}
		b.caps.bind = nil
		f := b.bob(t)
		if r, _ := f.ask(startMsg(proto, "user", "alice")); workers == 0 && (r.Verb != "error" || r.Get("code") != capproto.CodeAccount || !strings.Contains(r.Get("text"), "the kernel's capability device, which cannot bind")) {
			t.Errorf("%s is answered by %v", proto, r)
		}
		if len(b.workers) != workers {
			t.Errorf("%s has %d workers", proto, len(b.workers))
		}
		f.hangUp()
	}
}

func TestWhoHasAFrontEndLineIsNoCaller(t *testing.T) {
	for _, uid := range []uint32{uidLogin, uidSSH} {
		f := localBench(nil).dial(t, uid, uid, int32(os.Getpid()))
		f.wantCode(capproto.CodeProtocol, suMsg("start"))
	}
	// Nor whose connection somebody else has made.
	for _, peer := range []uint32{0, uidAlice} {
		f := localBench(nil).dial(t, uidBob, peer, int32(os.Getpid()))
		f.wantCode(capproto.CodeProtocol, suMsg("start"))
	}
}

func TestThereIsOneAttemptInAConversation(t *testing.T) {
	b := localBench(nil)
	b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		if _, ok := r.(pamwire.Answer); ok {
			return []pamwire.Event{pamwire.Refused{Code: capproto.CodeDenied, Text: "Authentication failure"}}
		}
		return obliging(w, r)
	}
	f := b.bob(t)
	f.want("ok", suMsg("start"))
	f.want("ok", msg("read"))
	f.want("ok", suMsg("write"))
	f.wantCode(capproto.CodeDenied, msg("read"))
	if r, ok := f.ask(suMsg("start")); ok {
		t.Errorf("the conversation goes on: %v", r)
	}
}

// FuzzRun takes any attributes: what is taken makes a record or is refused.
func FuzzRun(f *testing.F) {
	f.Add("run arg=-c arg=id env=A=b more=c umask=022 fd=5 shell=/bin/sh preserve=yes")
	f.Add("run more=x")
	f.Add("run fd=2 umask=8")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := capproto.DecodeMsg([]byte(s))
		if err != nil {
			return
		}
		a := &suAsked{umask: 0o22, fds: []uint32{0, 1, 2}}
		for _, at := range m.Attrs {
			if a.take(at) != nil {
				return
			}
		}
		if a.umask > 0o777 || len(a.fds) > becomerecord.MaxFDs || !slices.IsSorted(a.fds) {
			t.Errorf("%+v", a)
		}
		b := &becomerecord.Bound{Path: "/bin/sh", Argv: append([]string{"sh"}, a.args...), Env: a.env, FDs: a.fds, Umask: a.umask}
		if _, err := (becomerecord.Record{From: 1, UID: 2, Groups: []uint32{2}, Bound: b}).Encode(); err != nil && !strings.Contains(err.Error(), "NUL") && !strings.Contains(err.Error(), "at most") {
			t.Errorf("%q: %v", s, fmt.Sprint(err))
		}
	})
}
