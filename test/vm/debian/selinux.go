package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// contexts are what SELinux makes of each way in: of the process, and of its terminal. alice
// is of unconfined_u, bob of user_u and carol of staff_u.
func contexts(signer ssh.Signer) map[string]string {
	const look = `id -Z; stat -c %C $(tty)`
	seen := map[string]string{}
	for _, user := range []string{"alice", "bob"} {
		if err := vm.login(user, `\$ $`); err != nil {
			seen[user+" at the console"] = err.Error()
			continue
		}
		seen[user+" at the console"] = vm.sh(look)
		vm.logout()
	}
	key := ssh.PublicKeys(signer)
	for how, as := range map[string]struct {
		user string
		auth ssh.AuthMethod
	}{
		"alice by ssh with a key": {"alice", key}, "alice by ssh with a password": {"alice", ssh.Password(password)},
		"bob by ssh with a password": {"bob", ssh.Password(password)}, "root by ssh with a key": {"root", key},
	} {
		c, err := dial(as.user, as.auth)
		if err != nil {
			seen[how] = err.Error()
			continue
		}
		seen[how] = run(c, "id -Z")
		seen[how+", at a terminal"] = atTerminal(c, look)
		seen[how+", sftp"] = served(c)
		c.Close()
	}
	return seen
}

// atTerminal runs a command at a terminal.
func atTerminal(c *ssh.Client, command string) string {
	s, err := c.NewSession()
	if err != nil {
		return err.Error()
	}
	defer s.Close()
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		return err.Error()
	}
	out, err := s.CombinedOutput(command)
	if err != nil {
		return fmt.Sprintf("%s%v", out, err)
	}
	return strings.TrimSpace(strings.ReplaceAll(string(out), "\r", ""))
}

// served is the answer of the file server to the first message of a client: its version,
// see section 4 of draft-ietf-secsh-filexfer-02.
func served(c *ssh.Client) string {
	s, err := c.NewSession()
	if err != nil {
		return err.Error()
	}
	defer s.Close()
	s.Stdin = strings.NewReader("\x00\x00\x00\x05\x01\x00\x00\x00\x03")
	out, err := s.StdoutPipe()
	if err != nil {
		return err.Error()
	}
	if err := s.RequestSubsystem("sftp"); err != nil {
		return err.Error()
	}
	b := make([]byte, 9)
	if _, err := out.Read(b); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("% x", b[4:])
}

// denied are the accesses that the policy has denied since the boot, each once and without
// its numbers.
func denied() []string {
	text := vm.sh(`{ cat /var/log/audit/audit.log; journalctl -b -k -o cat; } | grep -E 'avc: *denied|SELINUX_ERR'`)
	numbers := regexp.MustCompile(`(msg=audit\([^)]*\)|audit: |type=\d+ audit\([^)]*\)|\b(pid|ino|ses)=\d+|dev="[^"]*"):? ?`)
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(numbers.ReplaceAllString(line, "")); line != "" {
			seen[line] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// enforced has people log in where SELinux is enforced, by Debian's login and sshd and
// then by ours, and compares the contexts that they get and what was denied.
func enforced(signer ssh.Signer, mode string) {
	must("Debian boots with SELinux, and its own login lets root in", func() error {
		if err := vm.login("root", `# $`); err != nil {
			return err
		}
		return want(vm.sh("getenforce"), "^"+mode+"$")
	})
	vm.logout()
	debian := contexts(signer)
	must("root logs in once more", func() error { return vm.login("root", `# $`) })
	before := denied()
	must("p9auth-switch moves the consoles and port 22 over", func() error {
		return want(vm.sh("p9auth-switch all on && p9auth-switch local on; echo status $?"), `status 0$`)
	})
	vm.logout()
	ours := contexts(signer)
	for _, how := range slices.Sorted(maps.Keys(debian)) {
		claim(how+": as by Debian's login and sshd, "+strings.ReplaceAll(debian[how], "\n", " "), func() error {
			if ours[how] != debian[how] {
				return fmt.Errorf("%q, by Debian's %q", ours[how], debian[how])
			}
			return nil
		})
	}
	must("root logs in by p9auth's login", func() error { return vm.login("root", `# $`) })
	claim("each process is in its domain", func() error {
		return want(vm.sh(`ps -eo label,comm | sed -n 's/:s0.* \(factotum\|factotum-pam\|sshfront\)$/ \1/p' | sort -u`),
			`^system_u:system_r:local_login_t factotum-pam\nsystem_u:system_r:p9auth_sshfront_t sshfront\nsystem_u:system_r:p9auth_t factotum$`)
	})
	claim("su makes alice bob, in the context that she has", func() error {
		vm.send("exec runuser -l alice\n")
		vm.plain()
		vm.send("su bob -c 'id -un; id -Z; echo en''d'\n")
		vm.expect(`Password: $`)
		vm.send(password + "\n")
		return want(vm.expect(`end\n`), `bob\nunconfined_u:unconfined_r:unconfined_t`)
	})
	vm.logout()
	must("root logs in after that", func() error { return vm.login("root", `# $`) })
	claim("nothing was denied that is not denied with Debian's login and sshd", func() error {
		list := slices.DeleteFunc(denied(), func(line string) bool { return slices.Contains(before, line) })
		if len(list) > 0 {
			return fmt.Errorf("%d denials:\n%s", len(list), strings.Join(list, "\n"))
		}
		return nil
	})
	summary()
}
