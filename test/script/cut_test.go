package script

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// The machine of these tests is that of p9auth-switch.txtar, but what is enabled is
// decided by the real systemctl, with the real units below --root. step, which
// every command of the switch runs through, kills the switch when its turn has come.
const step = `#!/bin/sh
n=$(($(cat $WORK/steps 2>/dev/null || echo 0) + 1))
echo $n >$WORK/steps
[ $n != "$(cat $WORK/cut 2>/dev/null)" ] || kill -9 0
`

const cutSystemctl = `#!/bin/sh
root=$WORK/root
case $1 in
is-enabled) exec /usr/bin/systemctl --root=$root -q is-enabled $3 2>/dev/null ;;
enable | disable)
	verb=$1
	shift
	for u in "$@"; do
		[ $u = -q ] && continue
		step
		/usr/bin/systemctl --root=$root -q $verb $u || exit
	done ;;
start | stop)
	verb=$1
	shift
	for u in "$@"; do
		step
		$WORK/bin/systemctl-of-session $verb $u
	done ;;
*) exec $WORK/bin/systemctl-of-session "$@" ;;
esac
`

// sshUnits are those of Debian, as far as [Install] and conflicts go.
var sshUnits = map[string]string{
	"ssh.service": "[Unit]\nDescription=OpenBSD Secure Shell server\n[Service]\nExecStart=/usr/sbin/sshd -D\n[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n",
	"ssh.socket":  "[Unit]\nDescription=OpenBSD Secure Shell server socket\nConflicts=ssh.service\n[Socket]\nListenStream=22\nAccept=yes\n[Install]\nWantedBy=sockets.target\n",
}

// cutMachine makes such a machine where sshd is on by unit, and returns its directory.
func cutMachine(t *testing.T, unit string) string {
	t.Helper()
	dir := t.TempDir()
	a, err := txtar.ParseFile("p9auth-switch.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files {
		write(t, filepath.Join(dir, f.Name), string(f.Data))
	}
	if err := os.Rename(dir+"/bin/systemctl", dir+"/bin/systemctl-of-session"); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/bin/systemctl", cutSystemctl)
	write(t, dir+"/bin/step", step)
	for _, c := range []string{"mkdir", "mv", "rm", "rmdir", "sync"} {
		path, err := exec.LookPath(c)
		if err != nil {
			t.Fatal(err)
		}
		if c == "sync" {
			path = "true" // the machine that tests has other work to do
		}
		write(t, dir+"/bin/"+c, "#!/bin/sh\nstep\nexec "+path+" \"$@\"\n")
	}
	write(t, dir+"/usr/sbin/sshd", "#!/bin/sh\n[ \"$1\" != -T ] || echo listenaddress 192.0.2.7:2222\n")
	units := dir + "/root/usr/lib/systemd/system/"
	for name, text := range sshUnits {
		write(t, units+name, text)
	}
	for _, name := range []string{"p9auth-ssh.service", "p9auth-ssh.socket", "factotum.service", "factotum.socket"} {
		b, err := os.ReadFile("../../dist/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, units+name, string(b))
	}
	for _, d := range []string{"/run/systemd/system", "/run/sshd", "/units/active", "/units/enabled", "/root/etc/systemd/system"} {
		if err := os.MkdirAll(dir+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir+"/units/active/"+unit, "")
	if out, err := exec.Command("/usr/bin/systemctl", "--root="+dir+"/root", "-q", "enable", unit).CombinedOutput(); err != nil {
		t.Fatalf("systemctl --root: %v: %s", err, out)
	}
	if err := relocate("../../dist/p9auth-switch", dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// switchCut runs p9auth-switch, which is killed before its step number cut, 0 for
// never. It returns how many steps there were, and what was printed.
func switchCut(t *testing.T, dir string, cut int, args ...string) (int, string) {
	t.Helper()
	os.Remove(dir + "/steps")
	write(t, dir+"/cut", strconv.Itoa(cut))
	cmd := exec.Command(dir+"/bin/p9auth-switch", args...)
	cmd.Env = []string{"WORK=" + dir, "PATH=" + dir + "/bin:" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.CombinedOutput()
	if killed := cmd.ProcessState.ExitCode() < 0; killed != (cut > 0) || (err != nil && !killed) {
		t.Fatalf("p9auth-switch %s, cut at %d: %v\n%s", strings.Join(args, " "), cut, err, out)
	}
	b, err := os.ReadFile(dir + "/steps")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n, string(out)
}

// boot is what runs after the next start of the machine: what is enabled. It returns
// which server has port 22: our socket is there before any service of sshd.
func boot(t *testing.T, dir string) string {
	t.Helper()
	on := map[string]bool{}
	for _, u := range []string{"ssh.service", "ssh.socket", "p9auth-ssh.socket", "p9auth-ssh.service"} {
		on[u] = exec.Command("/usr/bin/systemctl", "--root="+dir+"/root", "-q", "is-enabled", u).Run() == nil
	}
	if err := os.RemoveAll(dir + "/units/active"); err != nil {
		t.Fatal(err)
	}
	active := func(u string) string { write(t, dir+"/units/active/"+u, ""); return u }
	switch {
	case on["p9auth-ssh.socket"], on["p9auth-ssh.service"]: // the service wants its socket
		return active("p9auth-ssh.socket")
	case on["ssh.socket"]:
		return active("ssh.socket")
	case on["ssh.service"]:
		return active("ssh.service")
	}
	os.MkdirAll(dir+"/units/active", 0o755)
	return ""
}

func TestPort22AnswersWhereverTheSwitchIsCut(t *testing.T) {
	if _, err := os.Stat("/usr/bin/systemctl"); err != nil {
		t.Skip(err)
	}
	// Each cut takes a second; without P9AUTH_CUTS=all a few are tried, others each time.
	every, units := 8, []string{"ssh.service"}
	if os.Getenv("P9AUTH_CUTS") == "all" {
		every, units = 1, []string{"ssh.service", "ssh.socket"}
	}
	count := 0
	for _, unit := range units {
		for _, way := range []string{"on", "off"} {
			other := map[string]string{"on": "off", "off": "on"}[way]
			machine := func() string {
				dir := cutMachine(t, unit)
				if way == "off" {
					switchCut(t, dir, 0, "ssh", "on")
				}
				return dir
			}
			all, _ := switchCut(t, machine(), 0, "ssh", way)
			if all < 8 {
				t.Fatalf("ssh %s: only %d steps", way, all)
			}
			for cut := 1 + rand.IntN(every); cut <= all; cut += every {
				count++
				what := fmt.Sprintf("%s, ssh %s cut before step %d of %d", unit, way, cut, all)
				dir := machine()
				switchCut(t, dir, cut, "ssh", way)
				if boot(t, dir) == "" {
					t.Errorf("%s: nothing answers after the next boot", what)
					continue
				}
				// Said again, it comes to its end, and so does the way back.
				want := map[string]string{"on": "p9auth-ssh.socket", "off": unit}
				for _, w := range []string{way, other} {
					_, out := switchCut(t, dir, 0, "ssh", w)
					if got := boot(t, dir); got != want[w] {
						t.Errorf("%s: after ssh %s and a boot %q answers, want %s\n%s", what, w, got, want[w], out)
					}
				}
			}
		}
	}
	t.Logf("cut at %d places", count)
}
