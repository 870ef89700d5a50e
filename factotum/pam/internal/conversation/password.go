package conversation

import (
	"errors"

	"github.com/msteinert/pam/v2"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/factotum/pam/internal/session"
	"p9auth/factotum/pam/internal/shadow"
)

// changePassword has PAM change the user's password. PAM asks for the old one
// unless this process's real uid is root's, and decides about the new one.
func (c *Conversation) changePassword(r pamwire.ChangePassword) (pamwire.Event, error) {
	var flags pam.Flags
	if r.Expired {
		flags |= pam.ChangeExpiredAuthtok
	}
	if r.Quiet {
		flags |= pam.Silent
	}
	if err := c.tx.ChangeAuthTok(flags); err != nil {
		// Modules that try one after the other end in the same error, whether the old
		// password was wrong or the new one bad: factotum takes each as a guess.
		return nil, session.Refusal(c.login.Service, capproto.CodeDenied, "", err)
	}
	return pamwire.Changed{}, nil
}

// passwordStatus answers passwd -S.
func (c *Conversation) passwordStatus(r pamwire.PasswordStatus) (pamwire.Event, error) {
	line, err := shadow.Status(r.User)
	if errors.Is(err, nss.ErrNoUser) {
		return nil, pamwire.Refused{Code: capproto.CodeDenied, Text: "there is no such user"}
	}
	if err != nil {
		return nil, err
	}
	return pamwire.Status{Line: pamwire.Fit(line, pamwire.MaxText)}, nil
}
