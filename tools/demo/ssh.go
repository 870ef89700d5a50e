package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// sshClient is OpenSSH's client, outside of the testbed as a stranger's would
// be: the network is shared. It knows the testbed's host key, and has nothing
// to do with the configuration, keys and agent of who runs the demo.
func (b *bed) sshClient(args ...string) (*exec.Cmd, error) {
	port, err := os.ReadFile(filepath.Join(b.dir, "ssh_port"))
	if err != nil {
		return nil, err
	}
	hostKey, err := os.ReadFile("/proc/" + b.pid() + "/root/etc/ssh/ssh_host_ed25519_key.pub")
	if err != nil {
		return nil, err
	}
	known, conf := filepath.Join(b.dir, "known_hosts"), filepath.Join(b.dir, "ssh_config")
	if err := os.WriteFile(known, append([]byte("testbed "), hostKey...), 0o600); err != nil {
		return nil, err
	}
	// The address, as not every machine knows the name localhost.
	settings := fmt.Sprintf(`Host localhost
	HostName 127.0.0.1
	HostKeyAlias testbed
	UserKnownHostsFile %s
	GlobalKnownHostsFile /dev/null
	HostKeyAlgorithms ssh-ed25519
	IdentityAgent none
	LogLevel ERROR
`, known)
	if err := os.WriteFile(conf, []byte(settings), 0o600); err != nil {
		return nil, err
	}
	args = append([]string{"-F", conf, "-p", strings.TrimSpace(string(port))}, args...)
	args = append(args, user+"@localhost")
	fmt.Printf("$ ssh %s\n", strings.Join(args, " "))
	cmd := exec.Command("ssh", args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb"}
	if v := os.Getenv("TERM"); interactive() && v != "" {
		cmd.Env[1] = "TERM=" + v
	}
	return cmd, nil
}

// sshKey logs alice in with her key, which factotum checks.
func sshKey(ctx context.Context, b *bed) error {
	if interactive() {
		say("%s has a key. Look around again, then log out.", user)
	}
	t, err := b.sshTerminal("-i", filepath.Join(b.dir, "keys", user))
	if err != nil {
		return err
	}
	defer t.close()
	if interactive() {
		return handOver(ctx, b, t)
	}
	t.echo = os.Stdout
	return visit(ctx, b, t, "Accepted publickey for "+user)
}

// sshPassword logs alice in with her password, which PAM checks.
func sshPassword(ctx context.Context, b *bed) error {
	if interactive() {
		say("The password is %s, as before.", password)
	}
	t, err := b.sshTerminal("-o", "PubkeyAuthentication=no")
	if err != nil {
		return err
	}
	defer t.close()
	if interactive() {
		return handOver(ctx, b, t)
	}
	t.echo = os.Stdout
	if _, err := t.expect(ctx, "assword: "); err != nil {
		return err
	}
	t.send(password + "\n")
	return visit(ctx, b, t, "Accepted keyboard-interactive/pam for "+user)
}

func (b *bed) sshTerminal(args ...string) (*terminal, error) {
	cmd, err := b.sshClient(args...)
	if err != nil {
		return nil, err
	}
	return start(cmd)
}

// visit looks around at alice's, and checks what it sees.
func visit(ctx context.Context, b *bed, t *terminal, logged string) error {
	if err := lookAround(ctx, t, []look{
		{"id", "(" + user + ") "},
		{"echo $SSH_CONNECTION", "127.0.0.1 "},
	}); err != nil {
		return err
	}
	if err := b.showRights("who has rights while "+user+" is logged in", t); err != nil {
		return err
	}
	t.send("exit\n")
	if err := t.drain(ctx); err != nil {
		return err
	}
	fmt.Println()
	if b.count(logged) == 0 {
		return fmt.Errorf("factotum should have logged %q", logged)
	}
	return b.awaitClose()
}
