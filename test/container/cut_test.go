//go:build containers

package container

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed"
)

// Each command of the switch, those of functions and of subshells too, asks here before
// it begins, and waits for the answer.
const asking = `exec 8<>/run/cut/ask 9<>/run/cut/go
set -T
trap 'echo "${BASH_COMMAND%%
*}" >&8; read -r _ <&9' DEBUG
. /usr/sbin/p9auth-switch`

// A cut is what the disk of a machine is before a command of the switch.
type cut struct {
	disk disk
	n    int    // the first command before which it is so, from 1
	what string // that command
}

// A disk is where a machine keeps what it has changed of its tree.
type disk interface {
	// state is another string when something has changed.
	state(t *testing.T) string
	// copied is a copy of it as it would be if the machine ended.
	copied(t *testing.T) disk
	// boot boots a machine that has it.
	boot(t *testing.T, prepare string) *Machine
}

// cuts runs p9auth-switch on a machine and keeps its disk before each command that finds
// another one than the command before it. It returns these and how many commands there
// were.
func cuts(t *testing.T, m *Machine, d disk, args ...string) (all []cut, commands int) {
	t.Helper()
	run := fmt.Sprintf("/proc/%d/root/run/cut/", m.leader)
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run)
	pipe := func(name string) *os.File {
		if err := unix.Mkfifo(run+name, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(run+name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	ask, answer := pipe("ask"), pipe("go")
	defer ask.Close()
	defer answer.Close()
	cmd := m.Command(append([]string{"bash", "-c", asking, "p9auth-switch"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const end = "\x00\n"
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait(); fmt.Fprint(ask, end) }()
	last := ""
	for lines := bufio.NewReader(ask); ; {
		what, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if what == end {
			break
		}
		commands++
		if state := d.state(t); state != last {
			last = state
			all = append(all, cut{d.copied(t), commands, strings.TrimSpace(what)})
		}
		fmt.Fprintln(answer)
	}
	if err := <-ended; err != nil {
		t.Fatalf("p9auth-switch %s: %v: %s", strings.Join(args, " "), err, out.String())
	}
	return all, commands
}

// files is the disk of a machine whose processes are killed: files that all have been
// written to, as the kernel goes on.
type files string

func (d files) boot(t *testing.T, prepare string) *Machine {
	t.Helper()
	return boot(t, string(d), t.TempDir(), prepare)
}

func (d files) copied(t *testing.T) disk {
	t.Helper()
	to := t.TempDir()
	if out, err := exec.Command("cp", "-a", "--reflink=auto", string(d)+"/.", to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	return files(to)
}

// state leaves out what daemons keep there meanwhile.
func (d files) state(t *testing.T) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(string(d), func(path string, e fs.DirEntry, err error) error {
		switch name := strings.TrimPrefix(path, string(d)); {
		case errors.Is(err, fs.ErrNotExist): // a daemon has removed it meanwhile
			return nil
		case err != nil:
			return err
		case name == "/tmp", name == "/var/log", name == "/var/tmp", name == "/var/lib/systemd":
			return fs.SkipDir
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		target, _ := os.Readlink(path)
		fmt.Fprintln(h, path, target, st.Mode, st.Uid, st.Gid, st.Nlink)
		if !e.IsDir() {
			fmt.Fprintln(h, st.Ino, st.Size, st.Mtim)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(h.Sum(nil))
}

// An image is the disk of a machine that loses its power: a file with an ext4, which has
// what the kernel has written to it, and nothing of what it meant to write. Its journal is
// written as often as the option says, and a file's data may be written after its name.
type image struct {
	file, commit string // commit is in seconds
	device       string // of the loop device that has it, in /sys/block
}

func newImage(t *testing.T, commit string) *image {
	t.Helper()
	d := &image{file: filepath.Join(t.TempDir(), "disk"), commit: commit}
	if out, err := exec.Command("sh", "-c", "truncate -s 128M "+d.file+" && mke2fs -q -t ext4 -E lazy_itable_init=0 "+d.file).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	return d
}

// boot mounts it, where the file system mends itself by its journal.
func (d *image) boot(t *testing.T, prepare string) *Machine {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,noauto_da_alloc,commit="+d.commit, d.file, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	out, err := exec.Command("findmnt", "-n", "-o", "SOURCE", dir).Output()
	if err != nil {
		t.Fatalf("findmnt: %v", err)
	}
	d.device = "/sys/block/" + filepath.Base(strings.TrimSpace(string(out))) + "/stat"
	for _, sub := range []string{"/files", "/work"} {
		if err := os.MkdirAll(dir+sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return boot(t, dir+"/files", dir+"/work", prepare)
}

// state is how much has been written to it.
func (d *image) state(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(d.device)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(b))[4:7], " ") // see stat in block/stat.rst of Linux
}

func (d *image) copied(t *testing.T) disk {
	t.Helper()
	to := &image{file: filepath.Join(t.TempDir(), "disk"), commit: d.commit}
	for range 20 {
		before := d.state(t)
		if out, err := exec.Command("cp", "--sparse=always", d.file, to.file).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v: %s", err, out)
		}
		if d.state(t) == before {
			return to
		}
	}
	t.Fatal("the disk is written to all the time")
	return nil
}

// Wherever all processes of the machine are killed during a switch, either way, or its power
// is cut, it answers at port 22 after the next boot, and people log in there and at the
// console and become others. The same switch, said again, comes to its end. Without
// P9AUTH_CUTS=all every eighth disk is booted, others each time.
func TestPort22AnswersAfterTheNextBootWhereverASwitchIsCut(t *testing.T) {
	const setIDs = "chmod u+s /usr/bin/su /usr/bin/passwd; chmod g+s /usr/sbin/unix_chkpwd\n"
	disks := []struct {
		name string
		make func(t *testing.T) disk
	}{
		{"processes are killed", func(t *testing.T) disk { return files(t.TempDir()) }},
		{"the power of a prompt disk is cut", func(t *testing.T) disk { return newImage(t, "1") }},
		{"the power of a late disk is cut", func(t *testing.T) disk { return newImage(t, "300") }},
	}
	every := 8
	if os.Getenv("P9AUTH_CUTS") == "all" {
		every = 1
	}
	var tried, answered atomic.Int32
	t.Cleanup(func() { t.Logf("cuts: %d, of which %d answered", tried.Load(), answered.Load()) })
	for _, s := range []struct{ name, before, args, prepare string }{
		{"ssh on", "", accepted + " ssh on", ""},
		{"ssh off", accepted + " ssh on", "ssh off", ""},
		{"ssh on from ssh.socket at other ports", "", accepted + " ssh on", otherPorts},
		{"ssh off to ssh.socket at other ports", accepted + " ssh on", "ssh off", otherPorts},
		{"console on", "", "console on", ""},
		{"console off", "console on", "console off", ""},
		{"local on", "", "local on", setIDs},
		{"local off", "local on", "local off", setIDs},
	} {
		for _, d := range disks {
			t.Run(s.name+" while "+d.name, func(t *testing.T) {
				t.Parallel()
				disk := d.make(t)
				m := disk.boot(t, ordinary+s.prepare)
				if s.before != "" {
					want(t, m.Sh(t, "p9auth-switch "+s.before+"; echo status $?"), "status 0")
				}
				m.Sh(t, "sync")
				all, commands := cuts(t, m, disk, strings.Fields(s.args)...)
				complete := state(t, m)
				for i := rand.IntN(min(every, len(all))); i < len(all); i += every {
					c := all[i]
					tried.Add(1)
					if t.Run(fmt.Sprintf("before command %d", c.n), func(t *testing.T) {
						t.Log(c.what)
						m := c.disk.boot(t, "rm -f /run/nologin")
						answers(t, m)
						want(t, m.Sh(t, "p9auth-switch "+s.args+" 2>&1; echo status $?"), "status 0")
						if got := state(t, m); got != complete {
							t.Errorf("said again, it leaves\n%s\nnot\n%s", got, complete)
						}
					}) {
						answered.Add(1)
					}
				}
				t.Logf("%s while %s: %d commands, before which there are %d disks", s.name, d.name, commands, len(all))
			})
		}
	}
}

// state is all that the switch changes. Whether sshd's socket had started ssh.service when
// it was noted depends on who was logging in.
func state(t *testing.T, m *Machine) string {
	t.Helper()
	return m.Sh(t, `p9auth-switch status
find /etc/systemd/system /var/lib/p9auth /usr/bin/su* /usr/bin/passwd* /usr/bin/doas* /usr/sbin/unix_chkpwd* ! -type d -printf '%p %l %m %u:%g\n' | sort
grep -r . /etc/systemd/system/*p9auth*.d /etc/systemd/system/*/zz-p9auth.conf /var/lib/p9auth 2>/dev/null | sed 's/active=" ssh.socket ssh.service"/active=" ssh.socket"/'
sha256sum /etc/p9auth/factotum.conf
dpkg-divert --list; dpkg-statoverride --list
systemctl is-active ssh.socket p9auth-ssh.socket p9auth-ssh.service factotum.service; ss -ltnH | awk '{ print $4 }' | sort`)
}

// otherPorts has sshd started by its socket, at port 22 and another one.
const otherPorts = `mkdir -p /etc/systemd/system/ssh.socket.d
printf '[Socket]\nListenStream=127.0.0.1:2222\n' >/etc/systemd/system/ssh.socket.d/port.conf
systemctl disable ssh.service; systemctl enable ssh.socket`

// answers is an error unless alice gets in by ssh, su is there, and the console asks.
func answers(t *testing.T, m *Machine) {
	t.Helper()
	var out []byte
	if !testbed.Eventually(func() bool {
		var err error
		out, err = m.SSH("alice@127.0.0.1", "id -un; su -c : 2>&1 </dev/null | head -n 1").CombinedOutput()
		return err == nil
	}) {
		t.Errorf("alice does not get in by ssh: %s", out)
	}
	want(t, string(out), "alice", "Password: .*")
	prompt(t, m, m.Console, "console-getty.service")
}
