// Package capuse redeems a capability: it turns the calling process into the
// user that the capability names, running another program.
//
// A build tag picks the way: none is the FUSE file system that factotum
// serves (internal/capfs), capdev is the kernel device (kernel/), or that file
// system where factotum had to do without the device. Callers cannot tell
// which they have. It needs no right of its own, and must not be
// called under a seccomp filter, no_new_privs or a tracer.
package capuse

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// A Target is the program to run as the new user.
type Target struct {
	Path string   // the file to execute
	Argv []string // argv[0] and the arguments
	Env  []string // NAME=VALUE
	Dir  string   // to enter as the new user; "" stays

	// NProc is the new user's RLIMIT_NPROC, soft and hard; nil leaves it. It
	// is set together with the identity, not before: while the process counts
	// for the old user, Go may need another thread. The kernel compares it
	// with the number of the new user's processes, as setresuid(2) says.
	//
	// The front end sets it, and it is no weaker for that than a limit set from
	// outside: an attacker who has taken over a front end could always redeem
	// in another process without a limit, and would still be only this user.
	NProc *[2]uint64
}

// Exec redeems the capability (its text) at the capuse file and runs the
// target as the new user, in the same process. It returns only on failure;
// what fails once the process is the new user is said on standard error, and
// ends it with status 127 (not found) or 126.
// The capability is used up unless the error says otherwise.
//
// If the grant is bound to a program, that is executed, and t is ignored.
func Exec(file, capability string, t Target) error {
	if len(t.Argv) == 0 {
		return errors.New("redeem: no argv")
	}
	file, w := find(file)
	return w.explain(file, w.redeem(file, capability, t))
}

// Redeem redeems a capability that is bound to a program: it executes that, and
// takes nothing from the calling process but its pid, session, terminal and the
// descriptors that the grant names. It fails and returns as Exec does. A grant
// that is not bound executes nothing, and ends the process with status 126.
func Redeem(file, capability string) error {
	file, w := find(file)
	return w.explain(file, w.redeemBound(file, capability))
}

// Path is the capuse file that is served on this machine, for the program redeem.
func Path() string {
	file, _ := find(DefaultPath)
	return file
}

// A way is how a capability is redeemed at a capuse file.
type way struct {
	redeem      func(file, capability string, t Target) error
	redeemBound func(file, capability string) error
	log, by     string // where the reason of a refusal is, and what serves the file
}

// explain says what an error of capuse(4) means.
func (w way) explain(file string, err error) error {
	what := ""
	switch {
	case errors.Is(err, unix.EPERM):
		what = "the capability was refused (not for this uid, unknown, or used before); " + w.log + " says why"
	case errors.Is(err, unix.EINVAL):
		what = "the capability is malformed"
	case errors.Is(err, unix.ETIMEDOUT):
		what = "the capability has expired; log in again"
	case errors.Is(err, unix.ENOTCONN), errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNABORTED):
		what = fmt.Sprintf("%s is not serving %s; the administrator must start it", w.by, file)
	default:
		return fmt.Errorf("redeem: %w", err)
	}
	return fmt.Errorf("redeem: %s: %w", what, err)
}
