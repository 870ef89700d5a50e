package sftp

import (
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// confine makes files all that the client reaches. By /proc/PID/mem it could
// have a process run anything, where the user may have sftp only. Our own
// memory is not to be opened (proc(5)), and under landlock no other process's
// is, see landlock(7). That forbids us to execute, too, which we never do; to
// move files from one directory to another must be allowed by name. A kernel
// may lack landlock.
func confine() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_DUMPABLE): %w", err)
	}
	refer := landlock.AccessFSSet(landlocksys.AccessFSRefer)
	// 2 is the first version with which files can be moved.
	if v, err := landlocksys.LandlockGetABIVersion(); err != nil || v < 2 {
		return nil
	}
	err := landlock.MustConfig(refer | landlocksys.AccessFSExecute).RestrictPaths(landlock.PathAccess(refer, "/"))
	if err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}
