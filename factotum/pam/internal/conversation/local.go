package conversation

import (
	"fmt"
	"syscall"

	"github.com/msteinert/pam/v2"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/nss"
)

// beginLocal starts the transaction of somebody who is logged in, and has called su(1)
// or the like. From here on this process has the caller's real uid and gid and root's
// effective and saved ones, as a setuid program has them: modules decide by that
// (pam_rootok, pam_wheel, pam_unix), and pam_xauth has a program run with them. It has
// nothing else of the caller's.
func (c *Conversation) beginLocal(b pamwire.Begin) (pamwire.Event, error) {
	caller, err := nss.LookupUID(b.Caller.UID)
	if err != nil && err != nss.ErrNoUser {
		return nil, err
	}
	if b.User == "" {
		if caller == nil {
			return nil, pamwire.Refused{Code: capproto.CodeDenied, Text: "Cannot determine your user name."}
		}
		b.User = caller.Name
	}
	a, err := nss.Lookup(b.User)
	switch {
	case err == nss.ErrNoUser, err == nil && a.Home == "":
		return nil, pamwire.Refused{Code: capproto.CodeAccount,
			Text: fmt.Sprintf("user %s does not exist or the user entry does not contain all the required fields", b.User)}
	case err != nil:
		return nil, err
	}
	b.User = a.Name
	// All threads: libpam's calls are made by this one, and no other must keep more.
	if err := syscall.Setresgid(int(b.Caller.GID), 0, 0); err != nil {
		return nil, fmt.Errorf("setresgid: %w", err)
	}
	if err := syscall.Setresuid(int(b.Caller.UID), 0, 0); err != nil {
		return nil, fmt.Errorf("setresuid: %w", err)
	}
	if err := c.transaction(b); err != nil {
		return nil, err
	}
	c.login.Local = true
	e := pamwire.Begun{LogName: a.Name}
	if caller != nil {
		e.Caller, e.Shell = caller.Name, caller.Shell
		if err := c.tx.SetItem(pam.Ruser, caller.Name); err != nil {
			return nil, fmt.Errorf("pam_set_item: %w", err)
		}
	}
	return e, nil
}
