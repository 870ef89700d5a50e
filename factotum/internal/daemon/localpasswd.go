package daemon

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
	"p9auth/internal/becomerecord"
)

// A passwordProto is what passwd and unix_chkpwd have in common: they are about the
// caller's own password, or with root as the caller about anybody's. There is no
// session, and no capability.
type passwordProto struct{ localProto }

func (l *passwordProto) describe() []capproto.Attr            { return nil }
func (l *passwordProto) environment(*pamwire.Opened) []string { return nil }
func (l *passwordProto) bound(*pamwire.Opened, uint32, string) (*becomerecord.Bound, error) {
	return nil, nil
}

// mayAsk has the worker look the user up, and refuses what is about others. Who the
// users are, anybody may know (getent passwd).
func (l *passwordProto) mayAsk(user string, caller uint32) error {
	if err := l.tell(pamwire.Lookup{User: user}); err != nil {
		return err
	}
	e, err := l.await()
	if err != nil {
		return err
	}
	text := ""
	switch e := e.(type) {
	case pamwire.NoUser:
		text = fmt.Sprintf("user '%s' does not exist", user)
	case pamwire.Account:
		if caller == 0 || e.UID == caller {
			return nil
		}
		text = fmt.Sprintf("You may not view or modify password information for %s.", user)
	default:
		return l.unexpected(e)
	}
	l.spoiled(capproto.CodeLimit).Event(status.Refused, "user", user, "reason", text)
	return &fatal{&capproto.Error{Code: capproto.CodeDenied, Text: text}}
}

// answered ends what the conversation was for.
func (l *passwordProto) answered() {
	l.dropWorker()
	l.state = answered
}

// A passwdProto is passwd(1): PAM changes the password, and asks for the old one
// unless root calls. Or it is passwd -S.
type passwdProto struct{ passwordProto }

func (l *passwdProto) start(p capproto.Packet) (capproto.Msg, error) {
	user, caller := p.Get("user"), p.Cred.Uid
	if err := p.Only("proto", "version", "user", "status", "expired", "quiet"); err != nil || !possibleName(user) {
		return capproto.Msg{}, violation("start of passwd: an attribute or the user name is impossible")
	}
	var asked [3]bool
	for i, name := range []string{"status", "expired", "quiet"} {
		v, ok := p.Lookup(name)
		if ok && v != "yes" {
			return capproto.Msg{}, violation("%s=%.40s", name, v)
		}
		asked[i] = ok
	}
	if err := l.startWorker(); err != nil {
		return capproto.Msg{}, err
	}
	if user != "" {
		if err := l.mayAsk(user, caller); err != nil {
			return capproto.Msg{}, err
		}
	}
	// Without a name it is the caller's own account, which the worker finds.
	if err := l.beginIn(l.binding.Service, user, p.Cred); err != nil {
		return capproto.Msg{}, err
	}
	if asked[0] {
		return l.passwordStatus()
	}
	if err := l.tell(pamwire.ChangePassword{Expired: asked[1], Quiet: asked[2]}); err != nil {
		return capproto.Msg{}, err
	}
	l.state = talking
	return capproto.NewMsg(capproto.VerbOK), nil
}

// passwordStatus answers passwd -S.
func (l *passwdProto) passwordStatus() (capproto.Msg, error) {
	if err := l.tell(pamwire.PasswordStatus{User: l.userInLog}); err != nil {
		return capproto.Msg{}, err
	}
	e, err := l.await()
	if err != nil {
		return capproto.Msg{}, err
	}
	switch e := e.(type) {
	case pamwire.Status:
		l.answered()
		return capproto.NewMsg(capproto.VerbOK, "line", e.Line), nil
	case pamwire.Refused:
		return capproto.Msg{}, &fatal{&capproto.Error{Code: e.Code, Text: e.Text}}
	}
	return capproto.Msg{}, l.unexpected(e)
}

// heard judges what the worker says of the change.
func (l *passwdProto) heard(e pamwire.Event) (*capproto.Msg, error) {
	switch e := e.(type) {
	case pamwire.Changed:
		l.log.Info("password changed", "user", l.userInLog)
		l.answered()
		m := capproto.NewMsg(capproto.VerbDone)
		return &m, nil
	case pamwire.Refused:
		l.log.Event(status.Refused, "user", l.userInLog, "reason", e.Text, "code", e.Code)
		return nil, &fatal{&capproto.Error{Code: e.Code, Text: e.Text}}
	}
	return nil, l.unexpected(e)
}

// A chkpwdProto is unix_chkpwd(8): the system's own one says whether a password is
// right, or whether it has expired.
type chkpwdProto struct{ passwordProto }

var chkpwdOptions = []string{"nullok", "nonull", "chkexpiry"}

func (l *chkpwdProto) start(p capproto.Packet) (capproto.Msg, error) {
	c := pamwire.CheckPassword{User: p.Get("user"), Option: p.Get("option"), Password: p.Get("password")}
	if err := p.Only("proto", "version", "user", "option", "password"); err != nil || c.User == "" || !possibleName(c.User) {
		return capproto.Msg{}, violation("start of chkpwd: an attribute or the user name is impossible")
	}
	guess := c.Option != "chkexpiry"
	if !slices.Contains(chkpwdOptions, c.Option) || !guess && c.Password != "" {
		return capproto.Msg{}, violation("option=%.40s", c.Option)
	}
	if guess {
		// One guess at a time of each caller, before it costs a worker.
		if err := l.takeTurn(); err != nil {
			return capproto.Msg{}, err
		}
	}
	if err := l.startWorker(); err != nil {
		return capproto.Msg{}, err
	}
	if err := l.mayAsk(c.User, p.Cred.Uid); err != nil {
		return capproto.Msg{}, err
	}
	if err := l.tell(c); err != nil {
		return capproto.Msg{}, err
	}
	e, err := l.await()
	if err != nil {
		return capproto.Msg{}, err
	}
	v, ok := e.(pamwire.Checked)
	if !ok {
		return capproto.Msg{}, l.unexpected(e)
	}
	if guess {
		l.verdict(c.User, v.Status)
	}
	l.answered()
	m := capproto.NewMsg(capproto.VerbOK, "status", strconv.Itoa(v.Status))
	if v.Output != "" {
		m.Add("output", v.Output)
	}
	return m, nil
}

// verdict ends the turn of a guess. Who was wrong hears that at once, as of the system's
// own program, whose caller waits by itself; but the next guess has to wait.
func (l *chkpwdProto) verdict(user string, exit int) {
	wait := time.Duration(0)
	if exit != 0 {
		wait = failDelay()
		l.log.Event(status.Refused, "user", user, "reason", "wrong password", "status", exit)
	}
	l.turn.end(wait)
	l.turn = nil
}

// heard is not called: the verdict is the answer to start.
func (l *chkpwdProto) heard(e pamwire.Event) (*capproto.Msg, error) { return nil, l.unexpected(e) }
