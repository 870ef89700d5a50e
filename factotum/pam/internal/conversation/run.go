package conversation

import (
	"io"
	"os"

	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/keys"
	"p9auth/factotum/pam/internal/log"
	"p9auth/factotum/pam/internal/session"
	"p9auth/factotum/pam/internal/shadow"
)

// Run does what factotum says until a session has ended or factotum is gone, which
// is io.EOF. PAM's no is an answer; other errors are told to factotum and end the
// conversation.
func (c *Conversation) Run() error {
	defer c.end()
	defer c.untake()
	if err := c.greet(); err != nil {
		return err
	}
	for {
		r, files, err := c.receive()
		if err != nil {
			return c.report(err)
		}
		if done, err := c.step(r, files); done || err != nil {
			return err
		}
	}
}

// greet makes sure that factotum is of this version. If it is not, greet says so and
// waits for it to hang up: a factotum that wants a session taken over would start
// one worker after the other if this one ended.
func (c *Conversation) greet() error {
	p, err := c.conn.Recv()
	p.Close()
	if err != nil {
		return err
	}
	if err := pamwire.CheckFactotum(p.Msg); err != nil {
		log.Error(err.Error())
		c.conn.Send(pamwire.Refusal(p.Msg).Encode())
		for err = nil; err == nil; p.Close() {
			p, err = c.conn.Recv()
		}
		return io.EOF
	}
	return c.say(pamwire.Hello{Version: pamwire.Version})
}

// step answers one request and closes its files. It returns true when the
// conversation is over.
func (c *Conversation) step(r pamwire.Request, files []*os.File) (done bool, err error) {
	defer closeAll(files)
	switch r := r.(type) {
	case pamwire.OpenSession:
		return true, c.openSession(r, files)
	case pamwire.Adopt:
		return true, c.adopt(r, files)
	}
	e, err := c.answer(r, files)
	if err != nil {
		return false, c.report(err)
	}
	return false, c.say(e)
}

// answer answers the requests after which there may be more.
func (c *Conversation) answer(r pamwire.Request, files []*os.File) (pamwire.Event, error) {
	switch r := r.(type) {
	case pamwire.Lookup:
		return c.lookup(r)
	case pamwire.KeyQuery:
		if c.account != nil {
			return keys.Ask(c.account, r)
		}
	case pamwire.Begin:
		if c.tx == nil {
			return c.begin(r, files)
		}
	case pamwire.Authenticate:
		if c.tx != nil {
			return c.authenticate(r)
		}
	case pamwire.CheckAccount:
		if c.tx != nil {
			return c.checkAccount(r)
		}
	case pamwire.KerberosUser:
		if c.account != nil {
			return c.kerberosUser(r)
		}
	case pamwire.Delegate:
		if c.tx != nil {
			c.delegated = session.Credentials{Cache: r.Cache, Keep: r.Keep}
			return pamwire.Delegated{}, nil
		}
	case pamwire.Resolve:
		return resolve(r)
	case pamwire.Target:
		if c.account != nil && c.login.Local {
			return c.target(r)
		}
	case pamwire.ChangePassword:
		if c.tx != nil {
			return c.changePassword(r)
		}
	case pamwire.PasswordStatus:
		return c.passwordStatus(r)
	case pamwire.CheckPassword:
		return shadow.Check(r)
	}
	return nil, outOfTurn(r)
}
