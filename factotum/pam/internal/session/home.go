package session

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/factotum/pam/internal/asuser"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/internal/logindefs"
	"p9auth/internal/sys"
)

// A home is what the user finds at home.
type home struct {
	err  error // why they cannot enter it
	hush bool  // they want no messages: HUSHLOGIN_FILE in login.defs(5)
}

// lookHome looks at the home directory with the user's own rights and these groups.
func lookHome(a *nss.Account, groups []uint32, d logindefs.Defs) (h home) {
	name := d.String("HUSHLOGIN_FILE", ".hushlogin")
	if filepath.IsAbs(name) {
		h.hush = hushed(name, a)
	}
	h.err = asuser.Do(a.UID, a.GID, groups, func() error {
		fd, err := unix.Open(a.Home+"/.", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if !filepath.IsAbs(name) {
			var st unix.Stat_t
			h.hush = unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
		}
		return nil
	})
	return h
}

// maxHushlogins bounds the list of users and shells that hushed reads.
const maxHushlogins = 1 << 20

// hushed looks into the administrator's list of the users and shells for which
// there are no messages. An empty list is for everybody, as with util-linux.
func hushed(path string, a *nss.Account) bool {
	b, err := sys.ReadFile(path, maxHushlogins)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line == a.Name || line != "" && line == a.Shell {
			return true
		}
	}
	return len(b) == 0
}
