package conversation

import (
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/asuser"
	"p9auth/factotum/pam/internal/gss"
)

// kerberosUser asks whether a principal may be the account, with the account's rights: it
// is the user's ~/.k5login that says so.
func (c *Conversation) kerberosUser(r pamwire.KerberosUser) (pamwire.Event, error) {
	groups, err := c.account.Groups()
	if err != nil {
		return pamwire.PrincipalJudged{Why: pamwire.Fit(err.Error(), pamwire.MaxText)}, nil
	}
	var e pamwire.PrincipalJudged
	err = asuser.Do(c.account.UID, c.account.GID, groups, func() error {
		e.Allowed, e.Why = gss.UserOK(r.Principal, r.User)
		return nil
	})
	if err != nil {
		return nil, err
	}
	e.Why = pamwire.Fit(e.Why, pamwire.MaxText)
	return e, nil
}
