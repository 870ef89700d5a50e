package session

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Display is the X11 display that su(1) was called at: DISPLAY and XAUTHORITY as the
// caller has them, or "". pam_xauth(8) looks for them in its environment.
type Display struct{ Name, Authority string }

// lend puts the caller's display into the environment of this process, where pam_xauth
// finds it, until it is taken back. The module has xauth(1) read the cookie, in a child
// that has the worker's real ids, which are the caller's, and no group else. So the child
// is the caller's to trace and to keep: it must not have more processes than they may have.
// The worker itself, as root, is not held to that limit.
func (s *Session) lend() (takeBack func(), err error) {
	if s.Display.Name == "" {
		return func() {}, nil
	}
	var own, callers unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &own); err != nil {
		return nil, fmt.Errorf("getrlimit: %w", err)
	}
	if err := unix.Prlimit(s.Login.PID, unix.RLIMIT_NPROC, nil, &callers); err != nil || s.ended() {
		return nil, errors.New("the caller has ended")
	}
	callers = unix.Rlimit{Cur: min(callers.Cur, own.Cur), Max: min(callers.Max, own.Max)}
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &callers); err != nil {
		return nil, fmt.Errorf("setrlimit: %w", err)
	}
	os.Setenv("DISPLAY", s.Display.Name)
	if s.Display.Authority != "" {
		os.Setenv("XAUTHORITY", s.Display.Authority)
	}
	return func() {
		os.Unsetenv("DISPLAY")
		os.Unsetenv("XAUTHORITY") // pam_xauth may have set it
		var now unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NPROC, &now) == nil && now == callers {
			unix.Setrlimit(unix.RLIMIT_NPROC, &own) // and no module has set another
		}
	}, nil
}
