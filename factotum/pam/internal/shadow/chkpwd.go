package shadow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/sys"
)

// Chkpwd are the places of the system's own unix_chkpwd(8): the first is where
// p9auth-switch(8) puts it to have ours in its place.
var Chkpwd = []string{"/usr/sbin/unix_chkpwd.distrib", "/usr/sbin/unix_chkpwd"}

// checkTime is how long the program may run: no longer than factotum waits for a
// worker that it has given up.
const checkTime = 10 * time.Second

// Check runs the system's unix_chkpwd(8), which is of the same release as the
// pam_unix(8) whose question it answers and knows each of its hashes. It runs as root,
// so it needs no set-id bit, and answers about any user.
func Check(c pamwire.CheckPassword) (pamwire.Checked, error) {
	program, err := first(Chkpwd)
	if err != nil {
		return pamwire.Checked{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, c.User, c.Option)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	// It reads up to a NUL, and wants no terminal.
	cmd.Stdin = strings.NewReader(c.Password + "\x00")
	out := &bytes.Buffer{}
	cmd.Stdout = out
	if err := sys.CloseOnExec(); err != nil { // what PAM's modules opened
		return pamwire.Checked{}, err
	}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || !exit.Exited()) {
		return pamwire.Checked{}, fmt.Errorf("unix_chkpwd: %w", err)
	}
	return pamwire.Checked{Status: cmd.ProcessState.ExitCode(), Output: pamwire.Fit(out.String(), pamwire.MaxOutput)}, nil
}

// first is the first of the files that is there.
func first(paths []string) (string, error) {
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("there is no unix_chkpwd: %w", os.ErrNotExist)
}
