package conversation

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/msteinert/pam/v2"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/nss"
)

// resolve finds the numbers of users and groups. A source that cannot be asked is an
// error: a rule that denies must not be overlooked.
func resolve(q pamwire.Resolve) (pamwire.Event, error) {
	var e pamwire.Resolved
	for _, name := range q.Users {
		a, err := nss.Lookup(name)
		switch {
		case errors.Is(err, nss.ErrNoUser):
			e.Users = append(e.Users, pamwire.Nobody)
		case err != nil:
			return nil, err
		default:
			e.Users = append(e.Users, strconv.FormatUint(uint64(a.UID), 10))
		}
	}
	for _, name := range q.Groups {
		gid, ok, err := nss.GroupID(name)
		switch {
		case err != nil:
			return nil, err
		case !ok:
			e.Groups = append(e.Groups, pamwire.Nobody)
		default:
			e.Groups = append(e.Groups, strconv.FormatUint(uint64(gid), 10))
		}
	}
	return e, nil
}

// target makes the session that of another account: doas(1) opens it for the user that
// the command runs as, where the proof was the caller's.
func (c *Conversation) target(t pamwire.Target) (pamwire.Event, error) {
	a, err := nss.LookupUID(t.UID)
	if errors.Is(err, nss.ErrNoUser) {
		return nil, pamwire.Refused{Code: capproto.CodeAccount, Text: "no passwd entry for target"}
	}
	if err != nil {
		return nil, err
	}
	if err := c.tx.SetItem(pam.User, a.Name); err != nil {
		return nil, fmt.Errorf("pam_set_item: %w", err)
	}
	c.account, c.pamUser = a, a.Name
	return pamwire.AccountValid{User: a.Name, UID: a.UID}, nil
}
