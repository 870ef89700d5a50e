package testbed

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// needRoot skips a test that starts a testbed.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for the testbed")
	}
}

// script runs scripts/testbed and returns what it prints and its status.
func script(t *testing.T, argv ...string) (out, errs string, status int) {
	t.Helper()
	path, err := filepath.Abs("../../scripts/testbed")
	if err != nil {
		t.Fatal(err)
	}
	return run(t, exec.Command(path, argv...))
}

func run(t *testing.T, c *exec.Cmd) (out, errs string, status int) {
	t.Helper()
	var o, e bytes.Buffer
	c.Stdout, c.Stderr = &o, &e
	if err := c.Run(); err != nil && c.ProcessState == nil {
		t.Fatal(err)
	}
	return o.String(), e.String(), c.ProcessState.ExitCode()
}

// left are the processes whose command line names the folder, and the mounts.
func left(dir string) string {
	var s []string
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range all {
		if b, _ := os.ReadFile(f); bytes.Contains(b, []byte(dir)) {
			s = append(s, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	if b, _ := os.ReadFile("/proc/self/mounts"); bytes.Contains(b, []byte(strings.ReplaceAll(dir, " ", `\040`))) {
		s = append(s, "a mount")
	}
	if _, err := os.Lstat(dir); err == nil {
		s = append(s, dir)
	}
	return strings.Join(s, "; ")
}

func TestATestbedIsAsDescribedWhateverItsFolderIsCalled(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"plain", "a b,c:d\\e"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), name)
			defer script(t, "down", dir)
			old := syscall.Umask(0o077)
			out, errs, status := script(t, "up", dir)
			syscall.Umask(old)
			if status != 0 {
				t.Fatalf("up: %d: %s", status, errs)
			}
			keys := map[string]string{}
			for line := range strings.Lines(out) {
				k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
				keys[k] = v
			}
			if keys["dir"] != dir || keys["socket"] != "/run/factotum/rpc" || keys["capfs"] != "/run/factotum/cap" || keys["ssh_port"] == "" {
				t.Errorf("up prints %s", out)
			}
			if _, errs, status := script(t, "up", dir); status == 0 || !strings.Contains(errs, "is in use") {
				t.Errorf("a second up: %d: %s", status, errs)
			}
			if out, errs, _ := script(t, "exec", dir, "id", "-nG", "alice"); !strings.Contains(out, "wizards") {
				t.Errorf("alice's groups: %s%s", out, errs)
			}
			ssh := exec.Command("ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
				"-o", "IdentitiesOnly=yes", "-i", dir+"/keys/bob", "-p", keys["ssh_port"], "bob@127.0.0.1", "id -un")
			if out, errs, _ := run(t, ssh); out != "bob\n" {
				t.Errorf("ssh: %s%s", out, errs)
			}
			// The way of exec: input, output, status, and nothing after it.
			c := exec.Command("../../scripts/testbed", "exec", dir, "sh", "-c", "cat; exit 37")
			c.Stdin = strings.NewReader("in and out")
			if out, _, status := run(t, c); out != "in and out" || status != 37 {
				t.Errorf("exec: %q, status %d", out, status)
			}
			if _, errs, status := script(t, "down", dir); status != 0 {
				t.Errorf("down: %d: %s", status, errs)
			}
			if l := left(dir); l != "" {
				t.Errorf("left behind: %s", l)
			}
		})
	}
}

func TestATestbedThatWasKilledIsTakenDown(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "bed")
	defer script(t, "down", dir)
	if _, errs, status := script(t, "up", dir); status != 0 {
		t.Fatalf("up: %s", errs)
	}
	for _, pids := range (&Bed{Dir: dir}).Processes() {
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if !Eventually(func() bool { return len((&Bed{Dir: dir}).Processes()) == 0 }) {
		t.Fatal("they do not end")
	}
	if _, errs, status := script(t, "exec", dir, "id"); status == 0 || !strings.Contains(errs, "is no longer up: testbed down") {
		t.Errorf("exec: %d: %s", status, errs)
	}
	if _, errs, status := script(t, "up", dir); status == 0 || !strings.Contains(errs, "is in use: testbed down") {
		t.Errorf("up: %d: %s", status, errs)
	}
	if _, errs, status := script(t, "down", dir); status != 0 {
		t.Errorf("down: %d: %s", status, errs)
	}
	if l := left(dir); l != "" {
		t.Errorf("left behind: %s", l)
	}
}

func TestATestbedThatCannotStartLeavesNothing(t *testing.T) {
	needRoot(t)
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := filepath.Join(t.TempDir(), "bed")
	_, errs, status := script(t, "up", dir, "--ssh-port", fmt.Sprint(ln.Addr().(*net.TCPAddr).Port))
	if status == 0 || !strings.Contains(errs, "testbed: sshfront did not start: ") || !strings.Contains(errs, "cannot bind") {
		t.Errorf("on a port that is taken: %d: %s", status, errs)
	}
	if l := left(dir); l != "" {
		t.Errorf("left behind: %s", l)
	}
}
