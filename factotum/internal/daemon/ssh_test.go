package daemon

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/sshauth"
	"p9auth/factotum/internal/status"
	"p9auth/internal/authkeys"
)

// keyed begins a conversation of proto=ssh that has a session id.
func keyed(t testing.TB, b *bench) *front {
	f := b.dial(t, uidSSH, uidSSH, 200)
	f.want("ok", startMsg("ssh"), socket())
	f.want("ok", f.signMsg())
	return f
}

func authMsg(user, method string, nameValue ...string) capproto.Msg {
	return msg(capproto.VerbAuth, append([]string{"user", user, "method", method}, nameValue...)...)
}

// answers is a worker that knows one password.
func answers(right string) func(*fakeWorker, pamwire.Request) []pamwire.Event {
	return func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		switch r := r.(type) {
		case pamwire.Authenticate:
			return []pamwire.Event{pamwire.Prompt{Style: capproto.Info, Text: "Hello"}, pamwire.Prompt{Style: capproto.EchoOff, Text: "Password: "}}
		case pamwire.Answer:
			if r.Data != right || r.Fail {
				return []pamwire.Event{pamwire.Refused{Code: capproto.CodeDenied, Text: "Login incorrect"}}
			}
			return []pamwire.Event{pamwire.Proven{User: w.user}}
		case pamwire.CheckAccount:
			return []pamwire.Event{accountValid(w.user)}
		}
		return obliging(w, r)
	}
}

// wantCode asks, and wants an error of that code after which it goes on.
func (f *front) wantCode(code string, m capproto.Msg) capproto.Msg {
	f.t.Helper()
	r := f.want("error", m)
	if r.Get("code") != code {
		f.t.Errorf("%v is answered by %v", m, r)
	}
	return r
}

func TestAPasswordOverSSH(t *testing.T) {
	b := newBench(host().gen)
	b.reply = answers(typed)
	f := keyed(t, b)
	if m := f.wantCode(capproto.CodeDenied, authMsg("alice", "none")); m.Get("methods") != "publickey,password,keyboard-interactive" {
		t.Errorf("%v", m)
	}
	f.wantCode(capproto.CodeDenied, authMsg("alice", "password", "data", "wrong"))
	f.wantCode(capproto.CodeDenied, authMsg("alice", "password", "data", ""))
	f.want("done", authMsg("alice", "password", "data", typed))
	if n := b.stats.Of(status.Refused); n != 2 {
		t.Errorf("%d refusals are counted", n)
	}
	log := b.log.String()
	for _, want := range []string{"Failed password for alice from 127.0.0.1 port ", "Accepted password for alice from 127.0.0.1 port "} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q: %s", want, log)
		}
	}
	if strings.Contains(log, typed) {
		t.Error("the log has a password")
	}
	f.hangUp()
}

func TestTheRightPasswordIsWrongForRootAndForNobody(t *testing.T) {
	b := newBench(host().gen)
	b.reply = answers(typed)
	for _, user := range []string{"root", "nobody-such"} {
		f := keyed(t, b)
		f.wantCode(capproto.CodeDenied, authMsg(user, "password", "data", typed))
		f.want("ok", authMsg(user, "keyboard-interactive"))
		f.want("ok", msg("read"))
		f.want("ok", msg("read"))
		f.want("ok", msg("write", "data", typed))
		f.wantCode(capproto.CodeDenied, msg("read"))
		f.hangUp()
	}
	for _, w := range b.workers {
		for _, r := range w.told {
			if a, ok := r.(pamwire.Answer); ok && a.Data != wrongPassword {
				t.Error("PAM got what was typed")
			}
		}
	}
	if log := b.log.String(); !strings.Contains(log, "Invalid user nobody-such from 127.0.0.1 port") ||
		!strings.Contains(log, "error: PAM: Authentication failure for illegal user nobody-such from 127.0.0.1") {
		t.Errorf("the log: %s", log)
	}
	// By a key root may.
	f := keyed(t, b)
	f.want("done", keyMsg("root", f.sid))
	f.hangUp()
}

func TestPermitRootLoginNoRefusesTheKeyToo(t *testing.T) {
	b := newBench(newGen("PermitRootLogin no\n"))
	f := keyed(t, b)
	f.wantCode(capproto.CodeDenied, keyMsg("root", f.sid))
	if !strings.Contains(b.log.String(), "ROOT LOGIN REFUSED FROM 127.0.0.1 port") {
		t.Errorf("the log: %s", b.log.String())
	}
	f.hangUp()
}

func TestTwoProofsAreTwoMethods(t *testing.T) {
	b := newBench(host().gen)
	b.reply = answers(typed)
	byName := func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		if _, ok := r.(pamwire.Lookup); ok {
			a := accountOf("alice").(pamwire.Account)
			a.Name = r.(pamwire.Lookup).User
			return []pamwire.Event{a}
		}
		if _, ok := r.(pamwire.CheckAccount); ok {
			return []pamwire.Event{pamwire.AccountValid{User: w.user, UID: uidAlice}}
		}
		return answers(typed)(w, r)
	}
	b.reply = byName
	f := keyed(t, b)
	if m := f.want("ok", msg("user", "name", "carol")); m.Get("methods") != "publickey" {
		t.Errorf("%v", m)
	}
	f.wantCode(capproto.CodeDenied, authMsg("carol", "password", "data", typed))
	if m := f.want("more", keyMsg("carol", f.sid)); m.Get("methods") != "password" {
		t.Errorf("%v", m)
	}
	f.wantCode(capproto.CodeDenied, keyMsg("carol", f.sid)) // a key counts once
	f.want("done", authMsg("carol", "password", "data", typed))
	// sshd's words: auth_log in OpenSSH's auth.c.
	if !regexp.MustCompile(`Partial publickey for carol from [^ ]+ port \d+ ssh2: ED25519 SHA256:`).MatchString(b.log.String()) {
		t.Errorf("the log: %s", b.log.String())
	}
	f.hangUp()
}

func TestKeyboardInteractiveShowsAndAsksWhatPAMDoes(t *testing.T) {
	b := newBench(host().gen)
	b.reply = answers(typed)
	f := keyed(t, b)
	f.want("ok", authMsg("alice", "keyboard-interactive"))
	if m := f.want("ok", msg("read")); m.Get("style") != "info" {
		t.Errorf("%v", m)
	}
	f.want("ok", msg("read"))
	// The client gives the questions up, and that counts.
	f.wantCode(capproto.CodeDenied, authMsg("alice", "none"))
	f.want("ok", authMsg("alice", "keyboard-interactive"))
	f.want("ok", msg("read"))
	f.want("ok", msg("read"))
	f.want("ok", msg("write", "data", typed))
	f.want("done", msg("read"))
	f.hangUp()
}

func TestAnExpiredPasswordIsChangedByKeyboardInteractiveOrInTheSession(t *testing.T) {
	b := newBench(host().gen)
	b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		switch r := r.(type) {
		case pamwire.CheckAccount:
			if r.Later {
				a := accountValid("alice")
				a.Expired = true
				return []pamwire.Event{pamwire.Prompt{Style: capproto.Info, Text: "It has expired."}, a}
			}
			return []pamwire.Event{pamwire.Prompt{Style: capproto.Info, Text: "It has expired."}, pamwire.Prompt{Style: capproto.EchoOff, Text: "New: "}}
		case pamwire.Answer:
			if r.Data == "new" {
				return []pamwire.Event{accountValid("alice")}
			}
		}
		return answers(typed)(w, r)
	}
	// session is what authinfo says of the session that follows.
	pid := int32(300)
	session := func(f *front) capproto.Msg {
		pid++
		s := b.dial(t, uidSSH, uidSSH, pid)
		defer s.hangUp()
		s.want("ok", msg("attach", "ticket", f.want("ok", msg("ticket")).Get("ticket")))
		s.want("ok", msg("session"))
		s.want("done", msg("read"))
		return s.want("ok", msg("authinfo"))
	}
	ask := func(f *front) {
		f.want("ok", authMsg("alice", "keyboard-interactive"))
		f.want("ok", msg("read"))
		f.want("ok", msg("read"))
		f.want("ok", msg("write", "data", typed))
		if m := f.want("ok", msg("read")); m.Get("text") != "It has expired." {
			t.Errorf("%v", m)
		}
		if m := f.want("ok", msg("read")); m.Get("text") != "New: " {
			t.Errorf("%v", m)
		}
	}
	f := keyed(t, b)
	ask(f)
	f.want("ok", msg("write", "data", "new"))
	f.want("done", msg("read"))
	if m := session(f); m.Get("expired") != "" {
		t.Errorf("the password is changed: %v", m)
	}
	f.hangUp()
	// Who does not change it is not let in.
	f = keyed(t, b)
	ask(f)
	f.wantEnd(capproto.CodeAccount, authMsg("alice", "none"))
	// With another proof there is nobody to ask yet, and a session that does nothing
	// else. What a module asks for all the same gets no answer.
	for _, m := range []capproto.Msg{authMsg("alice", "password", "data", typed), keyMsg("alice", exchangeHash(1))} {
		f = keyed(t, b)
		if m.Get("method") == "publickey" {
			m = keyMsg("alice", f.sid)
		}
		if says := f.want("done", m).All("message"); len(says) == 0 || says[len(says)-1] != "It has expired." {
			t.Errorf("%q", says)
		}
		if m := session(f); m.Get("expired") != "yes" {
			t.Errorf("%v", m)
		}
		f.hangUp()
	}
}

func TestAnAccountThatPAMRefusesIsTheEnd(t *testing.T) {
	b := newBench(host().gen)
	for _, e := range []pamwire.Event{
		pamwire.Refused{Code: capproto.CodeAccount, Text: "Your account has expired"}, pamwire.Refused{Code: capproto.CodeDenied, Text: "no such user"},
		accountValid("bob"),
	} {
		b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
			if _, ok := r.(pamwire.CheckAccount); ok {
				return []pamwire.Event{e}
			}
			return answers(typed)(w, r)
		}
		k := keyed(t, b)
		k.wantEnd(capproto.CodeAccount, keyMsg("alice", k.sid))
	}
}

func TestSoManyFailuresAreTheEnd(t *testing.T) {
	b := newBench(newGen("MaxAuthTries 3\n"))
	b.reply = answers(typed)
	f := keyed(t, b)
	for range 2 {
		f.wantCode(capproto.CodeDenied, authMsg("alice", "password", "data", "wrong"))
	}
	f.wantEnd(capproto.CodeLimit, authMsg("alice", "password", "data", "wrong"))
}

func TestAKeyIsJudgedByItsSignature(t *testing.T) {
	b := newBench(host().gen)
	f := keyed(t, b)
	bare := keyMsg("alice", f.sid)
	bare.Attrs = bare.Attrs[:len(bare.Attrs)-1]
	f.want("ok", bare) // acceptable
	f.wantCode(capproto.CodeDenied, keyMsg("alice", exchangeHash(9)))
	wrong := keyMsg("alice", f.sid)
	wrong.Attrs[len(wrong.Attrs)-1].Value = "%"
	f.wantCode(capproto.CodeDenied, wrong)
	if n := b.stats.Of(status.SignatureRefused); n != 2 {
		t.Errorf("%d signatures", n)
	}
	if !strings.Contains(b.log.String(), "a note") {
		t.Error("the worker's notes are lost")
	}
	unknown := keyMsg("alice", f.sid)
	unknown.Attrs[2].Value = "ssh-dss"
	f.wantCode(capproto.CodeDenied, unknown)
	f.want("done", keyMsg("alice", f.sid))
	f.hangUp()
	b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		if _, ok := r.(pamwire.KeyQuery); ok {
			return []pamwire.Event{pamwire.KeyDenied{Notes: []string{"x"}}}
		}
		return obliging(w, r)
	}
	denied := keyed(t, b)
	denied.wantCode(capproto.CodeDenied, keyMsg("alice", denied.sid))
	denied.hangUp()
	for _, e := range []pamwire.Event{pamwire.KeyAllowed{Options: "nonsense"}, pamwire.Begun{}, pamwire.Failed{Text: "x"}} {
		b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
			if _, ok := r.(pamwire.KeyQuery); ok {
				return []pamwire.Event{e}
			}
			return obliging(w, r)
		}
		k := keyed(t, b)
		k.wantEnd(capproto.CodeInternal, keyMsg("alice", k.sid))
	}
	keyed(t, b).wantEnd(capproto.CodeProtocol, authMsg("alice", "publickey", "alg", "ssh-ed25519", "key", "%"))
}

func TestWhatIsOutOfTurnInSSHEndsTheConversation(t *testing.T) {
	b := newBench(host().gen)
	// A lie differs from the truth in one thing.
	with := func(name, value string) func(f *front) capproto.Msg {
		return func(f *front) capproto.Msg {
			m := f.signMsg()
			for i := range m.Attrs {
				if m.Attrs[i].Name == name {
					m.Attrs[i].Value = value
				}
			}
			return m
		}
	}
	exchanged := func(change func(x *transcript)) func(f *front) capproto.Msg {
		return func(f *front) capproto.Msg {
			x := exchange(f.nonce)
			change(&x)
			return x.signMsg()
		}
	}
	for name, ask := range map[string]func(f *front) capproto.Msg{
		"a proof before the key exchange": func(*front) capproto.Msg { return authMsg("alice", "none") },
		"a name before the key exchange":  func(*front) capproto.Msg { return msg("user", "name", "alice") },
		"a hash in place of a transcript": with("transcript", capproto.B64(exchangeHash(1))),
		"no transcript":                   with("transcript", ""),
		"no base64":                       with("transcript", "%"),
		"another algorithm":               with("alg", "ssh-rsa"),
		"another key":                     with("key", "AAAA"),
		"another hash":                    with("hash", "sha1"),
		"a nonce of its own":              exchanged(func(x *transcript) { x.IS = kexInit(bytes.Repeat([]byte{9}, 16)) }),
		"the client's cookie":             exchanged(func(x *transcript) { x.IC, x.IS = x.IS, x.IC }),
		"another server's version":        exchanged(func(x *transcript) { x.VS = "SSH-2.0-OpenSSH_10.0" }),
		"another server's key":            exchanged(func(x *transcript) { x.KS = host().blob }),
		"bytes after I_S":                 exchanged(func(x *transcript) { x.IS = append(x.IS, 0) }),
		"bytes after the shared secret": func(f *front) capproto.Msg {
			return with("transcript", capproto.B64(append(ssh.Marshal(exchange(f.nonce)), 0)))(f)
		},
		"the nonce of another conversation": func(*front) capproto.Msg {
			other := b.dial(t, uidSSH, uidSSH, 201)
			defer other.hangUp()
			other.want("ok", startMsg("ssh"), socket())
			return other.signMsg()
		},
		"a second key exchange": func(f *front) capproto.Msg {
			f.want("ok", f.signMsg())
			return f.signMsg()
		},
		"a nonce before authentication": func(f *front) capproto.Msg {
			f.want("ok", f.signMsg())
			return msg("nonce")
		},
		"a second nonce": func(f *front) capproto.Msg {
			f.want("ok", f.signMsg())
			f.want("done", keyMsg("alice", f.sid))
			f.want("ok", msg("nonce"))
			return msg("nonce")
		},
		"a nonce for the second time": func(f *front) capproto.Msg {
			f.want("ok", f.signMsg())
			f.want("done", keyMsg("alice", f.sid))
			f.want("ok", msg("nonce"))
			f.want("ok", f.signMsg())
			return f.signMsg()
		},
		"the first nonce in a later key exchange": func(f *front) capproto.Msg {
			first := f.nonce
			f.want("ok", f.signMsg())
			f.want("done", keyMsg("alice", f.sid))
			f.want("ok", msg("nonce"))
			return exchange(first).signMsg()
		},
		"another user": func(f *front) capproto.Msg {
			f.want("ok", f.signMsg())
			f.want("ok", msg("user", "name", "alice"))
			return authMsg("bob", "none")
		},
		"a name after a proof": func(f *front) capproto.Msg {
			f.want("ok", f.signMsg())
			f.wantCode(capproto.CodeDenied, authMsg("alice", "none"))
			return msg("user", "name", "alice")
		},
		"no name": func(f *front) capproto.Msg {
			f.want("ok", f.signMsg())
			return msg("user")
		},
		"no user": func(f *front) capproto.Msg {
			f.want("ok", f.signMsg())
			return msg("auth", "method", "none")
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := b.dial(t, uidSSH, uidSSH, 200)
			f.want("ok", startMsg("ssh"), socket())
			f.wantEnd(capproto.CodeProtocol, ask(f))
		})
	}
	b.dial(t, uidSSH, uidSSH, 200).wantEnd(capproto.CodeProtocol, startMsg("ssh"))
	b.dial(t, uidSSH, uidSSH, 200).wantEnd(capproto.CodeProtocol, startMsg("pam", "user", "alice"))
	b.dial(t, uidLogin, uidLogin, 200).wantEnd(capproto.CodeProtocol, exchange(nil).signMsg())
	b.dial(t, uidLogin, uidLogin, 200).wantEnd(capproto.CodeProtocol, msg("nonce"))
}

func TestTheHostKeySignsOnlyWhatHostKeyAlgorithmsOffers(t *testing.T) {
	b := newBench(newGen("HostKeyAlgorithms rsa-sha2-512\n"))
	f := b.dial(t, uidSSH, uidSSH, 200)
	f.want("ok", startMsg("ssh"), socket())
	if m := f.wantEnd(capproto.CodeProtocol, f.signMsg()); !strings.Contains(m.Get("text"), "HostKeyAlgorithms") {
		t.Errorf("%v", m)
	}
}

func TestSettingsOfTheUserHold(t *testing.T) {
	dir := t.TempDir()
	banner := filepath.Join(dir, "banner")
	must(os.WriteFile(banner, []byte("Hello\n"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "nul"), []byte("a\x00b"), 0o600))
	b := newBench(newGen("UseDNS yes\nDenyUsers mallory\nAllowGroups alice root\nBanner " + banner +
		"\nMatch User dave\nRefuseConnection yes\nMatch User erin\nBanner " + filepath.Join(dir, "nul") + "\n"))
	b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		if l, ok := r.(pamwire.Lookup); ok {
			a := accountOf("alice").(pamwire.Account)
			a.Name, a.Host = l.User, "client.example"
			switch l.User {
			case "trudy":
				a.Groups, a.GroupsErr = nil, "the directory is down"
			case "erin":
				a.Groups = []string{"other"}
			}
			if !l.Addr.IsValid() {
				t.Error("UseDNS, but no address is looked up")
			}
			return []pamwire.Event{a}
		}
		return obliging(w, r)
	}
	for _, c := range []struct{ user, log, invalid, banner string }{
		{"alice", "", "", "Hello\n"},
		{"mallory", "User mallory from client.example not allowed because listed in DenyUsers", "yes", "Hello\n"},
		{"trudy", "User trudy from client.example not allowed because the user's groups cannot be had: the directory is down", "yes", "Hello\n"},
		{"erin", "none of user's groups are listed in AllowGroups", "yes", ""},
	} {
		f := keyed(t, b)
		m := f.want("ok", msg("user", "name", c.user))
		if m.Get("invalid") != c.invalid || m.Get("banner") != c.banner {
			t.Errorf("%s: %v", c.user, m)
		}
		if c.invalid != "" {
			f.wantCode(capproto.CodeDenied, keyMsg(c.user, f.sid))
			if !strings.Contains(b.log.String(), c.log) {
				t.Errorf("%s: the log does not say %q: %s", c.user, c.log, b.log.String())
			}
		}
		f.hangUp()
	}
	f := keyed(t, b)
	f.wantEnd(capproto.CodeDenied, msg("user", "name", "dave"))
	r := newBench(newGen("Match Address 127.0.0.1\nRefuseConnection yes\n"))
	r.dial(t, uidSSH, uidSSH, 200).wantEnd(capproto.CodeDenied, startMsg("ssh"), socket())
}

// TestANameIsSpelledAsSshdSpellsIt for programs that match the log.
func TestANameIsSpelledAsSshdSpellsIt(t *testing.T) {
	b := newBench(host().gen)
	lines := syslogAt(t, b)
	f := keyed(t, b)
	f.want("ok", msg("user", "name", "é\x1b日"))
	want := `Invalid user \303\251\033\346\227\245 from 127.0.0.1 port `
	if got := <-lines; !strings.Contains(got, want) || !strings.HasPrefix(got, "<38>") || !strings.Contains(got, " sshd[200]: ") {
		t.Errorf("syslog has %q", got)
	}
	f.hangUp()
}

// syslogAt gives a bench a syslog, and returns what comes there.
func syslogAt(t *testing.T, b *bench) <-chan string {
	path := filepath.Join(t.TempDir(), "log")
	u, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	gen := *b.gen
	server := *gen.ssh
	server.syslog = newSyslog(path, slog.New(slog.DiscardHandler))
	gen.ssh = &server
	b.gen = &gen
	lines := make(chan string, 100)
	go func() {
		for buf := make([]byte, 4096); ; {
			n, err := u.Read(buf)
			if err != nil {
				return
			}
			lines <- string(buf[:n])
		}
	}()
	return lines
}

func TestSyslogThatIsGoneHarmsNobody(t *testing.T) {
	s := newSyslog(filepath.Join(t.TempDir(), "gone"), slog.New(slog.DiscardHandler))
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		s.write(l, 4, 1, "x")
	}
	(*syslog)(nil).write(slog.LevelInfo, 4, 1, "x")
}

func TestAKeyOrAPasswordThatIsRefusedTakesAsLongAsTheNameSays(t *testing.T) {
	b := newBench(host().gen)
	b.reply = answers(typed)
	for _, user := range []string{"nobody-such", "alice"} {
		var slept time.Duration
		b.sleep = func(d time.Duration) { slept += d }
		f := keyed(t, b)
		if user == "nobody-such" {
			f.wantCode(capproto.CodeDenied, keyMsg(user, f.sid))
			if slept < time.Millisecond {
				t.Errorf("a key of %s took %v", user, slept)
			}
		}
		slept = 0
		f.wantCode(capproto.CodeDenied, authMsg(user, "password", "data", "wrong"))
		if slept < time.Millisecond {
			t.Errorf("a password of %s took %v", user, slept)
		}
		slept = 0
		if user == "alice" {
			if f.want("done", authMsg(user, "password", "data", typed)); slept > 0 {
				t.Errorf("the right password took %v", slept)
			}
		}
		f.hangUp()
	}
}

func TestHostKeysAndCertificatesAreThoseOfTheHost(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode, b []byte) string {
		p := filepath.Join(dir, name)
		must(os.WriteFile(p, b, mode))
		return p
	}
	private := func(seed byte) ([]byte, ssh.Signer) {
		k := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
		block, err := ssh.MarshalPrivateKey(k, "")
		must(err)
		s, err := ssh.NewSignerFromKey(k)
		must(err)
		return pem.EncodeToMemory(block), s
	}
	pemBytes, signer := private(3)
	_, other := private(4)
	cert := func(s ssh.Signer, kind uint32) []byte {
		c := &ssh.Certificate{Key: s.PublicKey(), CertType: kind, ValidBefore: ssh.CertTimeInfinity}
		must(c.SignCert(bytes.NewReader(make([]byte, 1024)), other))
		return ssh.MarshalAuthorizedKey(c)
	}
	key := file("key", 0o600, pemBytes)
	good := file("cert", 0o644, cert(signer, ssh.HostCert))
	load := func(lines string) (*sshServer, error) {
		conf, err := config.Parse("test", strings.NewReader("FrontEnd _sshfront sshd ssh\nSyslog none\nSSHDConfig "+file("sshd_config", 0o600, []byte(lines))+"\n"))
		must(err)
		return loadSSH(conf, slog.New(slog.DiscardHandler))
	}
	s, err := load("HostKey " + key + "\nHostCertificate " + good + "\n")
	if err != nil || len(s.keys) != 1 || len(s.certs) != 1 {
		t.Fatalf("%v", err)
	}
	// A certificate is signed for by its key, where it is offered.
	for _, c := range []struct {
		shown   []byte
		offered string
		want    bool
	}{
		{s.certs[0].Marshal(), ssh.CertAlgoED25519v01, true},
		{signer.PublicKey().Marshal(), ssh.KeyAlgoED25519, true},
		{signer.PublicKey().Marshal(), ssh.CertAlgoED25519v01, false},
		{s.certs[0].Marshal(), ssh.KeyAlgoED25519, false},
		{other.PublicKey().Marshal(), ssh.KeyAlgoED25519, false},
	} {
		if _, err := s.sign(c.shown, "ssh-ed25519", []string{c.offered}, exchangeHash(1)); (err == nil) != c.want {
			t.Errorf("%s is offered, %.40q is shown: %v", c.offered, c.shown, err)
		}
	}
	for name, lines := range map[string]string{
		"a key that others can read":       "HostKey " + file("open", 0o644, pemBytes),
		"no key":                           "HostKey " + filepath.Join(dir, "gone"),
		"nonsense":                         "HostKey " + file("nonsense", 0o600, []byte("nonsense")),
		"an empty file":                    "HostKey " + file("empty", 0o600, nil),
		"another key's certificate":        "HostKey " + key + "\nHostCertificate " + file("c1", 0o644, cert(other, ssh.HostCert)),
		"a user's certificate":             "HostKey " + key + "\nHostCertificate " + file("c2", 0o644, cert(signer, ssh.UserCert)),
		"a certificate that is a key":      "HostKey " + key + "\nHostCertificate " + file("c3", 0o644, ssh.MarshalAuthorizedKey(signer.PublicKey())),
		"a certificate that is not there":  "HostKey " + key + "\nHostCertificate " + filepath.Join(dir, "gone"),
		"a configuration that is nonsense": "Nonsense yes",
	} {
		if _, err := load(lines + "\n"); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	pam, err := config.Parse("test", strings.NewReader("FrontEnd _login login\n"))
	must(err)
	if s, err := loadSSH(pam, nil); s != nil || err != nil {
		t.Error("sshd_config is read though no front end is for ssh")
	}
}

func TestVeryManyKeyExchangesAreSlowedDownAndLogged(t *testing.T) {
	b := newBench(host().gen)
	f := keyed(t, b)
	f.want("done", keyMsg("alice", f.sid))
	var slept time.Duration
	b.sleep = func(d time.Duration) { slept += d }
	for range sshauth.ExchangesAtOnce / 2 {
		f.want("ok", msg("nonce"))
		f.want("ok", f.signMsg())
	}
	if slept != 0 {
		t.Errorf("half of what goes at once took %v", slept)
	}
	for range 2 * sshauth.ExchangesAtOnce {
		f.want("ok", msg("nonce"))
		f.want("ok", f.signMsg())
	}
	if slept < sshauth.ExchangeEvery {
		t.Errorf("twice as many took %v", slept)
	}
	if n := strings.Count(b.log.String(), "very many key exchanges"); n != 1 {
		t.Errorf("the log says so %d times", n)
	}
	f.hangUp()
}

func TestALoginShellThatIsNoneKeepsTheUserOut(t *testing.T) {
	b := newBench(host().gen)
	b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
		if _, ok := r.(pamwire.Lookup); ok {
			return []pamwire.Event{pamwire.Account{Name: "alice", UID: uidAlice, GID: uidAlice, Home: "/home/alice", Shell: "/no\nsh", BadShell: "does not exist"}}
		}
		return answers(typed)(w, r)
	}
	f := keyed(t, b)
	f.wantCode(capproto.CodeDenied, keyMsg("alice", f.sid))
	f.wantCode(capproto.CodeDenied, authMsg("alice", "password", "data", typed))
	f.hangUp()
	if log := b.log.String(); !strings.Contains(log, `User alice not allowed because shell /no\\nsh does not exist`) ||
		!strings.Contains(log, "Failed password for invalid user alice from 127.0.0.1 port ") {
		t.Errorf("the log says %s", log)
	}
}

func TestTheOptionsOfTwoKeysOfALoginAreMerged(t *testing.T) {
	for _, c := range []struct {
		commands [2]string
		want     string // code of the second key's reply, or verb
	}{
		{[2]string{"one", "one"}, "done"}, {[2]string{"", "two"}, "done"}, {[2]string{"one", "two"}, capproto.CodeDenied},
	} {
		b := newBench(newGen("AuthenticationMethods publickey,publickey\n"))
		n := 0
		b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
			if _, ok := r.(pamwire.KeyQuery); ok {
				command := c.commands[n]
				n++
				return []pamwire.Event{pamwire.KeyAllowed{Options: optionsText(authkeys.Options{PTY: n == 2, X11Forwarding: true, Tunnel: -1, HasCommand: command != "", Command: command})}}
			}
			return obliging(w, r)
		}
		f := keyed(t, b)
		f.want("more", keyMsg("alice", f.sid))
		// Another key of the same person.
		second := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, 32))
		m := keyMsgOf(second, "alice", f.sid)
		if c.want == capproto.CodeDenied {
			f.wantCode(c.want, m)
			if !strings.Contains(b.log.String(), "error: Inconsistent authentication options: forced command options do not match") {
				t.Errorf("the log says %s", b.log.String())
			}
			f.hangUp()
			continue
		}
		f.want(c.want, m)
		if o := f.c.proto.(*sshProto).keyOptions; o.PTY || !o.X11Forwarding || !o.HasCommand || o.Command != max(c.commands[0], c.commands[1]) {
			t.Errorf("%v: %+v", c.commands, o)
		}
		f.hangUp()
	}
}

// What an agent signs for certain servers alone names the server's host key
// (OpenSSH's PROTOCOL, section 3.1).
func TestABoundSignatureIsForTheHostKeyOfThisConversation(t *testing.T) {
	const bound = "publickey-hostbound-v00@openssh.com"
	str := func(b []byte) []byte { return ssh.Marshal(struct{ B []byte }{b}) }
	ours, other := str(host().key.Marshal()), str(host().blob)
	for what, c := range map[string]struct {
		method string
		more   []byte // that is signed after the user's key
		says   string // hostbound=
		good   bool
	}{
		"as it is":                                 {bound, ours, "yes", true},
		"another server's":                         {bound, other, "yes", false},
		"to no key":                                {bound, nil, "yes", false},
		"to an empty key":                          {bound, str(nil), "yes", false},
		"to two keys":                              {bound, slices.Concat(ours, ours), "yes", false},
		"bound, and said not to be":                {bound, ours, "", false},
		"not bound, and said to be":                {"publickey", nil, "yes", false},
		"of the old method with the host key":      {"publickey", ours, "yes", false},
		"of the old method, and not said to be so": {"publickey", ours, "", false},
	} {
		f := keyed(t, newBench(host().gen))
		m := signedMsg(host().user, "alice", f.sid, c.method, c.more)
		if c.says != "" {
			m.Add("hostbound", c.says)
		}
		if c.good {
			f.want("done", m)
		} else if got, _ := f.ask(m); got.Get("code") != capproto.CodeDenied {
			t.Errorf("%s: %v", what, got)
		}
		f.hangUp()
	}
}
