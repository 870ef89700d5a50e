package capuse

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/internal/sys"
)

// filesPath is the capuse file of the capability files.
const filesPath = "/run/factotum/cap/capuse"

// files are the capability files that factotum serves.
var files = way{redeemFiles, redeemBound, "factotum's log", "factotum"}

// redeemFiles executes become, which takes on the identity and executes the target.
func redeemFiles(file, capability string, t Target) error {
	argv := []string{"become"}
	if t.NProc != nil {
		argv = append(argv, fmt.Sprintf("nproc=%d:%d", t.NProc[0], t.NProc[1]))
	}
	// The kernel lowers this limit when it starts become; that puts it back.
	var stack unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_STACK, &stack); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	argv = append(argv, fmt.Sprintf("stack=%d:%d", stack.Cur, stack.Max), t.Dir, t.Path)
	return execBecome(file, capability, append(argv, t.Argv...), t.Env)
}

// redeemBound executes become, which has all that it does in the grant.
func redeemBound(file, capability string) error {
	return execBecome(file, capability, []string{"become"}, nil)
}

// execBecome writes the capability, reads the name of the one-time executable
// beside capuse, and executes that: it is become.
func execBecome(file, capability string, argv, env []string) error {
	// The grant belongs to the process, but the server sees threads: stay on
	// one, so that no thread of ours is on its way out meanwhile.
	runtime.LockOSThread()
	// A file of FUSE can say that a signal came, whatever SA_RESTART is, see signal(7).
	var fd, n int
	err := sys.Again(func() (err error) { fd, err = unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0); return err })
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	defer unix.Close(fd)
	if err := sys.Again(func() error { _, err := unix.Write(fd, []byte(capability)); return err }); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	buf := make([]byte, 256)
	err = sys.Again(func() (err error) { n, err = unix.Read(fd, buf); return err })
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	name, ok := strings.CutSuffix(string(buf[:max(n, 0)]), "\n")
	if !ok || name == "" || strings.ContainsRune(name, '/') {
		return fmt.Errorf("read %s: not the name of an executable", file)
	}
	exe := filepath.Join(filepath.Dir(file), name)
	return fmt.Errorf("exec %s: %w", exe, syscall.Exec(exe, argv, env))
}
