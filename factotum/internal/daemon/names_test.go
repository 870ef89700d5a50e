package daemon

import (
	"strings"
	"testing"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
)

// noCase answers as a directory that minds no case: ALICE is alice.
func noCase(w *fakeWorker, r pamwire.Request) []pamwire.Event {
	switch r := r.(type) {
	case pamwire.Lookup:
		return []pamwire.Event{accountOf(strings.ToLower(r.User))}
	case pamwire.CheckAccount:
		return []pamwire.Event{accountValid(strings.ToLower(w.user))}
	}
	return answers(typed)(w, r)
}

// The client signs the name that it typed, PAM gets it, and the session is the
// account's. What is refused goes by the account's name (sshd, auth.c, allowed_user).
func TestAnAccountIsKnownByItsOwnName(t *testing.T) {
	for _, c := range []struct {
		conf, named string
		in          bool
		log         string
	}{
		{"", "ALICE", true, "Accepted publickey for ALICE from"},
		{"", "ALICE:style", true, "Accepted publickey for ALICE from"},
		{"", "alice:", true, "Accepted publickey for alice from"},
		{"DenyUsers alice\n", "ALICE", false, "User alice from 127.0.0.1 not allowed because listed in DenyUsers"},
		{"DenyUsers alice\n", "alice:style", false, "listed in DenyUsers"},
		{"DenyUsers ALICE\n", "ALICE", true, ""},
		{"AllowUsers alice\n", "ALICE", true, ""},
		{"AllowUsers ALICE\n", "ALICE", false, "User alice from 127.0.0.1 not allowed because not listed in AllowUsers"},
		{"Match User alice\nPubkeyAuthentication no\n", "ALICE", true, ""},
		{"Match User ALICE\nPubkeyAuthentication no\n", "ALICE", false, ""},
		{"Match User alice\nPubkeyAuthentication no\n", "alice:style", false, ""},
	} {
		t.Run(c.conf+c.named, func(t *testing.T) {
			b := newBench(newGen(c.conf))
			b.reply = noCase
			f := keyed(t, b)
			f.want("ok", msg("user", "name", c.named))
			if !c.in {
				f.wantCode(capproto.CodeDenied, keyMsg(c.named, f.sid))
			} else {
				f.want("done", keyMsg(c.named, f.sid))
				if m := f.want("ok", msg("attr")); m.Get("user") != "alice" {
					t.Errorf("%v", m)
				}
				begun := b.workers[0].told[len(b.workers[0].told)-2].(pamwire.Begin)
				if name, _, _ := strings.Cut(c.named, ":"); begun.User != name {
					t.Errorf("PAM is told of %s", begun.User)
				}
			}
			if !strings.Contains(b.log.String(), c.log) {
				t.Errorf("the log does not say %q: %s", c.log, b.log.String())
			}
			f.hangUp()
		})
	}
}

func TestASignatureIsForTheNameThatTheClientSaid(t *testing.T) {
	for named, signed := range map[string]string{"ALICE": "alice", "alice": "ALICE", "alice:style": "alice", "alice:one": "alice:two", "alice:": "alice"} {
		b := newBench(newGen(""))
		b.reply = noCase
		f := keyed(t, b)
		f.want("ok", msg("user", "name", named))
		m := keyMsg(signed, f.sid)
		for i := range m.Attrs {
			if m.Attrs[i].Name == "user" {
				m.Attrs[i].Value = named
			}
		}
		f.wantCode(capproto.CodeDenied, m)
		f.hangUp()
	}
}

// A client's style is the first request's, whatever it says later (sshd, auth2.c).
func TestAStyleMayChangeAndANameMayNot(t *testing.T) {
	b := newBench(newGen(""))
	f := keyed(t, b)
	f.wantCode(capproto.CodeDenied, authMsg("alice:one", "none"))
	f.wantCode(capproto.CodeDenied, authMsg("alice:two", "none"))
	f.wantEnd(capproto.CodeProtocol, authMsg("bob:one", "none"))
}

// A name that no account can have is a user's fault and not a front end's, and
// reaches neither NSS nor PAM.
func TestANameThatNoAccountCanHaveIsAnInvalidUser(t *testing.T) {
	for name, logged := range map[string]string{
		"": "Invalid user  from", ":style": "Invalid user  from", "a\nb": `Invalid user a\\nb from`, "a\rb": "Invalid user", strings.Repeat("x", 9000): "Invalid user " + strings.Repeat("x", 100) + " from",
	} {
		b := newBench(newGen(""))
		b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
			switch r := r.(type) {
			case pamwire.Lookup:
				if r.User != nobodyName {
					t.Errorf("NSS is asked for %.40q", r.User)
				}
				return []pamwire.Event{pamwire.NoUser{}}
			case pamwire.Begin:
				if r.User != nobodyName {
					t.Errorf("PAM is told of %.40q", r.User)
				}
			}
			return answers(typed)(w, r)
		}
		f := keyed(t, b)
		m := f.want("ok", msg("user", "name", name))
		if m.Get("invalid") != "yes" {
			t.Errorf("%.40q: %v", name, m)
		}
		f.wantCode(capproto.CodeDenied, authMsg(name, "password", "data", typed))
		f.wantCode(capproto.CodeDenied, keyMsg(name, f.sid))
		if !strings.Contains(b.log.String(), logged) || strings.Contains(b.log.String(), strings.Repeat("x", 300)) {
			t.Errorf("the log does not say %q: %s", logged, b.log.String())
		}
		f.hangUp()
	}
}

// An account by a name that a PAM module gives is the one that was named, or none.
func TestAnotherNameOfTheSameAccountIsTheSameAccount(t *testing.T) {
	for _, c := range []struct {
		valid pamwire.AccountValid
		in    bool
	}{
		{accountValid("alice"), true}, {accountValid("root"), false},
		{pamwire.AccountValid{User: "alice", UID: 0}, false}, {pamwire.AccountValid{User: "ALICE", UID: uidAlice}, false},
	} {
		b := newBench(newGen(""))
		b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
			if _, ok := r.(pamwire.CheckAccount); ok {
				return []pamwire.Event{c.valid}
			}
			return noCase(w, r)
		}
		f := keyed(t, b)
		if c.in {
			f.want("done", keyMsg("Alice", f.sid))
			f.hangUp()
		} else {
			f.wantEnd(capproto.CodeAccount, keyMsg("Alice", f.sid))
		}
	}
}

// FuzzNames: what NSS and PAM get of a name that a client chose is a possible name of
// an account, whose part before a colon it is, or nobody's; and the log gets one line.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"alice", "ALICE:style", ":", "", "a\nb", "a\x00b", "\xff\xfe:", "NOUSER:", strings.Repeat("é", 200)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		l := &sshProto{signedName: name, name: withoutStyle(name)}
		got := l.pamName()
		if got != nobodyName && (got != l.name || got == "" || len(got) > maxUserName || strings.ContainsAny(got, ":\r\n") || !strings.HasPrefix(name, got)) {
			t.Errorf("%q goes to PAM as %q", name, got)
		}
		if vis := l.visName(); strings.ContainsAny(vis, "\r\n\x00\x1b") || len(vis) > 4*100 {
			t.Errorf("%q is logged as %q", name, vis)
		}
	})
}
