// Package conversation is what the PAM worker does from pam_start(3) to
// pam_end(3): it answers factotum's requests (package pamwire) one after the
// other, and asks factotum what PAM's modules ask.
//
// It runs as root and trusts factotum and the modules that the administrator
// configured. It reads nothing from a front end: answers come through factotum,
// which bounds them.
package conversation

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/msteinert/pam/v2"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/log"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/factotum/pam/internal/records"
	"p9auth/factotum/pam/internal/session"
)

// A Transaction is PAM's transaction: *pam.Transaction, but in tests.
type Transaction interface {
	session.Transaction
	Authenticate(pam.Flags) error
	AcctMgmt(pam.Flags) error
	ChangeAuthTok(pam.Flags) error
	SetItem(pam.Item, string) error
	GetItem(pam.Item) (string, error)
	End() error
}

// A Conversation is one PAM transaction and the socket to factotum.
type Conversation struct {
	conn *capproto.Conn

	// What tests replace: pam_start(3), setgroups(2) and the places of records.
	start     func(service, user, confDir string, say pam.ConversationFunc) (Transaction, error)
	setGroups func([]int) error
	places    records.Places

	tx       Transaction
	account  *nss.Account      // the one that was looked up last
	pamUser  string            // PAM_USER that led to it, once PAM has admitted the login
	terminal *session.Terminal // or nil
	opening  bool              // the session is being opened: it will have to be closed
	closing  bool              // nobody hears what PAM says any more
	login    records.Login     // as far as it is known
	lastLog  bool              // the user is told of their last login

	delegated session.Credentials // by a client of GSSAPI, for the session
}

// New makes a conversation with factotum at the other end of the socket.
func New(conn *capproto.Conn) *Conversation {
	return &Conversation{conn: conn, start: start, setGroups: unix.Setgroups, places: records.Debian()}
}

func start(service, user, confDir string, say pam.ConversationFunc) (Transaction, error) {
	if confDir != "" {
		return pam.StartConfDir(service, user, say, confDir)
	}
	return pam.Start(service, user, say)
}

// receive receives a request, with the files that came with it.
func (c *Conversation) receive() (pamwire.Request, []*os.File, error) {
	p, err := c.conn.Recv()
	if err != nil {
		return nil, nil, err
	}
	r, err := pamwire.DecodeRequest(p.Msg, len(p.Files))
	if err != nil {
		p.Close()
		return nil, nil, err
	}
	return r, p.Files, nil
}

// say says something, with the descriptor that goes along, which it closes.
func (c *Conversation) say(e pamwire.Event) error {
	if b, ok := e.(pamwire.Begun); ok && b.TTY != nil {
		defer b.TTY.Close()
		return c.conn.Send(e.Encode(), b.TTY)
	}
	if o, ok := e.(pamwire.Opened); ok && len(o.Groups) > capproto.MaxGroups {
		more, err := o.MoreGroups()
		if err != nil {
			return err
		}
		defer more.Close()
		return c.conn.Send(e.Encode(), more)
	}
	return c.conn.Send(e.Encode())
}

// untake gives a terminal back that was taken for a login which has failed.
func (c *Conversation) untake() {
	if c.terminal != nil {
		if err := c.terminal.Untake(); err != nil {
			log.Warn("the terminal is not given back", "error", err.Error())
		}
	}
}

// report tells factotum of an error. It returns nil for PAM's no, after which
// factotum may ask again.
func (c *Conversation) report(err error) error {
	var no pamwire.Refused
	if errors.As(err, &no) {
		c.untake() // before the next login is tried there
		return c.say(no)
	}
	if !errors.Is(err, io.EOF) {
		c.say(pamwire.Failed{Text: "the PAM worker failed; the administrator finds the reason in factotum's log"})
	}
	return err
}

// outOfTurn says that a request does not belong here.
func outOfTurn(r pamwire.Request) error {
	return fmt.Errorf("%s out of turn", r.Encode().Verb)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
