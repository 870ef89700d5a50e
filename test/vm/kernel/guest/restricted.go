package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// restricted has alice log in by ssh in ways that restrict her. The device binds
// nothing: what the honest front end enforces is seen here, and what factotum refuses.
func restricted(factotum *daemon) {
	var front *daemon
	key, err := os.ReadFile("/root/id.pub")
	if err != nil {
		return
	}
	// Sessions follow each other quickly, and a session's threads are alice's processes.
	os.Remove("/etc/security/limits.d/alice.conf")
	run("factotum says that the device binds nothing", func(t *T) {
		factotum.says(t, "the kernel's capability device cannot bind a login to a program: forced commands, restricted keys and restricted shells rest on the front end")
		front = start(t, "/var/log/sshfront2", bounded(without(capGrantID), programs+"sshfront", "-D", "-e", "-p", "22")...)
		front.says(t, "Server listening")
	})
	if front == nil {
		return
	}
	defer front.stop()
	reload := func(t *T, d *daemon, file, text string) {
		t.must(os.WriteFile(file, []byte(text), 0o644))
		b, err := os.ReadFile(d.log)
		t.must(err)
		before := strings.Count(string(b), "configuration read again")
		t.must(d.cmd.Process.Signal(syscall.SIGHUP))
		if !eventually(func() bool {
			b, _ := os.ReadFile(d.log)
			return strings.Count(string(b), "configuration read again") > before
		}) {
			t.Fatalf("%s is not read again", file)
		}
	}
	const frontEnds = "FrontEnd _login login\nFrontEnd _sshfront sshd ssh\n"
	require := func(t *T, value string) {
		reload(t, factotum, "/etc/p9auth/factotum.conf", frontEnds+"RequireBoundGrants "+value+"\n")
	}
	settings := func(t *T, text string) {
		reload(t, factotum, "/etc/p9auth/sshd_config", "Subsystem sftp internal-sftp\n"+text)
	}
	options := func(t *T, text string) {
		t.must(os.WriteFile("/home/alice/.ssh/authorized_keys", []byte(strings.TrimSpace(text+" "+string(key))+"\n"), 0o600))
	}
	// shell changes alice's login shell.
	shell := func(t *T, path string) {
		b, err := os.ReadFile("/etc/passwd")
		t.must(err)
		lines := strings.Split(string(b), "\n")
		for i, l := range lines {
			if strings.HasPrefix(l, "alice:") {
				lines[i] = l[:strings.LastIndex(l, ":")+1] + path
			}
		}
		t.must(os.WriteFile("/etc/passwd", []byte(strings.Join(lines, "\n")), 0o644))
	}
	ssh := func(args ...string) string {
		return output(exec.Command("/usr/bin/ssh", append([]string{"-i", "/root/id", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes",
			"-o", "LogLevel=ERROR", "alice@localhost"}, args...)...))
	}
	const in = "echo in as $((500+500))"
	refused := func(t *T, why string) {
		if got := ssh(in); strings.Contains(got, "in as") {
			t.Errorf("%s: %s", why, got)
		}
		factotum.says(t, "cannot bind the login to "+why)
	}

	run("ssh: sshfront enforces a forced command and restrict", func(t *T) {
		options(t, `restrict,command="echo forced"`)
		want(t, "a command", ssh(in), "forced")
		options(t, "restrict")
		if got := ssh("-tt", "tty"); strings.Contains(got, "/dev/pts") {
			t.Errorf("a terminal: %s", got)
		}
		options(t, "")
		settings(t, "ForceCommand echo forced\n")
		want(t, "ForceCommand", ssh(in), "forced")
	})
	run("ssh: a login into a root directory is refused", func(t *T) {
		t.must(os.Chmod("/", 0o755)) // an initramfs lets others write there
		settings(t, "Match User alice\nChrootDirectory /usr\n")
		refused(t, "ChrootDirectory")
	})
	run("RequireBoundGrants refuses restricted logins, and no others", func(t *T) {
		require(t, "yes")
		settings(t, "AllowTcpForwarding no\n")
		want(t, "a login that is not restricted", ssh(in), "in as 1000")
		options(t, `command="echo forced"`)
		refused(t, "the command of the key")
		options(t, "restrict")
		refused(t, "the options of the key")
		options(t, "")
		settings(t, "ForceCommand echo forced\n")
		refused(t, "ForceCommand")
		settings(t, "")
		unix.Unlink("/bin/rbash")
		t.must(os.Link("/bin/bash", "/bin/rbash"))
		shell(t, "/bin/rbash")
		refused(t, "the login shell /bin/rbash")
		require(t, "no")
		if got := ssh("cd /; /bin/echo out"); !strings.Contains(got, "restricted") {
			t.Errorf("rbash: %s", got)
		}
		shell(t, "/bin/bash")
		want(t, "afterwards", ssh(in), "in as 1000")
	})
	run("ssh: a user who may have no more keys is let in", func(t *T) {
		was, err := os.ReadFile("/proc/sys/kernel/keys/maxkeys")
		if err != nil {
			return // a kernel without keys
		}
		t.must(os.WriteFile("/proc/sys/kernel/keys/maxkeys", []byte("1"), 0))
		defer os.WriteFile("/proc/sys/kernel/keys/maxkeys", was, 0)
		if got := ssh(in); !strings.Contains(got, "in as 1000") {
			t.Errorf("%s", got)
		}
	})
	unix.Unlink("/bin/rbash")
	b, _ := os.ReadFile(front.log)
	for l := range strings.Lines(string(b)) {
		if strings.Contains(l, "error") || strings.Contains(l, "fatal") {
			fmt.Printf("p9: note sshfront: %s", l)
		}
	}
}
