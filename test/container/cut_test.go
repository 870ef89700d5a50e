//go:build containers

package container

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	upper string // where
	n     int    // the first command before which it is so, from 1
	what  string // that command
}

// cuts runs p9auth-switch on a machine and keeps the disk before each command that finds
// another one than the command before it. It returns these and how many commands there
// were. To kill everything leaves the disk as it is at that moment, so a machine that
// boots from there is one that was cut there.
func cuts(t *testing.T, m *Machine, args ...string) (all []cut, commands int) {
	t.Helper()
	run := fmt.Sprintf("/proc/%d/root/run/cut/", m.leader)
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run)
	for _, f := range []string{"ask", "go"} {
		if err := unix.Mkfifo(run+f, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ask, err := os.OpenFile(run+"ask", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ask.Close()
	answer, err := os.OpenFile(run+"go", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	cmd := m.Command(append([]string{"bash", "-c", asking, "p9auth-switch"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait(); fmt.Fprintln(ask, "\x00") }()
	last := ""
	for lines := bufio.NewReader(ask); ; {
		what, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if what == "\x00\n" {
			break
		}
		commands++
		if disk := disk(t, m); disk != last {
			last = disk
			upper := t.TempDir()
			if out, err := exec.Command("cp", "-a", "--reflink=auto", m.upper+"/.", upper).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v: %s", err, out)
			}
			all = append(all, cut{upper, commands, strings.TrimSpace(what)})
		}
		fmt.Fprintln(answer)
	}
	if err := <-ended; err != nil {
		t.Fatalf("p9auth-switch %s: %v: %s", strings.Join(args, " "), err, out.String())
	}
	return all, commands
}

// disk is a hash of what the machine has on its disk, without what its daemons keep
// there meanwhile.
func disk(t *testing.T, m *Machine) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(m.upper, func(path string, d fs.DirEntry, err error) error {
		switch name := strings.TrimPrefix(path, m.upper); {
		case err != nil:
			return err
		case name == "/tmp", name == "/var/log", name == "/var/tmp", name == "/var/lib/systemd":
			return fs.SkipDir
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		target, _ := os.Readlink(path)
		fmt.Fprintln(h, path, target, st.Mode, st.Uid, st.Gid, st.Nlink)
		if !d.IsDir() {
			fmt.Fprintln(h, st.Ino, st.Size, st.Mtim)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(h.Sum(nil))
}

// Wherever everything of the machine ends during a switch, either way, it answers at port
// 22 after the next boot, and people log in there and at the console and become others.
// The same switch, said again, comes to its end.
func TestPort22AnswersAfterTheNextBootWhereverASwitchIsCut(t *testing.T) {
	const accept = "-a hostkeyalgorithms,ciphers,kexalgorithms "
	for _, s := range []struct{ name, before, args, prepare string }{
		{"ssh on", "", accept + "ssh on", ""},
		{"ssh off", accept + "ssh on", "ssh off", ""},
		{"ssh on from ssh.socket at other ports", "", accept + "ssh on", otherPorts},
		{"ssh off to ssh.socket at other ports", accept + "ssh on", "ssh off", otherPorts},
		{"console on", "", "console on", ""},
		{"console off", "console on", "console off", ""},
		{"local on", "", "local on", "chmod u+s /usr/bin/su /usr/bin/passwd; chmod g+s /usr/sbin/unix_chkpwd"},
		{"local off", "local on", "local off", "chmod u+s /usr/bin/su /usr/bin/passwd; chmod g+s /usr/sbin/unix_chkpwd"},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			m := Boot(t, s.prepare)
			if s.before != "" {
				want(t, m.Sh(t, "p9auth-switch "+s.before+"; echo status $?"), "status 0")
			}
			all, commands := cuts(t, m, strings.Fields(s.args)...)
			complete := state(t, m)
			for _, c := range all {
				t.Run(fmt.Sprintf("before command %d", c.n), func(t *testing.T) {
					t.Log(c.what)
					m := boot(t, c.upper, "rm -f /run/nologin")
					answers(t, m)
					want(t, m.Sh(t, "p9auth-switch "+s.args+" 2>&1; echo status $?"), "status 0")
					if got := state(t, m); got != complete {
						t.Errorf("said again, it leaves\n%s\nnot\n%s", got, complete)
					}
				})
			}
			t.Logf("%s: %d commands, which %d disks come before; each answers", s.name, commands, len(all))
		})
	}
}

// state is all that the switch changes.
func state(t *testing.T, m *Machine) string {
	t.Helper()
	return m.Sh(t, `p9auth-switch status
find /etc/systemd/system /var/lib/p9auth /usr/bin/su* /usr/bin/passwd* /usr/bin/doas* /usr/sbin/unix_chkpwd* ! -type d -printf '%p %l %m %u:%g\n' | sort
grep -r . /etc/systemd/system/*p9auth*.d /etc/systemd/system/*/zz-p9auth.conf /var/lib/p9auth
sha256sum /etc/p9auth/factotum.conf
dpkg-divert --list; dpkg-statoverride --list
systemctl is-active ssh.service ssh.socket p9auth-ssh.socket p9auth-ssh.service factotum.service; ss -ltnH | awk '{ print $4 }' | sort`)
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
