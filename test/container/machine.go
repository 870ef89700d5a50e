// Package container boots a Debian with p9auth in a container of systemd-nspawn(1):
// within seconds, with systemd, logind and the journal, as containers are run, and
// without their own kernel. `make test-containers` runs its tests; make vm-boot is the
// same with a kernel.
//
// The tree is made by "test/vm/debian/image -t"; a machine has a copy that ends with
// it. Its console is console-getty's. It has a network of its own, with lo only.
package container

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed"
)

// Machines set this: where image has put the tree and alice's key.
const dirVar = "P9AUTH_CONTAINER"

// ordinary makes the tree one of a container, which has no disk to mount and no audit, and
// whose host has the limits.
const ordinary = "set -e; : >/etc/fstab; rm -f /etc/systemd/system/multi-user.target.wants/audit* /etc/security/limits.d/test.conf\n"

// A Machine is one that runs. Its methods end the test on an error.
type Machine struct {
	Root    string        // its files, from here
	Console *testbed.Term // /dev/console
	upper   string        // what it has changed of the tree: the upper layer of an overlay
	dir     string
	leader  int // its process 1, from here
}

// Boot makes a copy of the tree, has prepare, a shell script, change it in a chroot,
// and boots it. options are more of systemd-nspawn's.
func Boot(t *testing.T, prepare string, options ...string) *Machine {
	t.Helper()
	return boot(t, t.TempDir(), t.TempDir(), ordinary+prepare, options...)
}

// boot boots the tree with what upper, a directory, has changed of it. work is an empty
// directory of the same file system, for overlayfs.
func boot(t *testing.T, upper, work, prepare string, options ...string) *Machine {
	t.Helper()
	dir := os.Getenv(dirVar)
	if dir == "" {
		t.Skip("needs a Debian tree, which make test-containers makes")
	}
	m := &Machine{dir: dir, upper: upper, Root: filepath.Join(t.TempDir(), "root")}
	if err := os.Mkdir(m.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("overlay", m.Root, "overlay", 0, "lowerdir="+dir+"/root,upperdir="+upper+",workdir="+work); err != nil {
		t.Fatalf("overlay: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(m.Root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.Command("chroot", m.Root, "/bin/sh", "-c", prepare).CombinedOutput(); err != nil {
		t.Fatalf("prepare: %v: %s", err, out)
	}
	name := "p9" + strconv.Itoa(os.Getpid()) + strconv.Itoa(time.Now().Nanosecond()%1000)
	cmd := exec.Command("systemd-nspawn", append([]string{"--boot", "--quiet", "--directory=" + m.Root, "--machine=" + name, "--register=no", "--keep-unit",
		"--private-network", "--bind=/dev/fuse", "--console=interactive"}, options...)...)
	// systemd 256 and later want control groups of version 2.
	cmd.Env = append(os.Environ(), "UNIFIED_CGROUP_HIERARCHY=1", "TERM=linux")
	m.Console = testbed.StartTerm(t, cmd)
	t.Cleanup(func() { m.stop(t, cmd) })
	if !testbed.Eventually(func() bool { m.leader = child(cmd.Process.Pid); return m.leader != 0 && m.up() }) {
		t.Fatalf("it does not boot; the console:\n%s", m.Console.Screen())
	}
	return m
}

// stop kills process 1, and with it all others. systemd-nspawn ends then.
func (m *Machine) stop(t *testing.T, cmd *exec.Cmd) {
	if t.Failed() && m.leader != 0 {
		out, _ := m.Command("journalctl", "-b", "--no-pager", "-n", "100", "-o", "short-precise").CombinedOutput()
		t.Logf("the journal:\n%s", out)
	}
	if m.leader != 0 {
		syscall.Kill(m.leader, syscall.SIGKILL)
	} else {
		cmd.Process.Kill()
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("systemd-nspawn does not end")
		cmd.Process.Kill()
	}
}

// child is the only child of a process, or 0.
func child(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// up says whether systemd has started what it starts.
func (m *Machine) up() bool {
	out, _ := m.Command("systemctl", "is-system-running").CombinedOutput()
	state := strings.TrimSpace(string(out))
	return state == "running" || state == "degraded"
}

// Command is a command of root's in the machine, outside of its services.
func (m *Machine) Command(argv ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wdns=/root"}, argv...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=linux", "HOME=/root"}
	return cmd
}

// Sh runs a script as root in the machine and returns what it prints, which no command
// of it that fails ends.
func (m *Machine) Sh(t *testing.T, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*testbed.Patience)
	defer cancel()
	cmd := m.Command("/bin/sh", "-c", script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer stop()
	cmd.Wait()
	if ctx.Err() != nil {
		t.Fatalf("%s does not end: %s", script, out.String())
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// SSH runs ssh from here in the machine's network, with alice's key.
func (m *Machine) SSH(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.leader), "--net", "ssh", "-F", "none", "-i", m.dir + "/alice",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}, args...)...)
}

// Terminal makes a terminal of the machine, which has it at /dev/NAME, and returns the
// person there.
func (m *Machine) Terminal(t *testing.T, name string) *testbed.Term {
	t.Helper()
	master, n := m.PTY(t)
	term := testbed.AtTerminal(t, master)
	if out := m.Sh(t, fmt.Sprintf("touch /dev/%s && mount --bind /dev/pts/%d /dev/%s", name, n, name)); out != "" {
		t.Fatalf("mount: %s", out)
	}
	return term
}

// PTY makes a terminal /dev/pts/N of the machine, and returns its master and N.
func (m *Machine) PTY(t *testing.T) (*os.File, int) {
	t.Helper()
	master, err := os.OpenFile(fmt.Sprintf("/proc/%d/root/dev/pts/ptmx", m.leader), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return master, n
}
