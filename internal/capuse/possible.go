package capuse

import (
	"errors"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Possible says why the kernel will not let this process become another user, and what
// to do, or nil. The kernel decides all the same: this is for the person.
func Possible() error {
	if n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && n != 0 {
		return errors.New("this process has no_new_privs set, so that it cannot become another user; start it outside of the service or container that sets it (NoNewPrivileges=)")
	}
	// See user_namespaces(7): in the first one each uid stands for itself.
	uids, err := os.ReadFile("/proc/self/uid_map")
	if err == nil && !slices.Equal(strings.Fields(string(uids)), []string{"0", "0", "4294967295"}) {
		return errors.New("this process is in a user namespace of its own, so that it cannot become another user; start it outside of the container or sandbox")
	}
	return nil
}
