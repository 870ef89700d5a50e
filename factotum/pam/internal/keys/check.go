package keys

import (
	"fmt"

	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/asuser"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/internal/authkeys"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sshkey"
)

// A check finds out whether a key may log an account in.
type check struct {
	account *nss.Account
	conf    *sshdconf.Auth
	client  authkeys.Client
	key     sshkey.Key
	ends    string   // the token %C
	notes   []string // for the log

	asUser func(*nss.Account, func() error) error // as, but in tests
}

// note keeps a line for the log.
func (c *check) note(format string, args ...any) {
	if len(c.notes) < pamwire.MaxNotes {
		c.notes = append(c.notes, pamwire.Fit(fmt.Sprintf(format, args...), pamwire.MaxNote))
	}
}

// as calls f with the rights of an account: see asuser.Do.
func as(a *nss.Account, f func() error) error {
	groups, err := a.Groups()
	if err != nil {
		return err
	}
	return asuser.Do(a.UID, a.GID, groups, f)
}

// fingerprint is a key's fingerprint as FingerprintHash asks for it.
func (c *check) fingerprint(key sshkey.Key) string {
	return key.Fingerprint(c.conf.FingerprintHash)
}
