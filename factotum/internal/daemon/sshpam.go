package daemon

import (
	"fmt"
	"log/slog"
	"strings"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/sshauth"
	"p9auth/factotum/internal/status"
	"p9auth/internal/sockets"
	"p9auth/internal/words"
)

// What an SSH login has of PAM: the proofs that PAM judges, and its account
// stage, which each login passes. And the verdicts on proofs of all kinds.

var byInteractive = sshauth.Detail{Method: "keyboard-interactive/pam"}

// dropPAM ends PAM's transaction: pam_setcred(3) of one in which somebody
// failed would fail too, whatever has proven the user since.
func (l *sshProto) dropPAM() {
	l.dropWorker()
	l.begun, l.accountAsked = false, false
}

// needPAM makes sure that there is a worker, and that PAM has begun.
func (l *sshProto) needPAM() error {
	if err := l.needWorker(); err != nil {
		return err
	}
	if l.begun {
		return nil
	}
	l.begun = true
	return l.begin(pamwire.Begin{
		Service: l.binding.Service, User: l.pamName(), RHost: l.host, TTY: "ssh", LastLog: l.conf.PrintLastLog,
		Env: []string{fmt.Sprintf("SSH_CONNECTION=%s %d %s %d", sockets.Host(l.remote.Addr()), l.remote.Port(), sockets.Host(l.local.Addr()), l.local.Port())},
	})
}

// authenticate has PAM ask for its proof.
func (l *sshProto) authenticate() error {
	if err := l.mayGuess(); err != nil {
		return err
	}
	if err := l.needPAM(); err != nil {
		return err
	}
	return l.tell(pamwire.Authenticate{NoEmpty: !l.conf.PermitEmptyPasswords})
}

// heard judges what PAM says during keyboard-interactive.
func (l *sshProto) heard(e pamwire.Event) (*capproto.Msg, error) {
	var m capproto.Msg
	var err error
	switch e := e.(type) {
	case pamwire.Proven:
		if l.accountAsked {
			return nil, l.unexpected(e)
		}
		m, err = l.succeeded(sshauth.Interactive, byInteractive)
	case pamwire.AccountValid:
		m, err = l.admit(e)
	case pamwire.Refused:
		m, err = l.refused(sshauth.Interactive, byInteractive, e)
	default:
		err = l.unexpected(e)
	}
	return &m, err
}

// password answers PAM's question with the password that the client sent, as
// sshd does.
func (l *sshProto) password(password string) (capproto.Msg, error) {
	if l.noPassword() || password == "" && !l.conf.PermitEmptyPasswords {
		password = wrongPassword
	}
	if err := l.authenticate(); err != nil {
		return capproto.Msg{}, err
	}
	byPassword := sshauth.Detail{Method: sshauth.Password}
	for {
		e, err := l.await()
		if err != nil {
			return capproto.Msg{}, err
		}
		switch e := e.(type) {
		case pamwire.Prompt:
			answer := pamwire.Answer{Data: password}
			switch e.Style {
			case capproto.EchoOn:
				answer = pamwire.Answer{Fail: true}
			case capproto.EchoOff:
			default:
				l.message(e.Text)
				continue
			}
			if err := l.tell(answer); err != nil {
				return capproto.Msg{}, err
			}
		case pamwire.Proven:
			return l.succeeded(sshauth.Password, byPassword)
		case pamwire.Refused:
			return l.refused(sshauth.Password, byPassword, e)
		default:
			return capproto.Msg{}, l.unexpected(e)
		}
	}
}

// succeeded takes a proof for good: another one may be wanted, and then PAM's
// account stage has its say.
func (l *sshProto) succeeded(method string, d sshauth.Detail) (capproto.Msg, error) {
	if l.barred || !l.valid {
		return l.failed(d)
	}
	if l.isRoot() && !sshauth.RootMay(l.conf.PermitRootLogin, method, l.keyOptions) {
		l.sshlog(slog.LevelInfo, "ROOT LOGIN REFUSED FROM %s", sockets.HostPort(l.remote))
		return l.failed(d)
	}
	if method != sshauth.PublicKey && method != sshauth.GSSAPI { // which have added theirs
		l.proofs = append(l.proofs, d.Method)
	}
	if !l.methods.Complete(method) {
		l.sshlog(slog.LevelInfo, "Partial %s for %s %s ssh2%s", d.Method, l.visName(), l.from(), d.Key)
		l.state = offering
		return capproto.NewMsg(capproto.VerbMore, "methods", joinMethods(l.methods.Next())), nil
	}
	l.accepted = d
	return l.checkAccount()
}

// failed counts and logs a proof that was not good.
func (l *sshProto) failed(d sshauth.Detail) (capproto.Msg, error) {
	l.failures++
	if l.state&(talking|accepting) != 0 {
		l.state = offering
	}
	line := fmt.Sprintf("Failed %s for %s%s %s ssh2%s", d.Method, l.invalidUser(), l.visName(), l.from(), d.Key)
	switch {
	case l.valid && d.Method != sshauth.Password && l.failures < l.conf.MaxAuthTries/2:
		l.sshlog(slog.LevelDebug, "%s", line)
	case d.Method == sshauth.Password || d.Method == sshauth.PublicKey || d.Method == sshauth.GSSAPI:
		l.sshevent(status.Refused, slog.LevelInfo, "%s", line)
	default: // keyboard-interactive has its own line, and none proves nothing
		l.sshlog(slog.LevelInfo, "%s", line)
	}
	if l.failures >= l.conf.MaxAuthTries {
		l.sshlog(slog.LevelError, "error: maximum authentication attempts exceeded for %s%s %s ssh2", l.invalidUser(), l.visName(), l.from())
		return capproto.Msg{}, &capproto.Error{Code: capproto.CodeLimit, Text: "Too many authentication failures", Methods: []string{}}
	}
	return capproto.Msg{}, l.denied()
}

// denied is the error of a proof that was not good. It says what may be tried.
func (l *sshProto) denied() error {
	return &capproto.Error{Code: capproto.CodeDenied, Text: "Permission denied", Methods: l.methods.Next()}
}

// refused passes on PAM's no.
func (l *sshProto) refused(method string, d sshauth.Detail, r pamwire.Refused) (capproto.Msg, error) {
	if r.Code != capproto.CodeDenied || l.accountAsked {
		return capproto.Msg{}, l.accountRefused(r.Text)
	}
	l.dropPAM()
	l.guessedWrong()
	if method == sshauth.Interactive {
		// For a valid user, sshd logs it in these words alone.
		illegal := ""
		if !l.valid {
			illegal = "illegal user "
		}
		l.sshevent(status.Refused, slog.LevelError, "error: PAM: Authentication failure for %s%s from %s", illegal, l.visName(), sockets.Host(l.remote.Addr()))
	}
	return l.failed(d)
}

// checkAccount has PAM say whether the account may log in now. As with sshd, a
// password that has expired is changed by keyboard-interactive if we are in that, and
// otherwise in the session, where modules have nobody to ask yet.
func (l *sshProto) checkAccount() (capproto.Msg, error) {
	if err := l.needPAM(); err != nil {
		return capproto.Msg{}, err
	}
	l.accountAsked = true
	if err := l.delegate(); err != nil {
		return capproto.Msg{}, err
	}
	if err := l.tell(pamwire.CheckAccount{Later: l.state != talking}); err != nil {
		return capproto.Msg{}, err
	}
	for {
		e, err := l.await()
		if err != nil {
			return capproto.Msg{}, err
		}
		switch e := e.(type) {
		case pamwire.Prompt:
			if l.state == talking {
				return *l.prompt(e), nil
			}
			if !e.Style.Question() {
				l.message(e.Text)
			} else if err := l.tell(pamwire.Answer{Fail: true}); err != nil {
				return capproto.Msg{}, err
			}
		case pamwire.AccountValid:
			return l.admit(e)
		case pamwire.Refused:
			return capproto.Msg{}, l.accountRefused(e.Text)
		default:
			return capproto.Msg{}, l.unexpected(e)
		}
	}
}

// accountRefused is the end: PAM's account stage said no.
func (l *sshProto) accountRefused(text string) error {
	l.sshdHas(status.Refused, slog.LevelError, fmt.Sprintf("fatal: Access denied for user %s by PAM account configuration", l.visName()),
		"user", l.userInLog, "reason", text, "code", capproto.CodeAccount, "rhost", l.host)
	if l.accepted.Method == sshauth.Password {
		l.sshlog(slog.LevelInfo, "Failed password for %s %s ssh2", l.visName(), l.from())
	}
	if len(l.messages) == 0 {
		l.message(text)
	}
	return &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: strings.Join(l.messages, "\n")}}
}

// admit ends authentication: the user is proven.
func (l *sshProto) admit(v pamwire.AccountValid) (capproto.Msg, error) {
	if !l.accountAsked {
		return capproto.Msg{}, l.unexpected(v)
	}
	if l.barred || !l.valid || l.account == nil || v.User != l.account.Name || v.UID != l.account.UID || len(l.methods.Done()) == 0 {
		l.sshlog(slog.LevelError, "fatal: PAM user %s is not the user %s who was authenticated", words.Vis(v.User), l.visName())
		return capproto.Msg{}, &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: "a PAM module changed the user's name to another account's, which SSH logins do not allow; the administrator must change the PAM configuration"}}
	}
	l.user = &person{name: l.account.Name, uid: l.account.UID, root: l.conf.ChrootDirectory, ptys: l.terminals(), restricted: restricts(l.conf, l.keyOptions)}
	if l.expired = v.Expired; l.expired {
		l.user.restricted = "an expired password"
	}
	l.state = admitted
	l.startup.leave()
	l.sshdHas(status.Authenticated, slog.LevelInfo, fmt.Sprintf("Accepted %s for %s %s ssh2%s", l.accepted.Method, l.visName(), l.from(), l.accepted.Key),
		"user", l.user.name, "rhost", l.host, "methods", joinMethods(l.methods.Done()))
	m := capproto.NewMsg(capproto.VerbDone)
	for _, t := range l.messages { // sshd shows them here, too: auth2.c, userauth_finish
		m.Add("message", t)
	}
	return m, nil
}
