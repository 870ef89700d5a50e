package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/factotum/pam/internal/nss"
	"p9auth/internal/authkeys"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
)

// AuthorizedKeysCommand and AuthorizedPrincipalsCommand name programs that the
// administrator configured. They run as the user that the configuration names, never
// as root, and inherit nothing from the worker: no right, no descriptor, no variable
// of its environment. Words that a client chose, such as its key, reach them as
// arguments and never pass through a shell.

const (
	// commandTime is how long a program may run: no longer than factotum waits for
	// a worker that it has given up, so that it is the worker that ends the program.
	commandTime = 10 * time.Second
	// maxOutput is how much a program may print, in bytes: it is kept in memory.
	maxOutput = 16 << 20
	// maxComplaint is how much of a program's standard error is logged.
	maxComplaint = 256
)

// output runs the program of a keyword and returns what it printed, or nil and
// a note if the program may not be run, fails, or does not come to an end.
func (c *check) output(keyword string, argv []string, user string) []byte {
	out, err := c.run(argv, user)
	if err != nil {
		c.note("%s %s: %v", keyword, argv[0], err)
		return nil
	}
	return out
}

func (c *check) run(argv []string, user string) ([]byte, error) {
	who, err := c.runAs(user)
	if err != nil {
		return nil, err
	}
	groups, err := who.Groups()
	if err != nil {
		return nil, err
	}
	var program string
	err = c.asUser(who, func() (err error) {
		program, err = safeProgram(argv[0])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("unsafe: %w", err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Args = argv
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/games", "USER=" + who.Name, "LOGNAME=" + who.Name, "HOME=" + who.Home}
	stdout, stderr := &bounded{max: maxOutput, strict: true}, &bounded{max: maxComplaint}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: who.UID, Gid: who.GID, Groups: groups},
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // it may end and leave its output open to another process
	if err := start(cmd); err != nil {
		return nil, err
	}
	err = cmd.Wait()
	switch {
	case err == nil:
		return stdout.kept, nil
	case stdout.full:
		return nil, fmt.Errorf("it printed more than %d bytes", maxOutput)
	case errors.Is(err, exec.ErrWaitDelay):
		cmd.Cancel() // ends what is left of the process group
		return nil, errors.New("it ended, but left its output open to another process")
	case ctx.Err() != nil:
		return nil, fmt.Errorf("it did not end within %v and was killed", commandTime)
	}
	return nil, fmt.Errorf("it failed: %w: %q", err, bytes.TrimSpace(stderr.kept))
}

// runAs finds the account that a program runs as.
func (c *check) runAs(user string) (*nss.Account, error) {
	name, err := sshdconf.Expand(user, sshdconf.Tokens{'u': c.account.Name})
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, errors.New("no user is configured to run it")
	}
	who, err := nss.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	if who.UID == 0 {
		return nil, fmt.Errorf("user %q is root, and no program is run as root", name)
	}
	return who, nil
}

// safeProgram returns the path without symbolic links of a program that nobody but
// root can have put there: it and all directories above it belong to root, and
// nobody else can write to them.
func safeProgram(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	fd, err := unix.Open(real, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: real, Err: err}
	}
	f := os.NewFile(uintptr(fd), real)
	defer f.Close()
	return real, authkeys.CheckPath(f, real, "", 0, authkeys.NoGroup)
}

// start starts a program that inherits no descriptor.
func start(cmd *exec.Cmd) error {
	// Go marks its own descriptors, but not those that PAM's modules opened.
	if err := sys.CloseOnExec(); err != nil {
		return err
	}
	return cmd.Start()
}

// bounded keeps at most max bytes of what is written to it. More is an error if it is
// strict, and dropped otherwise.
type bounded struct {
	kept   []byte
	max    int
	strict bool
	full   bool
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.max-len(b.kept))
	b.kept = append(b.kept, p[:n]...)
	b.full = b.full || n < len(p)
	if b.full && b.strict {
		return n, io.ErrShortWrite
	}
	return len(p), nil
}
