package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/sshauth"
	"p9auth/internal/words"
)

// The proof by GSSAPI (RFC 4462, section 3; gssapi-with-mic): the client establishes a
// security context with this host's Kerberos keys, and then makes a MIC in it over this
// session's id. An acceptor takes the tokens, which strangers have made: a process that
// has the host's keys and no other right. It says which principal the client is; the PAM
// worker says whether that may be the user.

// acceptTime is how long an acceptor may take for an answer. It waits for nobody.
const acceptTime = 10 * time.Second

// A gssContext is a security context.
type gssContext struct {
	acceptor    Worker
	token       []byte // pieces of the next one
	tokens      int
	established bool
}

// beginContext starts an acceptor, also for a user who does not exist or may not log in:
// how far the client comes must not tell.
func (l *sshProto) beginContext() (capproto.Msg, error) {
	if err := l.startUp(); err != nil {
		return capproto.Msg{}, err
	}
	w, err := l.acceptor(l.gen.conf, l.log, l.context, l.conf.GSSAPIStrictAcceptorCheck)
	if err != nil {
		return l.noContext("", err)
	}
	l.gss = &gssContext{acceptor: w}
	l.state = accepting
	return capproto.NewMsg(capproto.VerbOK), nil
}

// dropContext ends the acceptor.
func (l *sshProto) dropContext() {
	if l.gss == nil {
		return
	}
	w := l.gss.acceptor
	l.gss = nil
	w.Abandon()
	l.leaving.Go(func() { discard(w.Events()) })
}

// giveUpContext ends gssapi-with-mic: the client offers another proof before it has
// established the context. As with sshd that is no failed attempt, but acceptors are not
// to be had without end: it is one after MaxAuthTries of them.
func (l *sshProto) giveUpContext() error {
	l.dropContext()
	if l.givenUp++; l.givenUp <= l.conf.MaxAuthTries {
		l.state = offering
		return nil
	}
	if _, err := l.failed(sshauth.Detail{Method: sshauth.GSSAPI}); capproto.CodeOf(err) == capproto.CodeLimit {
		return err
	}
	return nil
}

// noContext refuses the proof, and says why in the log.
func (l *sshProto) noContext(principal string, err error) (capproto.Msg, error) {
	l.dropContext()
	l.log.Warn("gssapi-with-mic refused", "user", l.userInLog, "rhost", l.host, "principal", words.Vis(principal), "reason", words.Vis(err.Error()))
	return l.failed(sshauth.Detail{Method: sshauth.GSSAPI})
}

// askAcceptor asks the acceptor. The error is why the proof is refused, unless it is one
// that ends the conversation.
func (l *sshProto) askAcceptor(r pamwire.Request) (pamwire.Event, error) {
	if err := l.gss.acceptor.Tell(r); err != nil {
		return nil, err
	}
	timeout := time.NewTimer(acceptTime)
	defer timeout.Stop()
	select {
	case e, ok := <-l.gss.acceptor.Events():
		if !ok {
			return nil, errors.New("the acceptor has ended")
		}
		if no, ok := e.(pamwire.Refused); ok {
			return nil, no
		}
		return e, nil
	case <-timeout.C:
		return nil, errors.New("the acceptor does not answer")
	case <-l.grace.C:
		return nil, &fatal{errGrace}
	case err := <-l.gone:
		return nil, &left{err}
	}
}

// A left says that the front end has gone.
type left struct{ err error }

func (l *left) Error() string { return l.err.Error() }
func (l *left) Unwrap() error { return l.err }

// ends reports whether an error of askAcceptor ends the conversation.
func ends(err error) bool {
	return errors.As(err, new(*fatal)) || errors.As(err, new(*left))
}

// gssToken passes the client's next token to the acceptor, once all its pieces are there.
func (l *sshProto) gssToken(p capproto.Packet) (capproto.Msg, error) {
	piece, err := capproto.UnB64(p.Get("data"))
	more, split := p.Lookup("more")
	switch {
	case err != nil:
		return capproto.Msg{}, violation("token: %v", err)
	case split && more != "yes":
		return capproto.Msg{}, violation("token: more=%.40s, not yes", more)
	case l.gss.established:
		return capproto.Msg{}, violation("token: the security context is established")
	case len(l.gss.token)+len(piece) > pamwire.MaxToken:
		return l.noContext("", fmt.Errorf("a token of more than %d bytes", pamwire.MaxToken))
	case split && len(piece) == 0:
		return capproto.Msg{}, violation("token: an empty piece")
	}
	l.gss.token = append(l.gss.token, piece...)
	if split {
		return capproto.NewMsg(capproto.VerbOK), nil
	}
	token := l.gss.token
	l.gss.token = nil
	if l.gss.tokens++; l.gss.tokens > pamwire.MaxTokens || len(token) == 0 {
		return l.noContext("", errors.New("an empty token, or too many of them"))
	}
	e, err := l.askAcceptor(pamwire.GSSToken{Token: token})
	if ends(err) {
		return capproto.Msg{}, err
	}
	c, ok := e.(pamwire.GSSContinue)
	if err == nil && !ok {
		err = fmt.Errorf("the acceptor says %T", e)
	}
	if err != nil {
		return l.noContext("", err)
	}
	l.gss.established = c.Done
	m := capproto.NewMsg(capproto.VerbOK, "data", capproto.B64(c.Token))
	if c.Done {
		m.Add("complete", "yes")
	}
	return m, nil
}

// gssMIC judges the MIC. A refusal takes at least the time that the user's name says.
func (l *sshProto) gssMIC(p capproto.Packet) (capproto.Msg, error) {
	mic, err := capproto.UnB64(p.Get("data"))
	switch {
	case err != nil:
		return capproto.Msg{}, violation("mic: %v", err)
	case !l.gss.established:
		return capproto.Msg{}, violation("mic: there is no security context")
	}
	return l.slowly(func() (capproto.Msg, error) { return l.judgeMIC(mic) })
}

// judgeMIC has the acceptor check the MIC over what factotum puts together itself, and the
// PAM worker whether the principal may be the user.
func (l *sshProto) judgeMIC(mic []byte) (capproto.Msg, error) {
	if len(mic) == 0 {
		return l.noContext("", errors.New("an empty MIC"))
	}
	e, err := l.askAcceptor(pamwire.GSSMIC{Message: sshauth.MICMessage(l.sessionID, l.signedName), MIC: mic})
	if ends(err) {
		return capproto.Msg{}, err
	}
	proven, ok := e.(pamwire.GSSProven)
	if err == nil && !ok {
		err = fmt.Errorf("the acceptor says %T", e)
	}
	if err == nil {
		err = plainPrincipal(proven.Principal)
	}
	if err != nil {
		return l.noContext(proven.Principal, err)
	}
	l.dropContext()
	l.state = offering
	if l.barred || !l.valid {
		return l.noContext(proven.Principal, errors.New("the user does not exist, or may not log in"))
	}
	return l.judgePrincipal(proven)
}

// judgePrincipal takes the proof of a principal who may be the user.
func (l *sshProto) judgePrincipal(proven pamwire.GSSProven) (capproto.Msg, error) {
	if err := l.needWorker(); err != nil {
		return capproto.Msg{}, err
	}
	if err := l.tell(pamwire.KerberosUser{Principal: proven.Principal, User: l.pamName()}); err != nil {
		return capproto.Msg{}, err
	}
	e, err := l.await()
	if err != nil {
		return capproto.Msg{}, err
	}
	j, ok := e.(pamwire.PrincipalJudged)
	if !ok {
		return capproto.Msg{}, l.unexpected(e)
	}
	if !j.Allowed {
		return l.noContext(proven.Principal, errors.New(j.Why))
	}
	l.sshlog(slog.LevelInfo, "Authorized to %s, krb5 principal %s (krb5_kuserok)", l.visName(), words.Vis(proven.Principal))
	l.proofs = append(l.proofs, sshauth.GSSAPI+" "+proven.Principal)
	if l.conf.GSSAPIDelegateCredentials {
		l.delegated = proven.Cache
	}
	return l.succeeded(sshauth.GSSAPI, sshauth.Detail{Method: sshauth.GSSAPI, Key: ": " + words.Vis(proven.Principal)})
}

// plainPrincipal checks what an acceptor says of a principal, which goes into the session's
// file of ExposeAuthInfo: krb5_unparse_name(3) escapes the ends of lines and NULs.
func plainPrincipal(p string) error {
	if p == "" || !utf8.ValidString(p) || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("the principal's name is not a text")
	}
	return nil
}

// delegate hands what the client has delegated to the worker that will open the session.
func (l *sshProto) delegate() error {
	if len(l.delegated) == 0 {
		return nil
	}
	if err := l.tell(pamwire.Delegate{Cache: l.delegated, Keep: !l.conf.GSSAPICleanupCredentials}); err != nil {
		return err
	}
	e, err := l.await()
	if err != nil {
		return err
	}
	if _, ok := e.(pamwire.Delegated); !ok {
		return l.unexpected(e)
	}
	return nil
}
