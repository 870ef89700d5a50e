package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ssh logs alice in through sshfront with OpenSSH's client: by key, and on a
// terminal by password too, which the person types.
func ssh(ctx context.Context, b *bed) error {
	port, err := os.ReadFile(filepath.Join(b.dir, "ssh_port"))
	if err != nil {
		return err
	}
	client := []string{"ssh", "-F", "none", "-p", strings.TrimSpace(string(port)),
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ControlPath=none"}
	key := append(client[:len(client):len(client)], "-i", filepath.Join(b.dir, "keys", user), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		user+"@127.0.0.1", "id; echo $SSH_CONNECTION; cat /etc/shadow; grep Cap /proc/self/status")
	fmt.Printf("$ ssh -p %s -i DIR/keys/%s %s@127.0.0.1 'id; echo $SSH_CONNECTION; cat /etc/shadow; grep Cap /proc/self/status'\n", strings.TrimSpace(string(port)), user, user)
	cmd := exec.CommandContext(ctx, key[0], key[1:]...)
	out, err := cmd.CombinedOutput()
	fmt.Printf("%s\n", out)
	// grep is the last command: its success is the login's.
	if err != nil {
		return fmt.Errorf("ssh: %w", err)
	}
	if !strings.Contains(string(out), "("+user+")") || !strings.Contains(string(out), "Permission denied") {
		return errors.New("ssh: that is not what alice should see")
	}
	if !interactive() {
		return nil
	}
	say("now you: the password is %s; leave with exit", password)
	pw := append(client, "-o", "PubkeyAuthentication=no", user+"@127.0.0.1")
	cmd = exec.CommandContext(ctx, pw[0], pw[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	fmt.Println()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() != 255 {
		return nil // the status of the last command that was typed
	}
	return err
}
