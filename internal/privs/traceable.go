package privs

import (
	"fmt"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// Traceable says what is wrong with the mode of a front end's file, or "": where
// the user whom the front end runs as can read it, other processes of this user
// can trace a new one in its first instructions, before PR_SET_DUMPABLE. Where
// they cannot, the kernel starts the process undumpable (execve(2)).
func Traceable(path, name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", fmt.Errorf("there is no user %s: create it (useradd --system %s)", name, name)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", path, err)
	}
	id := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	switch {
	case u.Uid == id(st.Uid):
		return fmt.Sprintf("%s belongs to %s, whose processes could change it: chown root %s", path, name, path), nil
	case st.Mode&0o004 == 0 && (u.Gid != id(st.Gid) || st.Mode&0o040 == 0):
		return "", nil
	}
	return fmt.Sprintf("%s can be read by %s, so that a process of %s can trace another one that starts: chmod 0711 %s", path, name, name, path), nil
}
