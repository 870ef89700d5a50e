package package_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/internal/proc"
	"p9auth/test/testbed"
)

// TestUnderRunit does what p9auth-install(7) says of machines without systemd: runsvdir
// supervises factotum, sshfront and a console.
func TestUnderRunit(t *testing.T) {
	b := testbed.Up(t)
	port := strings.TrimSpace(read(t, filepath.Join(b.Dir, "ssh_port")))
	for _, program := range []string{"sshfront", "factotum"} {
		for _, pid := range b.Pids(program) {
			syscall.Kill(pid, syscall.SIGTERM)
		}
		if !testbed.Eventually(func() bool { return len(b.Pids(program)) == 0 }) {
			t.Fatalf("the testbed's %s does not end", program)
		}
	}
	// The programs and runit where the services look for them.
	b.Sh(t, fmt.Sprintf("dir=%s top=%s port=%s\n", b.Dir, b.Top, port)+`for d in lib bin; do
	mkdir -p "$dir/overlay/usr$d.up" "$dir/overlay/usr$d.work"
	mount -t overlay o -o "lowerdir=/usr/$d,upperdir=$dir/overlay/usr$d.up,workdir=$dir/overlay/usr$d.work" /usr/$d
done
mkdir -p /usr/lib/p9auth /etc/sv /etc/service
cp "$top"/bin/* /usr/lib/p9auth/
cp -r "$top/dist/runit" /usr/lib/p9auth/
cp "$top"/build/runit/usr/bin/* /usr/bin/
echo Port "$port" >>/etc/p9auth/sshd_config`)

	// What a person at the second virtual console has.
	console := b.Start(t, "socat", "-,raw,echo=0", "PTY,link=/run/console,wait-slave")
	if !testbed.Eventually(func() bool { return b.Command("test", "-e", "/run/console").Run() == nil }) {
		t.Fatal("no terminal")
	}
	b.Sh(t, "mount --bind $(readlink /run/console) /dev/tty2")
	// A console stays when nobody has it open.
	holder := b.Command("sh", "-c", "exec sleep infinity </dev/tty2")
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	runsvdir := b.Command("runsvdir", "-P", "/etc/service")
	if err := runsvdir.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Command("sh", "-c", "sv force-shutdown /etc/service/*").Run()
		runsvdir.Process.Signal(syscall.SIGHUP)
		runsvdir.Wait()
	})

	b.Sh(t, `cp -r /usr/lib/p9auth/runit/factotum /etc/sv/
ln -s /etc/sv/factotum /etc/service/`)
	up := func(service string) {
		t.Helper()
		if !testbed.Eventually(func() bool {
			out, _ := b.Command("sv", "status", service).Output()
			return strings.HasPrefix(string(out), "run: ")
		}) {
			t.Fatalf("%s does not run", service)
		}
	}
	up("factotum")
	// It gives up the rights that systemd would take away.
	if !testbed.Eventually(func() bool {
		pids := b.Pids("factotum")
		if len(pids) != 1 {
			return false
		}
		st, err := proc.ReadStatus(pids[0])
		return err == nil && st.NoNewPrivs && st.Effective == 1<<unix.CAP_SYS_ADMIN && st.Bounding == st.Permitted && st.Bounding&(1<<unix.CAP_SYS_PTRACE|1<<unix.CAP_SETPCAP|1<<unix.CAP_NET_ADMIN) == 0
	}) {
		t.Error("factotum keeps rights")
	}
	b.Sh(t, `cp -r /usr/lib/p9auth/runit/p9auth-ssh /etc/sv/
ln -s /etc/sv/p9auth-ssh /etc/service/
cp -r /usr/lib/p9auth/runit/p9auth-getty /etc/sv/p9auth-getty-tty2
ln -s /etc/sv/p9auth-getty-tty2 /etc/service/`)
	up("p9auth-ssh")

	console.Expect(`login: $`)
	console.Send("alice\n")
	console.Expect(`Password: $`)
	console.Send("open-sesame\n")
	console.Expect(`\$ $`)
	if got := console.Run("id -un; tty"); got != "alice\n/dev/tty2" {
		t.Errorf("at the console: %s", got)
	}
	ssh := func() string {
		out, _ := exec.Command("ssh", "-F", "none", "-p", port, "-i", filepath.Join(b.Dir, "keys", "alice"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "alice@127.0.0.1", "id -un").CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	var got string
	in := func() bool { got = ssh(); return got == "alice" }
	if !testbed.Eventually(in) {
		t.Errorf("by ssh: %s", got)
	}
	for _, service := range []string{"factotum", "p9auth-ssh"} {
		b.Sh(t, "sv restart "+service+"; sv hup "+service)
		up(service)
		if got := console.Run("echo goes on"); got != "goes on" {
			t.Errorf("after sv restart %s: %s", service, got)
		}
		if !testbed.Eventually(in) {
			t.Errorf("by ssh after sv restart %s: %s", service, got)
		}
	}
	// runit starts the console again, and whatever else is killed.
	console.Send("exit\n")
	console.Expect(`login: $`)
	for _, pid := range b.Pids("factotum") {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	if !testbed.Eventually(in) {
		t.Errorf("by ssh after a kill of factotum: %s", got)
	}
	if out := b.Sh(t, "sv status /etc/service/*"); len(regexp.MustCompile(`(?m)^run: `).FindAllString(out, -1)) != 3 {
		t.Errorf("sv status: %s", out)
	}
}
