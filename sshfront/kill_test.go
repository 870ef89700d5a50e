package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"p9auth/test/testbed"
)

// TestSSHKillsWhileAuthenticating kills what takes part in a login while the
// user is asked for the password, and looks that nothing is left and that others
// neither lose a session nor a login.
func TestSSHKillsWhileAuthenticating(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	bob := exec.Command("bash", "-c", "exec ssh -p "+s.port+" "+s.options()+" -i "+s.Dir+"/keys/bob -o IdentitiesOnly=yes bob@127.0.0.1 'echo ready; read x; echo still'")
	in, out := testbed.Pipes(t, bob)
	defer func() { bob.Process.Kill(); bob.Wait() }()
	line := make([]byte, 6)
	if _, err := out.Read(line); err != nil {
		t.Fatalf("bob cannot log in: %v", err)
	}
	have := s.all()

	for _, which := range []string{"connection", "worker", "client", "factotum"} {
		t.Run(which, func(t *testing.T) {
			dir := t.TempDir()
			asked := filepath.Join(dir, "asked")
			ask := filepath.Join(dir, "ask")
			if err := os.WriteFile(ask, []byte("#!/bin/sh\n: >"+asked+"\nexec sleep 60\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			c := exec.Command("ssh", strings.Fields("-n -F none -p "+s.port+" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o PreferredAuthentications=keyboard-interactive alice@127.0.0.1 true")...)
			c.Env = append(os.Environ(), "SSH_ASKPASS="+ask, "SSH_ASKPASS_REQUIRE=force")
			c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			var stderr bytes.Buffer
			c.Stderr = &stderr
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			defer c.Wait()
			defer syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
			if !testbed.Eventually(func() bool { _, err := os.Stat(asked); return err == nil }) {
				t.Fatalf("alice is not asked: %s", &stderr)
			}
			if which == "client" {
				syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
			} else {
				killed := 0
				for _, pid := range s.all() {
					cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
					argv := strings.Split(string(cmd), "\x00")
					is := which == "connection" && len(argv) > 1 && argv[1] == "connection" || which == "worker" && strings.HasSuffix(argv[0], "factotum-pam")
					is = is && !slices.Contains(have, pid) || which == "factotum" && strings.HasSuffix(argv[0], "/factotum")
					if is {
						killed++
						syscall.Kill(pid, syscall.SIGKILL)
					}
				}
				if killed != 1 {
					t.Errorf("killed %d processes", killed)
				}
				// The answer, too, is to nobody; the client learns of it then.
				exec.Command("pkill", "-P", fmt.Sprint(c.Process.Pid)).Run()
			}
			if !testbed.Eventually(func() bool {
				for _, pid := range s.all() {
					if !slices.Contains(have, pid) {
						return false
					}
				}
				return true
			}) {
				t.Errorf("there is left: %v", s.Processes())
			}
			if which == "factotum" {
				if out, err := s.run(t, `$ssh -o BatchMode=yes alice@127.0.0.1 id -un`); err == nil {
					t.Errorf("a login without factotum: %s", out)
				}
				if out, err := exec.Command(filepath.Join(s.Top, "scripts", "testbed"), "start-factotum", s.Dir).CombinedOutput(); err != nil {
					t.Fatalf("start factotum again: %v: %s", err, out)
				}
				if !testbed.Eventually(func() bool { return strings.Count(s.Log(), "factotum is ready") == 2 }) {
					t.Fatal("factotum does not start again")
				}
			}
			if out, err := s.run(t, `$ssh alice@127.0.0.1 id -un`); err != nil || out != "alice\n" {
				t.Errorf("a login after that: %v: %s", err, out)
			}
		})
	}
	// The listener: connections go on without it.
	listener := 0
	for _, pid := range s.Pids("sshfront") {
		listener = pid
	}
	if listener == 0 {
		t.Fatal("no listener")
	}
	syscall.Kill(listener, syscall.SIGKILL)
	fmt.Fprintln(in)
	still := make([]byte, 6)
	if _, err := out.Read(still); err != nil || string(still) != "still\n" {
		t.Errorf("bob's session: %q, %v", still, err)
	}
}
