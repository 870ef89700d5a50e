package daemon

import (
	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
	"p9auth/internal/becomerecord"
)

// A pamProto proves a user by what a PAM module asks, as login does.
type pamProto struct {
	*conversation
	attempts     int  // PAM transactions that were started
	accountAsked bool // the user is proven, and PAM is asked about the account
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
		t, err := checkTTY(p.FDs[0], int(p.Cred.Pid))
		if err != nil {
			return capproto.Msg{}, violation("%v", err)
		}
		l.setTTY(t)
		b.TTY = t.name
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
	case l.peer.Uid == 0 && l.count == 1 && user != "":
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
		l.user = &person{name: e.User, uid: e.UID}
		l.state = proven
		l.log.Event(status.Authenticated, "user", l.user.name, "rhost", l.rhost, "tty", l.ttyName())
		m := capproto.NewMsg(capproto.VerbDone)
		return &m, nil
	case pamwire.Refused:
		l.log.Event(status.Refused, "user", l.userInLog, "reason", e.Text, "code", e.Code, "rhost", l.rhost, "tty", l.ttyName(), "attempt", l.attempts)
		l.dropWorker()
		l.state, l.user = idle, nil // the front end can start again
		return nil, &capproto.Error{Code: e.Code, Text: e.Text}
	}
	return nil, l.unexpected(e)
}

// describe has nothing to add.
func (l *pamProto) describe() []capproto.Attr { return nil }

// bound binds nothing: what is executed is still login's choice.
func (l *pamProto) bound(*pamwire.Opened, uint32, string) (*becomerecord.Bound, error) {
	return nil, nil
}

func (l *pamProto) end() {}
