package conversation

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/msteinert/pam/v2"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/factotum/pam/internal/records"
	"p9auth/factotum/pam/internal/session"
	"p9auth/internal/logindefs"
)

const incorrect = "Login incorrect"

// begin starts the transaction.
func (c *Conversation) begin(b pamwire.Begin, files []*os.File) (pamwire.Event, error) {
	if len(files) > 0 {
		var err error
		if c.terminal, err = session.OpenTerminal(files[0]); err != nil {
			return nil, err
		}
	}
	c.lastLog = b.LastLog
	if b.Caller != nil {
		return c.beginLocal(b)
	}
	if err := c.transaction(b); err != nil {
		return nil, err
	}
	if b.TTY == records.SSHTTY {
		return pamwire.Begun{}, nil
	}
	e := pamwire.Begun{LogName: nameForLog(b.User)}
	if b.Take {
		if c.terminal == nil {
			return nil, errors.New("begin: there is no terminal to take")
		}
		var err error
		if e.TTY, err = c.terminal.Take(); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// transaction calls pam_start(3) and sets what PAM is to know of the login.
func (c *Conversation) transaction(b pamwire.Begin) error {
	c.login = records.Login{Places: c.places, Service: b.Service, TTY: b.TTY, SSH: b.TTY == records.SSHTTY, RHost: b.RHost}
	tx, err := c.start(b.Service, b.User, b.ConfDir, c.converse)
	if err != nil {
		return fmt.Errorf("pam_start: %w", err)
	}
	c.tx = tx
	for _, i := range []struct {
		item  pam.Item
		value string
	}{{pam.Tty, b.TTY}, {pam.Rhost, b.RHost}} {
		if i.value == "" {
			continue
		}
		if err := c.tx.SetItem(i.item, i.value); err != nil {
			return fmt.Errorf("pam_set_item: %w", err)
		}
	}
	for _, kv := range b.Env {
		if err := c.tx.PutEnv(kv); err != nil {
			return fmt.Errorf("pam_putenv: %w", err)
		}
	}
	return nil
}

// end ends the transaction.
func (c *Conversation) end() {
	if c.tx != nil {
		c.tx.End() // it is over whatever the modules say
		c.tx = nil
	}
}

// authenticate asks PAM whether the user is who they say they are. factotum may
// ask again after a no.
func (c *Conversation) authenticate(a pamwire.Authenticate) (pamwire.Event, error) {
	var flags pam.Flags
	if a.NoEmpty {
		flags = pam.DisallowNullAuthtok
	}
	if err := c.tx.Authenticate(flags); err != nil {
		// Where nobody answered, nobody failed.
		if !errors.Is(err, pam.ErrConv) && !errors.Is(err, pam.ErrAbort) {
			c.recordFailure()
		}
		text := incorrect
		if c.login.Local {
			text = "" // PAM's words, as su(1) has them
		}
		return nil, session.Refusal(c.login.Service, capproto.CodeDenied, text, err)
	}
	user, err := c.user()
	if err != nil {
		return nil, err
	}
	if user == "" {
		return nil, pamwire.Refused{Code: capproto.CodeDenied, Text: incorrect}
	}
	return pamwire.Proven{User: user}, nil
}

// user is the user's name, which a module may have changed.
func (c *Conversation) user() (string, error) {
	user, err := c.tx.GetItem(pam.User)
	if err != nil {
		return "", fmt.Errorf("pam_get_item: %w", err)
	}
	return user, nil
}

// checkAccount asks whether the account may log in now, and has a password changed
// that has expired, unless that is left for later.
func (c *Conversation) checkAccount(r pamwire.CheckAccount) (pamwire.Event, error) {
	err := c.tx.AcctMgmt(0)
	expired := errors.Is(err, pam.ErrNewAuthtokReqd)
	switch {
	case expired && r.Later:
		err = nil
	case expired:
		err, expired = c.tx.ChangeAuthTok(pam.ChangeExpiredAuthtok), false
	}
	if err != nil {
		if c.login.Local {
			c.recordFailure()
		}
		return nil, session.Refusal(c.login.Service, capproto.CodeAccount, "", err)
	}
	user, err := c.user()
	if err != nil {
		return nil, err
	}
	if c.account, err = nss.Lookup(user); err != nil {
		if errors.Is(err, nss.ErrNoUser) {
			return nil, pamwire.Refused{Code: capproto.CodeDenied, Text: incorrect}
		}
		return nil, err
	}
	c.pamUser = user
	return pamwire.AccountValid{User: c.account.Name, UID: c.account.UID, Expired: expired}, nil
}

// converse answers PAM: see pam_conv(3).
func (c *Conversation) converse(s pam.Style, text string) (string, error) {
	style, ok := styles[s]
	if !ok {
		return "", pam.ErrConv // a binary prompt, or one that we do not know
	}
	if c.closing {
		if style.Question() {
			return "", pam.ErrConv // nobody would answer
		}
		return "", nil
	}
	if err := c.say(pamwire.Prompt{Style: style, Text: pamwire.Fit(text, pamwire.MaxText)}); err != nil {
		if !c.opening {
			return "", pam.ErrConv
		}
		return "", nil // nobody listens any more, but the session still has to be closed
	}
	if !style.Question() {
		return "", nil
	}
	r, files, err := c.receive()
	if err != nil {
		return "", pam.ErrConv
	}
	defer closeAll(files)
	a, ok := r.(pamwire.Answer)
	if !ok || a.Fail {
		return "", pam.ErrConv
	}
	return a.Data, nil
}

var styles = map[pam.Style]capproto.Style{
	pam.PromptEchoOff: capproto.EchoOff, pam.PromptEchoOn: capproto.EchoOn,
	pam.TextInfo: capproto.Info, pam.ErrorMsg: capproto.Failure,
}

// recordFailure records a proof that was wrong.
func (c *Conversation) recordFailure() {
	user, err := c.user()
	if err != nil {
		return
	}
	l := c.login
	l.User = user
	if l.TTY != records.SSHTTY && !l.Local {
		l.User = nameForLog(user)
	}
	l.Failed(time.Now())
}

// nameForLog is a name that was typed at a terminal, as logs may have it: a name
// that does not exist may be a password that was typed by mistake. See
// LOG_UNKFAIL_ENAB in login.defs(5).
func nameForLog(name string) string {
	if name == "" {
		return ""
	}
	if _, err := nss.Lookup(name); err == nil {
		return name
	}
	if defs, err := logindefs.Read(logindefs.Path); err == nil && defs.Bool("LOG_UNKFAIL_ENAB", false) {
		return name
	}
	return "UNKNOWN"
}
