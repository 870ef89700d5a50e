package capfs

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/internal/becomerecord"
)

// What PAM's modules have set of the worker, become takes on: see becomerecord.Process.

// executes runs become for uid 1500 with the record and the capabilities that it asks
// for, as the kernel gives them where it is served.
func executes(t *testing.T, b *becomerecord.Bound) string {
	t.Helper()
	command := image(t, runnable()[0], becomerecord.Record{From: 1500, UID: 2000, Groups: []uint32{2000}, Bound: b})
	if err := unix.Setxattr(command[0], "security.capability", (&file{caps: requiredCaps | capsOf(b)}).capability(), 0); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command[0])
	cmd.Dir = "/usr"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1500, Gid: 1500}}
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// worker is a process with a mount namespace of its own, in which there is /usr/here.
func worker(t *testing.T) *becomerecord.Mounts {
	t.Helper()
	c := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", "mount -t tmpfs tmpfs /usr/games && touch /usr/games/here && echo ready && exec /bin/cat")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); c.Wait() })
	if b := make([]byte, 6); true {
		if _, err := out.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	m := &becomerecord.Mounts{Path: fmt.Sprintf("/proc/%d/ns/mnt", c.Process.Pid)}
	var st unix.Stat_t
	if err := unix.Stat(m.Path, &st); err != nil {
		t.Fatal(err)
	}
	m.Dev, m.Ino = st.Dev, st.Ino
	return m
}

func TestTheMountNamespaceOfTheSessionIsEntered(t *testing.T) {
	needRoot(t)
	m := worker(t)
	other := *m
	other.Ino++
	none := *m
	none.Path = "/proc/0/ns/mnt"
	for _, c := range []struct {
		name   string
		mounts *becomerecord.Mounts
		dir    string
		want   string
	}{
		{"none", nil, "/", "/ outside 0000000000000000\n"},
		{"the worker's", m, "/", "/ inside 0000000000000000\n"},
		{"the worker's, in the redeemer's directory", m, "", "/usr inside 0000000000000000\n"},
		{"another's", &other, "/", "become: another mount namespace has taken the place of " + m.Path + "\n"},
		{"one that has gone", &none, "/", "become: cannot open /proc/0/ns/mnt: no such file or directory\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := shell(`echo $(pwd) $(test -e /usr/games/here && echo inside || echo outside) $(sed -n 's/CapPrm:\t//p' /proc/self/status)`)
			b.Mounts, b.Dir = c.mounts, c.dir
			if got := executes(t, b); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTheProgramHasTheCapabilitiesOfTheRecordAndNoOthers(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name                 string
		inheritable, ambient uint64
		want                 string
	}{
		{"none", 0, 0, "0000000000000000 0000000000000000 0000000000000000 0000000000000000\n"},
		{"inheritable", 1<<unix.CAP_KILL | 1<<unix.CAP_SYSLOG, 0, "0000000400000020 0000000000000000 0000000000000000 0000000000000000\n"},
		{"one of two ambient", 1<<unix.CAP_KILL | 1<<unix.CAP_SYSLOG, 1 << unix.CAP_SYSLOG, "0000000400000020 0000000400000000 0000000400000000 0000000400000000\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := shell(`echo $(sed -nE 's/Cap(Inh|Prm|Eff|Amb):\t//p' /proc/self/status)`)
			b.Inheritable, b.Ambient = c.inheritable, c.ambient
			if got := executes(t, b); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// ttyStatus asks the kernel whether the terminal of its process is audited: enabled and
// log_passwd of struct audit_tty_status.
const ttyStatus = `
import socket, struct
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)
s.send(struct.pack('IHHII', 16, 1016, 1, 1, 0))
print(*struct.unpack('II', s.recv(99)[16:24]))
`

func TestWhatIsTypedIsAuditedIfTheRecordSaysSo(t *testing.T) {
	needRoot(t)
	for _, want := range []string{"0 0\n", "1 0\n", "1 1\n"} {
		b := shell("")
		b.Path, b.Argv = "/usr/bin/python3", []string{"python3", "-c", ttyStatus}
		b.TTYAudit = map[string]uint32{"0 0\n": 0, "1 0\n": 1, "1 1\n": 3}[want]
		// Root, who may ask.
		command := image(t, runnable()[0], becomerecord.Record{Groups: []uint32{0}, Bound: b})
		if out, err := exec.Command(command[0]).CombinedOutput(); string(out) != want || err != nil {
			t.Errorf("got %q, %v, want %q", out, err, want)
		}
	}
}

// contexts makes a /proc in which a context can be set, as files of a tmpfs. The other
// one is at /mnt.
const contexts = "mount --bind /proc /mnt && mount -t tmpfs -o mode=755 proc /proc && mkdir -p /proc/thread-self/attr && : >/proc/thread-self/attr/exec && : >/proc/thread-self/attr/keycreate && "

// TestTheContextIsWritten where the kernel has it set: a file of a tmpfs stands for that.
func TestTheContextIsWritten(t *testing.T) {
	needRoot(t)
	b := shell("cat /proc/thread-self/attr/exec; echo; cat /proc/thread-self/attr/keycreate; echo")
	b.Context = "staff_u:staff_r:staff_t:s0"
	command := image(t, runnable()[0], becomerecord.Record{UID: 2000, Groups: []uint32{2000}, Bound: b})
	out, err := exec.Command("unshare", "-m", "sh", "-c", contexts+"exec "+command[0]).CombinedOutput()
	if want := b.Context + "\n" + b.Context + "\n"; string(out) != want || err != nil {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
	// The kernel of this machine may have no contexts.
	if enforced, _ := filepath.Glob("/sys/fs/selinux/enforce"); enforced == nil {
		out, err := exec.Command(command[0]).CombinedOutput()
		if err == nil || !bytes.HasPrefix(out, []byte("become: cannot ")) {
			t.Errorf("without contexts: got %q, %v", out, err)
		}
	}
}

// TestTheSessionKeyringIsTheNamedOne which its maker finds by the name; afterwards
// nobody does.
func TestTheSessionKeyringIsTheNamedOne(t *testing.T) {
	needRoot(t)
	b := shell("keyctl rdescribe @s; keyctl search @s user of-the-module; keyctl session " + t.Name() + " keyctl search @s user of-the-module")
	b.Keyring = t.Name()
	command := image(t, runnable()[0], becomerecord.Record{UID: 2000, Groups: []uint32{2000}, Bound: b})
	script := fmt.Sprintf(`r=$(keyctl newring %s @s); keyctl add user of-the-module x $r >/dev/null; keyctl setperm $r 0x3f0b0000
keyctl setperm $(keyctl search $r user of-the-module) 0x3f3f0000; keyctl chown $r 2000; exec %s`, t.Name(), command[0])
	out, _ := exec.Command("keyctl", "session", "-", "sh", "-c", script).CombinedOutput()
	got := strings.Split(string(out), "\n")
	if len(got) < 4 || got[1] != "keyring;2000;0;3f030000;"+t.Name() || strings.Contains(got[2], "search") || !strings.Contains(string(out), "Required key not available") {
		t.Errorf("got %s", out)
	}
}

func TestARedeemerWithoutTheRightsOfTheGrantGetsNothing(t *testing.T) {
	s := serve(t, Options{})
	for _, c := range []struct {
		drop, log string
		process   becomerecord.Process
	}{
		{"cap_sys_admin", "lacks cap_sys_admin in its bounding set", becomerecord.Process{Mounts: &becomerecord.Mounts{Path: "/proc/1/ns/mnt", Dev: 1, Ino: 2}}},
		{"cap_syslog", "lacks capability 34 in its bounding set", becomerecord.Process{Inheritable: 1 << unix.CAP_SYSLOG}},
		{"cap_audit_control", "lacks cap_audit_control in its bounding set", becomerecord.Process{TTYAudit: 1}},
	} {
		b := shell("echo in")
		b.Process = c.process
		s.refusedWithout(c.drop, b)
		s.wantLog(c.log)
	}
	b := shell("sed -nE 's/Cap(Inh|Amb):\t//p' /proc/self/status")
	b.Process = becomerecord.Process{Inheritable: 1<<unix.CAP_SYSLOG | 1<<unix.CAP_KILL, Ambient: 1 << unix.CAP_KILL, Mounts: worker(t)}
	if got := s.execute("bound", 1500, s.bind(1500, b, 2000, 2000).Reveal()); got != "0000000400000020\n0000000000000020" {
		t.Errorf("with them: %s", got)
	}
}
