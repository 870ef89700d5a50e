package conversation

import (
	"errors"
	"os"

	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/nss"
)

// lookup finds the account and, if factotum wants that, the client's name.
func (c *Conversation) lookup(l pamwire.Lookup) (pamwire.Event, error) {
	a, err := nss.Lookup(l.User)
	if errors.Is(err, nss.ErrNoUser) {
		return pamwire.NoUser{Host: nss.HostOf(l.Addr)}, nil
	}
	if err != nil {
		return nil, err
	}
	groups, groupsErr := a.Groups()
	e := pamwire.Account{Name: a.Name, UID: a.UID, GID: a.GID, Home: a.Home, Shell: a.Shell, BadShell: badShell(a.Shell)}
	// A name that is cut short or left out would be a rule that is not obeyed.
	// factotum minds only where there are rules about groups.
	if groupsErr != nil { // which the session is refused for
		e.GroupsErr = pamwire.Fit(groupsErr.Error(), pamwire.MaxText)
	} else if len(groups) > pamwire.MaxGroupNames { // to ask for each name would take long
		e.GroupsErr = "there are too many of them"
	} else if e.Groups, err = nss.GroupNames(groups, pamwire.MaxGroupNames, pamwire.MaxGroupNamesSize); err != nil {
		e.GroupsErr = pamwire.Fit(err.Error(), pamwire.MaxText)
	}
	c.account = a
	e.Host = nss.HostOf(l.Addr)
	return e, nil
}

// badShell says, in sshd's words (auth.c, allowed_user), why a login shell is none, or
// returns "". An empty one is /bin/sh (passwd(5)).
func badShell(shell string) string {
	if shell == "" {
		shell = "/bin/sh"
	}
	st, err := os.Stat(shell)
	switch {
	case err != nil:
		return "does not exist"
	case !st.Mode().IsRegular() || st.Mode().Perm()&0o111 == 0:
		return "is not executable"
	}
	return ""
}
