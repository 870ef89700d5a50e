package conversation

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/msteinert/pam/v2"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/records"
)

func TestALoginFromHelloToTheSessionsEnd(t *testing.T) {
	f, name, p := meet(t), self(t), startProcess(t)
	f.pam.on("authenticate", func() error {
		answer, err := f.pam.say(pam.PromptEchoOff, "Password: ")
		if err == nil && answer != "open-sesame" {
			err = pam.ErrAuth
		}
		return err
	})
	f.pam.on("open", func() error {
		f.pam.say(pam.TextInfo, "Welcome")
		return f.pam.PutEnv("FROM_MODULE=a b")
	})
	f.say(pamwire.Begin{Service: "login", User: name, RHost: "192.0.2.1", ConfDir: "/etc/x", Env: []string{"A=1"}})
	f.want(pamwire.Begun{LogName: name})
	f.say(pamwire.Authenticate{NoEmpty: true})
	f.want(pamwire.Prompt{Style: capproto.EchoOff, Text: "Password: "})
	f.say(pamwire.Answer{Data: "wrong"})
	f.want(pamwire.Refused{Code: capproto.CodeDenied, Text: "Login incorrect"})
	f.say(pamwire.Authenticate{})
	f.want(pamwire.Prompt{Style: capproto.EchoOff, Text: "Password: "})
	f.say(pamwire.Answer{Data: "open-sesame"})
	f.want(pamwire.Proven{User: name})
	f.say(pamwire.CheckAccount{})
	f.want(pamwire.AccountValid{User: name, UID: uint32(os.Getuid())})
	f.say(pamwire.OpenSession{PID: p.pid()}, p.fd)
	f.want(pamwire.Prompt{Style: capproto.Info, Text: "Welcome"})
	o, ok := f.hear().(pamwire.Opened)
	if !ok || o.User != name || int(o.UID) != os.Getuid() || !slices.Equal(o.Env, []string{"A=1", "FROM_MODULE=a b"}) || o.Groups[0] != o.GID ||
		o.Umask != nil || o.NoFile != nil || o.NProc != nil {
		t.Fatalf("%+v", o)
	}
	p.end()
	f.want(pamwire.Closing{})
	f.want(pamwire.Closed{})
	if err := f.end(); err != nil {
		t.Error(err)
	}
	want := []string{
		"start login " + name + " /etc/x", fmt.Sprint("authenticate:", int(pam.DisallowNullAuthtok)), "authenticate", "account",
		fmt.Sprint("setcred:", int(pam.EstablishCred)), "open", fmt.Sprint("setcred:", int(pam.ReinitializeCred)),
		"close", fmt.Sprint("setcred:", int(pam.DeleteCred)), "end",
	}
	got := f.pam.called()
	for i, c := range got { // a .hushlogin makes the session silent
		for _, fl := range []pam.Flags{pam.EstablishCred, pam.ReinitializeCred, pam.DeleteCred} {
			if c == fmt.Sprint("setcred:", int(fl|pam.Silent)) {
				got[i] = fmt.Sprint("setcred:", int(fl))
			}
		}
		got[i] = strings.TrimSuffix(got[i], fmt.Sprint(":", int(pam.Silent)))
	}
	if !slices.Equal(got, want) {
		t.Errorf("PAM was called so:\n%q, want\n%q", got, want)
	}
	if f.pam.items[pam.Rhost] != "192.0.2.1" {
		t.Errorf("%v", f.pam.items)
	}
}

func TestTheSessionIsClosedThoughFactotumIsGone(t *testing.T) {
	f, name, p := meet(t), self(t), startProcess(t)
	f.say(pamwire.Begin{Service: "login", User: name})
	f.hear()
	f.say(pamwire.CheckAccount{})
	f.hear()
	f.say(pamwire.OpenSession{PID: p.pid()}, p.fd)
	if _, ok := f.hear().(pamwire.Opened); !ok {
		t.Fatal("not opened")
	}
	f.conn.Close()
	p.end()
	if err := <-f.done; err != nil {
		t.Error(err)
	}
	f.done <- nil
	if !slices.ContainsFunc(f.pam.called(), func(c string) bool { return strings.HasPrefix(c, "close") }) || f.pam.last() != "end" {
		t.Errorf("%q", f.pam.called())
	}
}

func TestPAMsNoToASessionEndsTheWorker(t *testing.T) {
	f, name, p := meet(t), self(t), startProcess(t)
	f.pam.on("open", func() error { return pam.ErrSession })
	f.say(pamwire.Begin{Service: "login", User: name})
	f.hear()
	f.say(pamwire.CheckAccount{})
	f.hear()
	f.say(pamwire.OpenSession{PID: p.pid()}, p.fd)
	if r, ok := f.hear().(pamwire.Refused); !ok || r.Code != capproto.CodeAccount {
		t.Errorf("%#v", r)
	}
	if err := f.end(); err != nil {
		t.Error(err)
	}
	if calls := f.pam.called(); f.pam.last() != "end" || !strings.HasPrefix(calls[len(calls)-2], "setcred:") {
		t.Errorf("%q", calls)
	}
}

func TestAnotherWorkersSessionIsClosedOnce(t *testing.T) {
	f, name, p := meet(t), self(t), startProcess(t)
	f.pam.on("close", func() error {
		if _, err := f.pam.say(pam.TextInfo, "Goodbye"); err != nil {
			return err
		}
		if _, err := f.pam.say(pam.PromptEchoOn, "Really? "); err != pam.ErrConv {
			t.Errorf("a question that nobody can answer: %v", err)
		}
		return nil
	})
	f.say(pamwire.Adopt{User: name, Service: "sshd", TTY: "ssh", RHost: "192.0.2.1", Env: []string{"XDG_SESSION_ID=7"}, PID: p.pid(), Lines: []string{"pts/7", "pts/8"}}, p.fd)
	f.say(pamwire.EndTerminal{Line: "pts/8"})
	f.want(pamwire.Recorded{})
	p.end()
	f.want(pamwire.Closing{})
	f.want(pamwire.Closed{})
	if err := f.end(); err != nil {
		t.Error(err)
	}
	want := []string{"start sshd " + name + " ", "close", fmt.Sprint("setcred:", int(pam.DeleteCred)), "end"}
	if !slices.Equal(f.pam.called(), want) || f.pam.env["XDG_SESSION_ID"] != "7" || f.pam.items[pam.Tty] != "ssh" {
		t.Errorf("%q %v %v", f.pam.called(), f.pam.env, f.pam.items)
	}
	// The end of each terminal is in wtmp.
	all := records.Since(f.c.places.Wtmp, 0)
	for i, line := range []string{"pts/8", "pts/7"} {
		if len(all) != 2 || all[i].Type != records.DeadProcess || all[i].Line != line || all[i].PID != os.Getpid() {
			t.Errorf("%+v", all)
		}
	}
}

func TestWhatIsOutOfTurnEndsTheWorker(t *testing.T) {
	p := startProcess(t)
	query := pamwire.KeyQuery{Key: []byte("k"), Settings: "{}", Addr: netip.MustParseAddr("::1"), Ends: "x"}
	for _, c := range []struct {
		r     pamwire.Request
		files []*os.File
	}{
		{pamwire.Hello{Version: pamwire.Version}, nil}, {query, nil}, {pamwire.Authenticate{}, nil}, {pamwire.CheckAccount{}, nil},
		{pamwire.Answer{Data: "x"}, nil}, {pamwire.OpenSession{PID: p.pid()}, []*os.File{p.fd}}, {pamwire.OpenSession{PID: p.pid()}, nil},
		{pamwire.Begin{Service: "login"}, []*os.File{p.fd}}, // a terminal that is none
		{pamwire.Adopt{User: "root", Service: "s", PID: 1, Owner: &pamwire.Owner{}}, []*os.File{p.fd}},
		{pamwire.Adopt{User: "root", Service: "s", PID: 1}, []*os.File{p.fd, p.fd}},
		{pamwire.Adopt{User: "no such user", Service: "s", PID: 1}, []*os.File{p.fd}},
	} {
		t.Run(fmt.Sprintf("%T", c.r), func(t *testing.T) {
			f := meet(t)
			f.say(c.r, c.files...)
			f.wantFailed()
		})
	}
	begun := func(r pamwire.Request, files ...*os.File) func(t *testing.T) {
		return func(t *testing.T) {
			f := meet(t)
			f.say(pamwire.Begin{Service: "sshd", User: "root", TTY: "ssh"})
			f.want(pamwire.Begun{}) // the name is in sshd's words, not in ours
			f.say(r, files...)
			f.wantFailed()
			if f.pam.last() != "end" {
				t.Errorf("%q", f.pam.called())
			}
		}
	}
	t.Run("a second Begin", begun(pamwire.Begin{Service: "login"}))
	t.Run("a session before the account", begun(pamwire.OpenSession{PID: p.pid()}, p.fd))
	t.Run("Adopt after Begin", begun(pamwire.Adopt{User: "root", Service: "s", PID: p.pid()}, p.fd))
	t.Run("an answer to no question", begun(pamwire.Answer{Data: "x"}))
	t.Run("a packet that is not a request", func(t *testing.T) {
		f := meet(t)
		f.conn.Send(capproto.NewMsg("begin", "service", "login", "user", "root", "extra", "1"))
		f.wantFailed()
	})
}

func TestAnotherVersionIsRefusedAndNotLeftAlone(t *testing.T) {
	for _, c := range []struct {
		first capproto.Msg
		want  pamwire.Event
	}{
		{pamwire.Lookup{User: "root"}.Encode(), pamwire.Failed{Text: "factotum-pam is newer than factotum; restart factotum"}},
		{pamwire.Adopt{User: "root", Service: "s", PID: 1}.Encode(), pamwire.Failed{Text: "factotum-pam is newer than factotum; restart factotum"}},
		{capproto.NewMsg("hello", "version", fmt.Sprint(pamwire.Version+1), "x", "y"), pamwire.Hello{Version: pamwire.Version}},
	} {
		f := begin(t)
		if err := f.conn.Send(c.first); err != nil {
			t.Fatal(err)
		}
		f.want(c.want)
		f.say(pamwire.Begin{Service: "login"}) // it is not heard
		select {
		case err := <-f.done:
			t.Fatalf("it ended before factotum hung up: %v", err)
		default:
		}
		f.conn.Shutdown(unix.SHUT_WR)
		if err := f.end(); err != io.EOF || len(f.pam.called()) != 0 {
			t.Errorf("%v, %q", err, f.pam.called())
		}
	}
}

func TestModulesAskFactotum(t *testing.T) {
	type got struct {
		answer string
		err    error
	}
	for _, c := range []struct {
		name  string
		style pam.Style
		reply func(f *factotum)
		want  got
	}{
		{"echo on", pam.PromptEchoOn, func(f *factotum) { f.say(pamwire.Answer{Data: "a"}) }, got{"a", nil}},
		{"an empty answer", pam.PromptEchoOff, func(f *factotum) { f.say(pamwire.Answer{}) }, got{"", nil}},
		{"no answer", pam.PromptEchoOff, func(f *factotum) { f.say(pamwire.Answer{Fail: true}) }, got{"", pam.ErrConv}},
		{"something else than an answer", pam.PromptEchoOff, func(f *factotum) { f.say(pamwire.CheckAccount{}) }, got{"", pam.ErrConv}},
		{"nonsense", pam.PromptEchoOff, func(f *factotum) { f.conn.Send(capproto.NewMsg("answer")) }, got{"", pam.ErrConv}},
		{"factotum is gone", pam.PromptEchoOff, func(f *factotum) { f.conn.Shutdown(unix.SHUT_WR) }, got{"", pam.ErrConv}},
		{"a message", pam.TextInfo, func(*factotum) {}, got{"", nil}},
		{"an error", pam.ErrorMsg, func(*factotum) {}, got{"", nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := meet(t)
			heard := make(chan got, 1)
			f.pam.on("authenticate", func() error {
				a, err := f.pam.say(c.style, "text\x00")
				heard <- got{a, err}
				return err
			})
			f.say(pamwire.Begin{Service: "login", User: "root"})
			f.hear()
			f.say(pamwire.Authenticate{})
			if p, ok := f.hear().(pamwire.Prompt); !ok || p.Text != "text?" {
				t.Fatalf("%#v", p)
			}
			c.reply(f)
			if g := <-heard; g != c.want {
				t.Errorf("%+v", g)
			}
		})
	}
	t.Run("a binary prompt", func(t *testing.T) {
		f := meet(t)
		f.pam.on("authenticate", func() error { _, err := f.pam.say(pam.BinaryPrompt, ""); return err })
		f.say(pamwire.Begin{Service: "login", User: "root"})
		f.hear()
		f.say(pamwire.Authenticate{})
		f.want(pamwire.Refused{Code: capproto.CodeDenied, Text: "Login incorrect"})
	})
}

func TestAnExpiredPasswordIsChanged(t *testing.T) {
	for _, c := range []struct {
		change error
		want   pamwire.Event
	}{
		{nil, pamwire.AccountValid{User: "root"}},
		{pam.ErrAuthtok, pamwire.Refused{Code: capproto.CodeAccount, Text: pam.ErrAuthtok.Error()}},
	} {
		f := meet(t)
		f.pam.on("account", func() error { return pam.ErrNewAuthtokReqd })
		f.pam.on("change", func() error { return c.change })
		f.say(pamwire.Begin{Service: "login", User: "root"})
		f.hear()
		f.say(pamwire.CheckAccount{})
		f.want(c.want)
		if !slices.Contains(f.pam.called(), fmt.Sprint("change:", int(pam.ChangeExpiredAuthtok))) {
			t.Errorf("%q", f.pam.called())
		}
	}
	// Or it is left for the session.
	f := meet(t)
	f.pam.on("account", func() error { return pam.ErrNewAuthtokReqd })
	f.say(pamwire.Begin{Service: "login", User: "root"})
	f.hear()
	f.say(pamwire.CheckAccount{Later: true})
	f.want(pamwire.AccountValid{User: "root", Expired: true})
	if slices.Contains(f.pam.called(), fmt.Sprint("change:", int(pam.ChangeExpiredAuthtok))) {
		t.Errorf("%q", f.pam.called())
	}
	f.pam.on("account", func() error { return pam.ErrAcctExpired })
	f.say(pamwire.CheckAccount{Later: true})
	f.want(pamwire.Refused{Code: capproto.CodeAccount, Text: pam.ErrAcctExpired.Error()})
}

func TestTheUserIsTheOneThatPAMNames(t *testing.T) {
	f := meet(t)
	f.pam.on("authenticate", func() error { return f.pam.SetItem(pam.User, "root") })
	f.say(pamwire.Begin{Service: "login", User: "alias"})
	f.want(pamwire.Begun{LogName: "UNKNOWN"})
	f.say(pamwire.Authenticate{})
	f.want(pamwire.Proven{User: "root"})
	f.say(pamwire.CheckAccount{})
	f.want(pamwire.AccountValid{User: "root"})
	f.pam.SetItem(pam.User, "no such user")
	f.say(pamwire.CheckAccount{})
	f.want(pamwire.Refused{Code: capproto.CodeDenied, Text: "Login incorrect"})
}

func TestNobodyIsNotAUser(t *testing.T) {
	f := meet(t)
	f.say(pamwire.Begin{Service: "login"})
	f.want(pamwire.Begun{})
	for _, r := range []pamwire.Request{pamwire.Authenticate{}, pamwire.CheckAccount{}} {
		f.say(r)
		f.want(pamwire.Refused{Code: capproto.CodeDenied, Text: "Login incorrect"})
	}
}

// A name that does not exist may be a password.
func TestAMistypedPasswordIsNotRecorded(t *testing.T) {
	const secret = "open-sesame-typed-too-early"
	for _, c := range []struct {
		service, tty, want string
		err                error
	}{
		{"login", "/dev/tty9", "UNKNOWN", pam.ErrAuth}, {"sshd", records.SSHTTY, secret, pam.ErrAuth}, {"login", "", "", pam.ErrAuth},
		{"login", "/dev/tty9", "", pam.ErrConv}, {"login", "/dev/tty9", "", pam.ErrAbort}, // nobody answered
	} {
		f := meet(t)
		f.pam.on("authenticate", func() error { return c.err })
		f.say(pamwire.Begin{Service: c.service, User: secret, TTY: c.tty})
		f.hear()
		f.say(pamwire.Authenticate{})
		f.want(pamwire.Refused{Code: capproto.CodeDenied, Text: "Login incorrect"})
		all := records.Since(f.c.places.Btmp, 0)
		if c.want == "" && len(all) != 0 || c.want != "" && (len(all) != 1 || all[0].User != c.want) {
			t.Errorf("%s %s: %+v, want %q", c.service, c.tty, all, c.want)
		}
	}
}

func TestLookup(t *testing.T) {
	f := meet(t)
	f.say(pamwire.Lookup{User: "root"})
	if a, ok := f.hear().(pamwire.Account); !ok || a.UID != 0 || a.GID != 0 || a.Home == "" || !slices.Contains(a.Groups, "root") || a.GroupsErr != "" || a.Host != "" {
		t.Errorf("%+v", a)
	}
	f.say(pamwire.Lookup{User: "no such user"})
	f.want(pamwire.NoUser{})
	// It stays the one that was found.
	f.say(pamwire.KeyQuery{Key: []byte("not a key"), Settings: "{}", Addr: netip.MustParseAddr("::1"), Ends: "x"})
	f.wantFailed()
}

// The real libpam, whose modules are named by a directory of our own.
func TestTheRealPAM(t *testing.T) {
	dir := t.TempDir()
	for service, lines := range map[string]string{
		"permit": "auth required pam_permit.so\naccount required pam_permit.so\n",
		"deny":   "auth required pam_deny.so\naccount required pam_deny.so\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, service), []byte(lines), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for service, want := range map[string]pamwire.Event{
		"permit": pamwire.Proven{User: "root"}, "deny": pamwire.Refused{Code: capproto.CodeDenied, Text: "Login incorrect"},
	} {
		f := meet(t, func(c *Conversation) { c.start = start })
		f.say(pamwire.Begin{Service: service, User: "root", TTY: "ssh", RHost: "192.0.2.1", ConfDir: dir, Env: []string{"A=1"}})
		f.want(pamwire.Begun{})
		f.say(pamwire.Authenticate{})
		f.want(want)
	}
}

// FuzzRun: whatever comes from the socket, the worker answers or ends; it opens no
// session for a user whose account was not checked.
func FuzzRun(f *testing.F) {
	f.Add("begin service=login user=root\nauthenticate\naccount\n")
	f.Add("lookup user=root\nkey key=AA== settings={} addr=::1 ends=x\n")
	f.Add("answer data=x\nclosed\n")
	f.Fuzz(func(t *testing.T, text string) {
		w := meet(t)
		lines := 0
		for line := range strings.Lines(text) {
			m, err := capproto.DecodeMsg([]byte(strings.TrimSuffix(line, "\n")))
			if err != nil || m.Verb == "lookup" && m.Get("addr") != "" { // no question to DNS
				continue
			}
			if w.conn.Send(m) != nil {
				break
			}
			if lines++; lines == 20 {
				break
			}
		}
		w.conn.Shutdown(unix.SHUT_WR)
		for w.hear() != nil {
		}
		<-w.done
		w.done <- nil
		if n := len(w.pam.called()); n > 0 && w.pam.called()[n-1] != "end" || slices.ContainsFunc(w.pam.called(), func(c string) bool { return strings.HasPrefix(c, "open") }) {
			t.Errorf("%q", w.pam.called())
		}
	})
}

func TestAPasswordIsChangedInTheWordsOfPAM(t *testing.T) {
	f, name := meet(t), self(t)
	f.say(pamwire.Begin{Service: "passwd", User: name})
	f.want(pamwire.Begun{LogName: name})
	f.pam.on("change", func() error {
		answer, err := f.pam.say(pam.PromptEchoOff, "Current password: ")
		if err == nil && answer != "open-sesame" {
			err = pam.ErrAuthtok
		}
		return err
	})
	for _, c := range []struct {
		answer pamwire.Answer
		want   pamwire.Event
	}{
		{pamwire.Answer{Data: "wrong"}, pamwire.Refused{Code: capproto.CodeDenied, Text: pam.ErrAuthtok.Error()}},
		{pamwire.Answer{Fail: true}, pamwire.Refused{Code: capproto.CodeDenied, Text: pam.ErrConv.Error()}},
		{pamwire.Answer{Data: "open-sesame"}, pamwire.Changed{}},
	} {
		f.say(pamwire.ChangePassword{Expired: true, Quiet: true})
		f.want(pamwire.Prompt{Style: capproto.EchoOff, Text: "Current password: "})
		f.say(c.answer)
		f.want(c.want)
	}
	if last := f.pam.last(); last != fmt.Sprint("change:", int(pam.ChangeExpiredAuthtok|pam.Silent)) {
		t.Errorf("PAM was called with %s", last)
	}
}

func TestAPasswordIsChangedOnlyInATransaction(t *testing.T) {
	f := meet(t)
	f.say(pamwire.ChangePassword{})
	f.wantFailed()
}

func TestNobodyHasNoPasswordStatus(t *testing.T) {
	f := meet(t)
	f.say(pamwire.PasswordStatus{User: "nosuchuser"})
	f.want(pamwire.Refused{Code: capproto.CodeDenied, Text: "there is no such user"})
}
