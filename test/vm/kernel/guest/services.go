package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shell is a shell script that runs as a user without rights.
func shell(uid int, script string) *exec.Cmd {
	c := exec.Command("/bin/bash", "-c", script)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	c.Env = []string{"PATH=/usr/bin:/bin"}
	return c
}

// examples runs those of p9auth(4), which test/vm/kernel/vm took out of the page:
// scripts of root's, and what the page says that they print.
func examples() {
	scripts, _ := filepath.Glob("/examples/*.sh")
	for _, name := range scripts {
		run("p9auth(4): "+strings.TrimSuffix(filepath.Base(name), ".sh")+" works as printed", func(t *T) {
			if strings.Contains(name, "sha1") {
				unloaded(t)
				t.must(load("sha1=1"))
			}
			output, err := os.ReadFile(strings.TrimSuffix(name, ".sh") + ".out")
			t.must(err)
			c := exec.Command("/bin/bash", "-eu", name)
			c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			got, err := c.CombinedOutput()
			if err != nil {
				t.Errorf("%v", err)
			}
			want(t, "printed", strings.TrimSpace(string(got)), strings.TrimSpace(string(output)))
		})
	}
	run("the module is loaded with its defaults", func(t *T) {
		unloaded(t)
		t.must(load(""))
	})
}

const programs = "/usr/lib/p9auth/"

// A daemon is a program that runs in the background, and its log.
type daemon struct {
	cmd *exec.Cmd
	log string
}

func start(t *T, log string, argv ...string) *daemon {
	f, err := os.Create(log)
	t.must(err)
	defer f.Close()
	d := &daemon{cmd: exec.Command(argv[0], argv[1:]...), log: log}
	d.cmd.Stdout, d.cmd.Stderr = f, f
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	t.must(d.cmd.Start())
	return d
}

// says waits until the log has a text.
func (d *daemon) says(t *T, text string) {
	has := func() bool {
		b, _ := os.ReadFile(d.log)
		return bytes.Contains(b, []byte(text))
	}
	if !eventually(has) {
		b, _ := os.ReadFile(d.log)
		t.Fatalf("no %q in %s: %s", text, d.log, b)
	}
}

func (d *daemon) stop() {
	d.cmd.Process.Signal(unix.SIGTERM)
	d.cmd.Wait()
}

// services has a person log in at the console, and one by ssh.
func services() {
	var factotum *daemon
	ready := false
	run("factotum takes the kernel's device", func(t *T) {
		for _, key := range []string{"/etc/ssh/ssh_host_ed25519_key", "/root/id"} {
			if out, err := exec.Command("/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
				t.Fatalf("ssh-keygen: %v: %s", err, out)
			}
		}
		argv := []string{programs + "factotum"}
		if hasGrantID() {
			argv = bounded(factotumCaps(), argv...)
		}
		factotum = start(t, "/var/log/factotum", argv...)
		factotum.says(t, "backend=capdev")
		ready = true
		want(t, "another opener", output(as(0, "openhash")), "EBUSY")
		want(t, "lifetime", parameter(t, "lifetime"), "120")
	})
	if !ready {
		return
	}
	defer factotum.stop()
	// alice may have 40 processes, says pam_limits; as many who log in are
	// nobody's business.
	for _, frontEnd := range []int{101, 102} {
		crowd := shell(frontEnd, "for i in {1..50}; do sleep 1000 & done; wait")
		crowd.SysProcAttr.Setpgid = true
		if crowd.Start() == nil {
			defer crowd.Wait()
			defer unix.Kill(-crowd.Process.Pid, unix.SIGKILL)
		}
	}
	run("agetty and login log alice in at the console", func(t *T) {
		agetty := start(t, "/var/log/agetty", bounded(without(capGrantID),
			"/sbin/agetty", "-L", "--login-program", programs+"login", argument("p9.tty="), "115200", "linux")...)
		fmt.Println("p9: console") // the person sits down, and says what they see
		ended := make(chan error, 1)
		go func() { ended <- agetty.cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(3 * time.Minute):
			agetty.cmd.Process.Kill()
			b, _ := os.ReadFile(agetty.log)
			t.Errorf("alice did not leave; agetty says %q", b)
		}
		factotum.says(t, "session opened")
		factotum.says(t, "session closed")
	})
	if _, err := os.Stat(programs + "sshfront"); err == nil {
		run("ssh: a real client logs alice in with her key", func(t *T) { sshLogin(t, factotum) })
		restricted(factotum)
	}
	b, _ := os.ReadFile(factotum.log)
	for l := range strings.Lines(string(b)) {
		if strings.Contains(l, "level=ERROR") || strings.Contains(l, "panic") {
			fmt.Printf("p9: note factotum: %s", l)
		}
	}
}

// loopback sets the interface lo up.
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

func sshLogin(t *T, factotum *daemon) {
	t.must(loopback())
	pub, err := os.ReadFile("/root/id.pub")
	t.must(err)
	t.must(os.Mkdir("/home/alice/.ssh", 0o700))
	t.must(os.WriteFile("/home/alice/.ssh/authorized_keys", pub, 0o600))
	for _, p := range []string{"/home/alice/.ssh", "/home/alice/.ssh/authorized_keys"} {
		t.must(os.Chown(p, 1000, 1000))
	}
	front := start(t, "/var/log/sshfront", bounded(without(capGrantID), programs+"sshfront", "-D", "-e", "-p", "22")...)
	defer front.stop()
	front.says(t, "Server listening")
	ssh := func(args ...string) string {
		c := exec.Command("/usr/bin/ssh", append([]string{"-i", "/root/id", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"}, args...)...)
		return output(c)
	}
	want(t, "id", ssh("alice@localhost", "id; cat /proc/self/loginuid; echo; ulimit -u"), "uid=1000(alice) gid=1000(alice) groups=1000(alice),1100(wizards)\n1000\n40")
	if got := ssh("-tt", "alice@localhost", "tty"); !strings.HasPrefix(got, "/dev/pts/") {
		t.Errorf("tty: %s", got)
	}
	if got := ssh("ltp@localhost", "id"); !strings.Contains(got, "Permission denied") {
		t.Errorf("ltp, who has no key there: %s", got)
	}
	if len(t.failures) > 0 {
		for _, d := range []*daemon{front, factotum} {
			b, _ := os.ReadFile(d.log)
			fmt.Printf("%s:\n%s\n", d.log, b)
		}
	}
}
