package pamwire

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"p9auth/capproto"
)

func ptr[T any](v T) *T { return &v }

var v6 = netip.MustParseAddr("fe80::1%eth0")

// everyRequest has each request with all of its fields, and with as few as it may
// have.
var everyRequest = []struct {
	r     Request
	files int
}{
	{Hello{Version}, 0},
	{Lookup{User: "alice"}, 0},
	{Lookup{User: "a b'c", Addr: v6}, 0},
	{KeyQuery{Key: []byte("\x00key"), Settings: "{}", Host: "host.example", Addr: v6, Ends: "::1 22 ::1 1"}, 0},
	{KeyQuery{Key: []byte("k"), Settings: "{}", Addr: netip.MustParseAddr("192.0.2.1"), Ends: "x"}, 0},
	{Begin{Service: "login"}, 0},
	{Begin{"sshd", "alice", "ssh", "192.0.2.1", "/etc/x", []string{"SSH_CONNECTION=a b", "EMPTY="}, true, true, nil}, 1},
	{Begin{Service: "su", User: "bob", TTY: "pts/1", Caller: &Caller{0, 100}}, 0},
	{Authenticate{}, 0},
	{Authenticate{NoEmpty: true}, 0},
	{Answer{}, 0},
	{Answer{Data: "it's\na secret"}, 0},
	{Answer{Fail: true}, 0},
	{CheckAccount{}, 0}, {CheckAccount{Later: true}, 0},
	{OpenSession{PID: 1}, 1},
	{OpenSession{PID: 1, Root: "/srv/%u"}, 1},
	{OpenSession{PID: 1, Groups: []string{"wizards", "27"}}, 1}, {OpenSession{PID: 1, Display: ":0", XAuthority: "/home/alice/.Xauthority"}, 1}, {Signal{15}, 1},
	{Adopt{User: "alice", Service: "login", PID: 4194304}, 1},
	{Adopt{"alice", "login", "/dev/tty1", "h", "/etc/x", []string{"A=b=c"}, 2, &Owner{0, 5, 0o4620}, []string{"pts/1", "pts/2"}, true, "/tmp/krb5cc_1000_x"}, 2},
	{BeginTerminal{Line: "pts/1"}, 1},
	{EndTerminal{Line: "pts/1"}, 0},
	{ChangePassword{}, 0}, {ChangePassword{Expired: true, Quiet: true}, 0},
	{PasswordStatus{"alice"}, 0},
	{Resolve{}, 0}, {Resolve{[]string{"alice", "it's"}, []string{"wizards", "x y"}}, 0}, {Target{1000}, 0},
	{GSSToken{[]byte("\x60\x00")}, 0}, {GSSMIC{[]byte("a"), []byte{0}}, 0}, {KerberosUser{"alice@EXAMPLE.ORG", "alice"}, 0},
	{Delegate{[]byte{5, 4}, false}, 0}, {Delegate{make([]byte, MaxToken), true}, 0}, {GSSToken{make([]byte, MaxToken)}, 0},
	{CheckPassword{"alice", "nullok", "it's\na secret"}, 0}, {CheckPassword{"alice", "nonull", ""}, 0}, {CheckPassword{"alice", "chkexpiry", ""}, 0},
}

var everyEvent = []Event{
	Hello{Version},
	Account{Name: "root"},
	Account{Name: "alice", UID: 1000, GID: 1001, Home: "/home/alice", Shell: "/bin/sh", Groups: []string{"alice", "Domain Users"}, Host: "h"},
	Account{Name: "alice", UID: 1000, GID: 1001, GroupsErr: "too many groups"},
	Account{Name: "alice", UID: 1000, GID: 1001, Shell: "/nonexistent", BadShell: "does not exist"},
	NoUser{}, NoUser{Host: "h"},
	KeyAllowed{Options: `{"x":1}`}, KeyAllowed{"{}", []string{"a", ""}},
	KeyDenied{}, KeyDenied{[]string{"revoked"}},
	Begun{}, Begun{LogName: "UNKNOWN"}, Begun{LogName: "bob", Caller: "alice", Shell: "/bin/sh"},
	Prompt{capproto.EchoOff, "Password: "}, Prompt{capproto.EchoOn, "login: "}, Prompt{capproto.Info, ""}, Prompt{capproto.Failure, "no"},
	Proven{"alice"}, AccountValid{"alice", 1000, false}, AccountValid{"alice", 1000, true},
	Opened{User: "root", PAMUser: "root", Groups: []uint32{0}},
	Opened{"alice", "ALICE", 1000, 1001, "/home/alice", "/bin/sh", []uint32{1001, 27}, []string{"A=1", "B="}, []string{"HOME=/"}, ptr(uint32(0o027)),
		&Limit{1024, 1<<64 - 1}, &Limit{0, 1}, Limits{8: {1, 2}, 15: {0, 1<<64 - 1}}, "no such file", true, &Root{"/srv/alice", 1<<64 - 1, 2}, "/tmp/krb5cc_1000_x",
		Process{"staff_u:staff_r:staff_t:s0", "_ses.1", &Mounts{4, 1<<64 - 1}, 1<<63 | 1, 1, 3}, 0},
	Refused{capproto.CodeDenied, "Login incorrect"}, Refused{capproto.CodeAccount, ""}, Failed{"the worker failed"},
	Resolved{}, Resolved{[]string{"1000", Nobody}, []string{Nobody, "0"}},
	GSSContinue{}, GSSContinue{make([]byte, MaxToken), true}, GSSProven{"alice@EXAMPLE.ORG", nil}, GSSProven{"alice@EXAMPLE.ORG", make([]byte, MaxToken)},
	PrincipalJudged{true, ""}, PrincipalJudged{false, "no"}, Delegated{},
	Changed{}, Status{"alice P 2026-11-28 0 99999 7 -1"}, Checked{}, Checked{255, "-1\n"},
	Recorded{}, Recorded{"Last login: yesterday"}, Closing{}, Closed{},
}

// wire sends a message through its bytes.
func wire(t *testing.T, m capproto.Msg) capproto.Msg {
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if m, err = capproto.DecodeMsg(b); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestDecodeReadsWhatEncodeWrites(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range everyRequest {
		m := wire(t, c.r.Encode())
		seen[m.Verb] = true
		got, err := DecodeRequest(m, c.files)
		if err != nil || !reflect.DeepEqual(got, c.r) {
			t.Errorf("%#v came back as %#v, %v", c.r, got, err)
		}
	}
	if len(seen) != len(requests) {
		t.Errorf("requests tried: %d of %d", len(seen), len(requests))
	}
	clear(seen)
	for _, e := range everyEvent {
		m := wire(t, e.Encode())
		seen[m.Verb] = true
		got, err := DecodeEvent(m)
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%#v came back as %#v, %v", e, got, err)
		}
	}
	if len(seen) != len(events) {
		t.Errorf("events tried: %d of %d", len(seen), len(events))
	}
}

// everyMessage calls f with each message and a function that decodes another one
// in its place.
func everyMessage(f func(m capproto.Msg, decode func(capproto.Msg) error)) {
	for _, c := range everyRequest {
		f(c.r.Encode(), func(m capproto.Msg) error { _, err := DecodeRequest(m, c.files); return err })
	}
	for _, e := range everyEvent {
		f(e.Encode(), func(m capproto.Msg) error { _, err := DecodeEvent(m); return err })
	}
}

func without(m capproto.Msg, i int) capproto.Msg {
	return capproto.Msg{Verb: m.Verb, Attrs: slices.Delete(slices.Clone(m.Attrs), i, i+1)}
}

func TestAnUnknownAttributeIsRefused(t *testing.T) {
	everyMessage(func(m capproto.Msg, decode func(capproto.Msg) error) {
		m.Attrs = append(slices.Clone(m.Attrs), capproto.Attr{Name: "x-new", Value: "1"})
		if err := decode(m); !errors.Is(err, ErrWire) {
			t.Errorf("%v: %v", m, err)
		}
	})
}

func TestADoubledAttributeIsRefused(t *testing.T) {
	lists := []string{"group", "note", "env", "login", "lines", "limit", "u", "g"}
	everyMessage(func(m capproto.Msg, decode func(capproto.Msg) error) {
		for _, a := range m.Attrs {
			double := m
			double.Attrs = append(slices.Clone(m.Attrs), a)
			if err := decode(double); err == nil && !slices.Contains(lists, a.Name) {
				t.Errorf("%s= twice in %v", a.Name, m)
			}
		}
	})
}

func TestAMissingAttributeIsRefused(t *testing.T) {
	optional := map[string]string{
		"lookup": "addr", "key": "host", "begin": "tty rhost confdir env lastlog take caller", "authenticate": "null",
		"adopt": "tty rhost confdir env owner lines local cache", "delegate": "keep", "gsscontinue": "data complete", "gssproven": "cache", "judged": "allowed why", "recorded": "last", "password": "expired quiet", "check": "password", "checked": "output", "account": "badshell group nogroups host later", "done": "expired", "nouser": "host", "allowed": "note",
		"denied": "note", "ok": "log caller shell", "resolve": "u g", "resolved": "u g", "session": "root group display xauthority", "opened": "env login umask nofile nproc limit nohome hush cache context keyring mounts ambient ttyaudit",
	}
	everyMessage(func(m capproto.Msg, decode func(capproto.Msg) error) {
		for i, a := range m.Attrs {
			may := slices.Contains(strings.Fields(optional[m.Verb]), a.Name)
			if err := decode(without(m, i)); (err == nil) != may || err != nil && !errors.Is(err, ErrWire) {
				t.Errorf("%v without %s=: %v", m, a.Name, err)
			}
		}
	})
}

// Where an attribute may be left out, leaving it out is the one way to say
// nothing.
func TestAnAttributeIsNotEmptyUnlessItMustBeThere(t *testing.T) {
	empty := map[string]string{"begin": "user", "answer": "data", "account": "home shell group", "prompt": "text", "opened": "home shell", "error": "text", "allowed": "note", "denied": "note"}
	everyMessage(func(m capproto.Msg, decode func(capproto.Msg) error) {
		for i, a := range m.Attrs {
			e := capproto.Msg{Verb: m.Verb, Attrs: slices.Clone(m.Attrs)}
			e.Attrs[i].Value = ""
			may := slices.Contains(strings.Fields(empty[m.Verb]), a.Name)
			if err := decode(e); (err == nil) != may {
				t.Errorf("%v with empty %s=: %v", m, a.Name, err)
			}
		}
	})
}

func TestAValueIsBounded(t *testing.T) {
	everyMessage(func(m capproto.Msg, decode func(capproto.Msg) error) {
		for i, a := range m.Attrs {
			long := capproto.Msg{Verb: m.Verb, Attrs: slices.Clone(m.Attrs)}
			long.Attrs[i].Value = a.Value + strings.Repeat("1", 150<<10)
			if err := decode(long); !errors.Is(err, ErrWire) {
				t.Errorf("a long %s= in %s: %v", a.Name, m.Verb, err)
			}
		}
	})
	many := Opened{User: "a", Groups: make([]uint32, capproto.MaxGroups+1)}
	if _, err := DecodeEvent(many.Encode()); err == nil {
		t.Error("too many groups")
	}
	for _, e := range []Event{
		KeyDenied{slices.Repeat([]string{"n"}, MaxNotes+1)}, Account{Groups: slices.Repeat([]string{"g"}, MaxGroupNames+1)},
		Opened{User: "a", Groups: []uint32{0}, Env: slices.Repeat([]string{"A=1"}, MaxEnv+1)},
	} {
		if _, err := DecodeEvent(e.Encode()); !errors.Is(err, ErrWire) {
			t.Errorf("%T with too many: %v", e, err)
		}
	}
}

func TestAValueHasOneSpelling(t *testing.T) {
	request := func(files int, m capproto.Msg) error { _, err := DecodeRequest(m, files); return err }
	event := func(m capproto.Msg) error { _, err := DecodeEvent(m); return err }
	opened := func(name, value string) capproto.Msg {
		m := Opened{User: "a", UID: 7, GID: 7, Groups: []uint32{7}}.Encode()
		for i, a := range m.Attrs {
			if a.Name == name {
				m.Attrs[i].Value = value
				return m
			}
		}
		m.Add(name, value)
		return m
	}
	adopt := func(owner string) capproto.Msg {
		m := Adopt{User: "a", Service: "s", PID: 1}.Encode()
		m.Add("owner", owner)
		return m
	}
	for _, err := range []error{
		event(opened("uid", "007")), event(opened("uid", "+7")), event(opened("uid", "-1")), event(opened("uid", "7 ")),
		event(opened("uid", "4294967295")), event(opened("uid", "4294967296")), event(opened("uid", "0x7")),
		event(opened("groups", "8,7")), event(opened("groups", "7,")), event(opened("groups", "7,,8")), event(opened("groups", "7,4294967295")),
		event(opened("umask", "27")), event(opened("umask", "0027")), event(opened("umask", "1777")), event(opened("umask", "089")),
		event(opened("nofile", "1")), event(opened("nofile", "1:")), event(opened("nofile", "1:2:3")), event(opened("nproc", "-1:-1")),
		event(opened("context", "")), event(opened("context", "a b")), event(opened("keyring", "a\x00")), event(opened("mounts", "4")), event(opened("mounts", "4:05")),
		event(opened("inheritable", "0")), event(opened("ambient", "1")), event(opened("ttyaudit", "0")), event(opened("ttyaudit", "4")),
		event(opened("hush", "no")), event(opened("env", "=x")), event(opened("env", "x")),
		event(capproto.NewMsg("prompt", "style", "shout", "text", "")), event(capproto.NewMsg("error", "code", "limit", "text", "")),
		event(capproto.NewMsg("account", "uid", "1", "gid", "1", "home", "", "shell", "", "group", "g", "nogroups", "why")),
		request(1, capproto.NewMsg("session", "pid", "0")), request(1, capproto.NewMsg("session", "pid", "-1")),
		request(1, capproto.NewMsg("session", "pid", "4294967297")), request(1, capproto.NewMsg("session", "pid", "01")),
		request(0, capproto.NewMsg("lookup", "user", "a", "addr", "::FFFF:1.2.3.4")), request(0, capproto.NewMsg("lookup", "user", "a", "addr", "h")),
		request(0, capproto.NewMsg("answer", "data", "x", "fail", "yes")), request(0, capproto.NewMsg("answer")), request(0, capproto.NewMsg("answer", "fail", "no")),
		request(0, capproto.NewMsg("authenticate", "null", "yes")), request(0, capproto.NewMsg("hello", "version", "0")),
		request(2, adopt("0:5:620 ")), request(2, adopt("0:5")), request(2, adopt("0:5:10000")), request(2, adopt("0:5:6:0")),
	} {
		if !errors.Is(err, ErrWire) {
			t.Errorf("%v", err)
		}
	}
}

func TestDescriptorsAreCounted(t *testing.T) {
	for verb, d := range requests {
		for _, n := range []int{d.minFiles - 1, d.maxFiles + 1} {
			if _, err := DecodeRequest(capproto.NewMsg(verb), n); !errors.Is(err, ErrWire) || !strings.Contains(err.Error(), "descriptors") {
				t.Errorf("%s with %d descriptors: %v", verb, n, err)
			}
		}
	}
}

func TestOneSidesWordsAreNotTheOthers(t *testing.T) {
	if _, err := DecodeRequest(Proven{"alice"}.Encode(), 0); !errors.Is(err, ErrWire) {
		t.Error(err)
	}
	if _, err := DecodeEvent(Authenticate{}.Encode()); !errors.Is(err, ErrWire) {
		t.Error(err)
	}
}

func TestProgramsOfTwoVersionsRefuseEachOther(t *testing.T) {
	const older, newer = "factotum-pam is older than factotum; restart factotum", "factotum-pam is newer than factotum; restart factotum"
	next := capproto.NewMsg("hello", "version", fmt.Sprint(Version+1), "and", "more")
	for _, c := range []struct {
		m                capproto.Msg
		worker, factotum string // what each says to this first packet from the other
	}{
		{Hello{Version}.Encode(), "", ""},
		{next, older, newer},
		{Lookup{User: "alice"}.Encode(), newer, older},
		{Failed{"hello out of turn"}.Encode(), newer, older},
		{capproto.NewMsg("hello"), newer, older},
		{capproto.NewMsg("hello", "version", "-1"), newer, older},
	} {
		for who, err := range map[string]error{c.worker: CheckFactotum(c.m), c.factotum: CheckWorker(c.m)} {
			var v *VersionError
			if who == "" && err != nil || who != "" && (!errors.As(err, &v) || err.Error() != who) {
				t.Errorf("%v: %v, want %q", c.m, err, who)
			}
		}
	}
}

func TestAFactotumOfAnotherVersionUnderstandsTheRefusal(t *testing.T) {
	// The release before this wire had a version knows "error code= text=".
	if m := Refusal(Begin{Service: "login"}.Encode()).Encode(); m.Verb != "error" || m.Get("code") != "internal" || m.Get("text") != "factotum-pam is newer than factotum; restart factotum" {
		t.Errorf("%v", m)
	}
	if m := Refusal(capproto.NewMsg("hello", "version", "1000")).Encode(); CheckWorker(m) != nil {
		t.Errorf("%v", m)
	}
}

func TestFitIsShortAndHasNoNUL(t *testing.T) {
	for s, want := range map[string]string{"": "", "abc": "abc", "a\x00b\x00c": "a?b", "abcd": "abc"} {
		if got := Fit(s, 3); got != want {
			t.Errorf("Fit(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestAnswersNeverPrint(t *testing.T) {
	a := Answer{Data: "open-sesame"}
	if s := fmt.Sprintf("%v %+v %#v %s", a, a, []Request{a}, a); strings.Contains(s, "sesame") {
		t.Error(s)
	}
}

// No error of decoding quotes a value.
func TestErrorsQuoteNoValue(t *testing.T) {
	everyMessage(func(m capproto.Msg, decode func(capproto.Msg) error) {
		for i := range m.Attrs {
			bad := capproto.Msg{Verb: m.Verb, Attrs: slices.Clone(m.Attrs)}
			bad.Attrs[i].Value = strings.Repeat("sesame", 30<<10)
			if err := decode(bad); err == nil || strings.Contains(err.Error(), "sesame") {
				t.Errorf("%.200v", err)
			}
		}
	})
}

// FuzzDecode: no packet makes decoding panic, and what is decoded has one form.
func FuzzDecode(f *testing.F) {
	everyMessage(func(m capproto.Msg, _ func(capproto.Msg) error) {
		b, err := m.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, byte(len(b)%3))
	})
	f.Fuzz(func(t *testing.T, b []byte, files byte) {
		m, err := capproto.DecodeMsg(b)
		if err != nil {
			return
		}
		if r, err := DecodeRequest(m, int(files)); err == nil {
			again, err := DecodeRequest(wire(t, r.Encode()), int(files))
			if err != nil || !reflect.DeepEqual(again, r) {
				t.Fatalf("%#v, then %#v, %v", r, again, err)
			}
		} else if !errors.Is(err, ErrWire) {
			t.Fatal(err)
		}
		if e, err := DecodeEvent(m); err == nil {
			again, err := DecodeEvent(wire(t, e.Encode()))
			if err != nil || !reflect.DeepEqual(again, e) {
				t.Fatalf("%#v, then %#v, %v", e, again, err)
			}
		} else if !errors.Is(err, ErrWire) {
			t.Fatal(err)
		}
	})
}

func TestAPasswordIsCheckedAsUnixChkpwdCan(t *testing.T) {
	for _, m := range []capproto.Msg{
		capproto.NewMsg("check", "user", "alice", "option", "--help", "password", "x"),
		capproto.NewMsg("check", "user", "alice", "option", "chkexpiry", "password", "x"),
	} {
		if _, err := DecodeRequest(m, 0); !errors.Is(err, ErrWire) {
			t.Errorf("%v: %v", m, err)
		}
	}
	if _, err := DecodeEvent(capproto.NewMsg("checked", "status", "256")); !errors.Is(err, ErrWire) {
		t.Errorf("status 256: %v", err)
	}
	if s := fmt.Sprintf("%v %#v", CheckPassword{"alice", "nullok", "open-sesame"}, CheckPassword{"alice", "nullok", "open-sesame"}); strings.Contains(s, "sesame") {
		t.Error(s)
	}
}
