package daemon

import (
	"fmt"
	"strings"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
	"p9auth/internal/becomerecord"
	"p9auth/internal/loginshell"
)

// A pamProto proves a user by what a PAM module asks, as login does.
type pamProto struct {
	*conversation
	attempts     int      // PAM transactions that were started
	accountAsked bool     // the user is proven, and PAM is asked about the account
	passed       []string // variables for the shell, NAME=VALUE, that the front end passes on
}

// start begins a PAM transaction, and has PAM ask for its proof.
func (l *pamProto) start(p capproto.Packet) (capproto.Msg, error) {
	if l.attempts >= l.gen.conf.MaxAuthTries {
		return capproto.Msg{}, &capproto.Error{Code: capproto.CodeLimit, Text: "too many attempts"}
	}
	l.attempts++
	l.userInLog = ""
	user := p.Get("user")
	if !possibleName(user) {
		return capproto.Msg{}, violation("impossible user name")
	}
	preauth, err := l.preauth(p, user)
	if err != nil {
		return capproto.Msg{}, err
	}
	b := pamwire.Begin{Service: l.binding.Service, User: user}
	// login -h says where a call came from; only a login that root started
	// (telnetd and the like) is believed.
	if host := p.Get("host"); host != "" && l.peer.Uid == 0 && len(host) <= 1024 {
		b.RHost, l.rhost = host, host
	}
	l.setTTY(nil)
	if len(p.FDs) > 0 {
		t, err := checkTTY(p.FDs[0], int(p.Cred.Pid), p.Cred.Uid)
		if err != nil {
			return capproto.Msg{}, violation("%v", err)
		}
		l.setTTY(t)
		b.TTY, b.Take = "/dev/"+t.name, !t.byHand
	}
	if err := l.mayGuess(); err != nil {
		return capproto.Msg{}, err
	}
	if err := l.startWorker(); err != nil {
		return capproto.Msg{}, err
	}
	if err := l.begin(b); err != nil {
		return capproto.Msg{}, err
	}
	var next pamwire.Request = pamwire.Authenticate{}
	if preauth {
		next = pamwire.CheckAccount{}
	}
	l.accountAsked = preauth
	if err := l.tell(next); err != nil {
		return capproto.Msg{}, err
	}
	l.state = talking
	return capproto.NewMsg(capproto.VerbOK), nil
}

// preauth reports whether the password is skipped (login -f). Only root may ask
// for that, as the first thing: a front end that has had time to read something
// is not believed any more, even if root has started it.
func (l *pamProto) preauth(p capproto.Packet, user string) (bool, error) {
	v, asked := p.Lookup("preauth")
	switch {
	case !asked:
		return false, nil
	case v != "yes":
		return false, violation("preauth=%.40s", v)
	case l.peer.Uid == 0 && l.earliest(l.asked[capproto.VerbEnviron]) && user != "":
		return true, nil
	}
	reason := "preauth without root"
	if l.peer.Uid == 0 && l.count > 1 {
		reason = "preauth is not the first request"
	}
	l.log.Event(status.Refused, "user", user, "reason", reason)
	return false, &capproto.Error{Code: capproto.CodeDenied, Text: "only root may log in a user without a password"}
}

// answer passes on what was typed.
func (l *pamProto) answer(typed string) string { return typed }

// heard judges PAM's verdict on the proof, and then on the account.
func (l *pamProto) heard(e pamwire.Event) (*capproto.Msg, error) {
	switch e := e.(type) {
	case pamwire.Proven:
		if l.accountAsked {
			return nil, l.unexpected(e)
		}
		l.accountAsked = true
		return nil, l.tell(pamwire.CheckAccount{})
	case pamwire.AccountValid:
		if !l.accountAsked {
			return nil, l.unexpected(e)
		}
		return l.accepted(e, "rhost", l.rhost, "tty", l.ttyName()), nil
	case pamwire.Refused:
		if e.Code == capproto.CodeDenied {
			l.guessedWrong()
		}
		l.log.Event(status.Refused, "user", l.userInLog, "reason", e.Text, "code", e.Code, "rhost", l.rhost, "tty", l.ttyName(), "attempt", l.attempts)
		l.dropWorker()
		l.state, l.user = idle, nil // the front end can start again
		return nil, &capproto.Error{Code: e.Code, Text: e.Text}
	}
	return nil, l.unexpected(e)
}

// earliest says whether this is the first request, or the second, after environ: a
// front end has sent it before it could read a byte from anybody.
func (l *pamProto) earliest(afterEnv bool) bool { return l.count == 1 || afterEnv && l.count == 2 }

// passOn takes variables for the shell: all that root has started the front end
// with (login -p), since they come before the front end can read a byte, and
// otherwise those alone that are harmless to whoever's shell gets them.
func (l *pamProto) passOn(p capproto.Packet) (capproto.Msg, error) {
	l.passed = p.All("env")
	if len(l.passed) > capproto.MaxEnv {
		return capproto.Msg{}, violation("environ of %d variables", len(l.passed))
	}
	byRoot := l.peer.Uid == 0 && l.earliest(false)
	for _, kv := range l.passed {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return capproto.Msg{}, violation("environ without a name and a value")
		}
		if !byRoot && !loginshell.MayPass(name, value) {
			return capproto.Msg{}, violation("environ with %.40q, which is root's to pass on", name)
		}
	}
	return capproto.NewMsg(capproto.VerbOK), nil
}

// environment is the shell's: what the front end passes on, what the worker makes
// of login.defs(5), and PAM's.
func (l *pamProto) environment(o *pamwire.Opened) []string {
	return loginshell.Merge([]string{"TERM=dumb"}, l.passed, o.Login, o.Env)
}

// describe has nothing to add.
func (l *pamProto) describe() []capproto.Attr { return nil }

// bound binds the login to the user's shell, at the terminal that was taken for it.
func (l *pamProto) bound(o *pamwire.Opened, _ uint32, _ string) (*becomerecord.Bound, error) {
	path, argv := loginshell.Command(o.Shell)
	if !strings.HasPrefix(path, "/") {
		return nil, &capproto.Error{Code: capproto.CodeAccount, Text: fmt.Sprintf("your shell %q is not an absolute path", path)}
	}
	b := bind(o, l.worker.PID())
	b.Path, b.Argv, b.Env, b.Dir, b.FDs = path, argv, l.environment(o), o.Home, []uint32{0, 1, 2}
	if o.NoHome != "" || !strings.HasPrefix(o.Home, "/") {
		b.Dir = "/"
	}
	if l.tty != nil && !l.tty.byHand {
		b.TTY = &l.tty.file
	}
	return b, nil
}

func (l *pamProto) end() {}

// accepted is the end of a proof: PAM has nothing against the account. from are the
// attributes of the log line that say where the person is.
func (c *conversation) accepted(e pamwire.AccountValid, from ...any) *capproto.Msg {
	c.user = &person{name: e.User, uid: e.UID}
	c.startup.leave()
	c.state = proven
	c.log.Event(status.Authenticated, append([]any{"user", c.user.name}, from...)...)
	m := capproto.NewMsg(capproto.VerbDone)
	return &m
}
