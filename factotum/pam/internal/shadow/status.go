// Package shadow reads what /etc/shadow says, for people who may not read it: the
// line that passwd -S prints, and the verdict of unix_chkpwd(8).
//
// It runs in the PAM worker, as root. It trusts factotum that the caller may ask
// about this user, and the system's own programs.
package shadow

import (
	"fmt"
	"time"

	"p9auth/factotum/pam/internal/nss"
)

const day = 24 * time.Hour

// Status is the line of passwd -S about a user, without its end: see passwd(1). The
// error is nss.ErrNoUser if there is no such user.
func Status(user string) (string, error) {
	s, kind, err := nss.LookupShadow(user)
	if err != nil {
		return "", err
	}
	if s == nil {
		return fmt.Sprintf("%s %s", user, kind), nil
	}
	changed := "never"
	if s.Changed >= 0 {
		changed = time.Unix(s.Changed*int64(day/time.Second), 0).UTC().Format(time.DateOnly)
	}
	return fmt.Sprintf("%s %s %s %d %d %d %d", user, kind, changed, s.Min, s.Max, s.Warn, s.Idle), nil
}
