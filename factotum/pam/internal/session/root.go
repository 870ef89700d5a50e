package session

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/internal/sshdconf"
)

// root finds and checks the user's root directory: session.c of sshd(8),
// do_setusercontext and safely_chroot, of which the messages are. template is
// ChrootDirectory.
//
// Each directory of the path must be root's, and writable by nobody else. sshd asks
// that of the path as it stands, and follows links. Here it is asked of the path
// without links too, which is then the one that is used: so there is no directory
// on the way to it in which somebody could exchange anything, at any time.
func root(template string, a *nss.Account) (*pamwire.Root, error) {
	path, err := expandRoot(template, a)
	if err != nil {
		return nil, err
	}
	switch {
	case !filepath.IsAbs(path):
		return nil, errors.New("chroot path does not begin at root")
	case len(path) >= unix.PathMax:
		return nil, errors.New("chroot path too long")
	}
	if _, err := descend(path, unix.Stat); err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	st, err := descend(real, func(component string, st *unix.Stat_t) error {
		if component != "/" {
			component = strings.TrimSuffix(component, "/") // with it, lstat(2) would follow a link
		}
		return unix.Lstat(component, st)
	})
	if err != nil {
		return nil, err
	}
	return &pamwire.Root{Path: real, Dev: st.Dev, Ino: st.Ino}, nil
}

// expandRoot puts the account's particulars into ChrootDirectory.
func expandRoot(template string, a *nss.Account) (string, error) {
	if name, rest, _ := strings.Cut(template, "/"); strings.HasPrefix(name, "~") {
		home := a.Home
		if name != "~" {
			other, err := nss.Lookup(name[1:])
			if err != nil {
				return "", fmt.Errorf("%s: %w", name, err)
			}
			home = other.Home
		}
		template = home + "/" + rest
	}
	path, err := sshdconf.Expand(template, sshdconf.Tokens{'h': a.Home, 'u': a.Name, 'U': strconv.FormatUint(uint64(a.UID), 10)})
	if err != nil {
		return "", fmt.Errorf("ChrootDirectory: %w", err)
	}
	return path, nil
}

// descend looks at each directory from / to path, and returns what it found there.
func descend(path string, stat func(string, *unix.Stat_t) error) (st unix.Stat_t, err error) {
	for at := 0; at < len(path); {
		component, which := path, ""
		if i := strings.IndexByte(path[at:], '/'); i >= 0 {
			at += i + 1
			component, which = path[:at], "component "
		} else {
			at = len(path)
		}
		if err := stat(component, &st); err != nil {
			return st, fmt.Errorf("stat(%q): %w", component, err)
		}
		if st.Uid != 0 || st.Mode&0o022 != 0 {
			return st, fmt.Errorf("bad ownership or modes for chroot directory %s%q", which, component)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return st, fmt.Errorf("chroot path %s%q is not a directory", which, component)
		}
	}
	return st, nil
}
