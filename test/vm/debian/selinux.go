package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// contexts are what SELinux makes of each way in: of the process, of its terminal, and of
// what people start there. alice is of unconfined_u, bob of user_u and carol of staff_u.
func contexts(signer ssh.Signer) map[string]string {
	const look = `id -Z; stat -c %C $(tty)`
	seen := map[string]string{}
	for _, user := range []string{"alice", "bob", "carol"} {
		if err := vm.login(user, `\$ $`); err != nil {
			seen[user+" at the console"] = err.Error()
			continue
		}
		seen[user+" at the console"] = vm.sh(look)
		seen[user+" at the console, su root"] = becomes("root")
		vm.logout()
	}
	key := ssh.PublicKeys(signer)
	for how, as := range map[string]struct {
		user string
		auth ssh.AuthMethod
	}{
		"alice by ssh with a key": {"alice", key}, "alice by ssh with a password": {"alice", ssh.Password(password)},
		"bob by ssh with a key": {"bob", key}, "bob by ssh with a password": {"bob", ssh.Password(password)},
		"carol by ssh with a key": {"carol", key}, "root by ssh with a key": {"root", key},
	} {
		c, err := dial(as.user, as.auth)
		if err != nil {
			seen[how] = err.Error()
			continue
		}
		seen[how] = run(c, "id -Z")
		seen[how+", at a terminal"] = atTerminal(c, look)
		seen[how+", sftp"] = served(c)
		if as.user == "root" {
			seen["alice by ssh with a ticket"] = run(c, `by-ticket 'id -Z; klist | grep principal; stat -c %C "${KRB5CCNAME#FILE:}"'`)
		} else {
			seen[how+", su alice"] = run(c, `echo `+password+` | su alice -c 'id -un; id -Z' 2>/dev/null`)
			seen[how+", passwd there and back"] = run(c, `n=Ein-anderes-7 o=`+password+`
printf '%s\n' $o $n $n | passwd >/dev/null 2>&1; echo $?; printf '%s\n' $n $o $o | passwd >/dev/null 2>&1; echo $?; passwd -S | cut -d' ' -f1,2`)
		}
		c.Close()
	}
	return seen
}

// becomes is what the person at the console is as another user, by su and a password.
func becomes(user string) string {
	vm.send("su " + user + " -c 'id -un; id -Z; stat -c %C $(tty); echo en''d'\n")
	vm.expect(`Password: $`)
	vm.send(password + "\n")
	return strings.TrimSpace(vm.expect(`end\n`))
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
	in, err := s.StdinPipe()
	out, err2 := s.StdoutPipe()
	if err := errors.Join(err, err2); err != nil {
		return err.Error()
	}
	if err := s.RequestSubsystem("sftp"); err != nil {
		return err.Error()
	}
	if _, err := io.WriteString(in, "\x00\x00\x00\x05\x01\x00\x00\x00\x03"); err != nil {
		return err.Error()
	}
	b := make([]byte, 9)
	if _, err := io.ReadFull(out, b); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("% x", b[4:])
}

// A reason is why something is denied.
type reason struct {
	denial *regexp.Regexp
	why    string
}

// stated are the denials that are meant, or that Debian's policy has by itself.
var stated []reason

// denied are the accesses that the policy has denied since the boot, each once and without
// its numbers.
func denied() []string {
	text := vm.sh(`{ cat /var/log/audit/audit.log*; journalctl -b -k -o cat; } | grep -E 'avc: *denied|SELINUX_ERR'`)
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
	must("the machine has a KDC, and sshd takes tickets", func() error {
		c, err := dial("root", ssh.PublicKeys(signer))
		if err != nil {
			return err
		}
		defer c.Close()
		return want(run(c, "realm"), `(^|\n)ready$`)
	})
	debian := contexts(signer)
	claim("Debian's sshd takes alice's ticket", func() error {
		return want(debian["alice by ssh with a ticket"], `^unconfined_u:.*\nDefault principal: alice@P9AUTH.TEST\n`)
	})
	must("root logs in once more", func() error { return vm.login("root", `# $`) })
	vm.sh("systemctl daemon-reload") // as the switch does: a generator looks at the terminal
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
	claim("what is executed of the capability files has a type of its own", func() error {
		return want(vm.sh("stat -c %C /run/factotum/cap /run/factotum/cap/capuse"), `^(system_u:object_r:p9auth_cap_t:s0\n?){2}$`)
	})
	claim("dist/selinux is in the package, with what p9auth-install(7) says to load it", func() error {
		return want(vm.sh("cd /usr/share/doc/p9auth/examples/selinux && cmp p9auth.te /root/selinux/p9auth.te && cmp p9auth.fc /root/selinux/p9auth.fc && semodule -l | grep -x p9auth"), `^p9auth$`)
	})
	vm.logout()
	for user, does := range map[string]string{
		"bob":   `doas -u alice id -un; doas -u alice id -Z; doas -u alice id -un >file; cat file; doas -u carol id`,
		"carol": `doas id -un; doas id -Z; doas id -un >file; cat file; doas -u alice id`,
	} {
		claim("doas runs what its rules permit "+user+", a confined user, in the same context", func() error {
			c, err := dial(user, ssh.PublicKeys(signer))
			if err != nil {
				return err
			}
			defer c.Close()
			as, context := "alice", "user_u:user_r:user_t:s0"
			if user == "carol" {
				as, context = "root", "staff_u:staff_r:staff_t:s0-s0:c0.c1023"
			}
			return want(run(c, does), `^`+as+`\n`+regexp.QuoteMeta(context)+`\n`+as+`\ndoas: Operation not permitted\n`)
		})
	}
	must("root logs in after that", func() error { return vm.login("root", `# $`) })
	claim("nothing was denied that is not denied with Debian's login and sshd, or for a reason", func() error {
		fmt.Printf("       with Debian's login, sshd and su: %d kinds of denials\n", len(before))
		list := slices.DeleteFunc(denied(), func(line string) bool {
			i := slices.IndexFunc(stated, func(s reason) bool { return s.denial.MatchString(line) })
			if i >= 0 {
				fmt.Printf("       %s\n       as %s\n", line, stated[i].why)
			}
			return i >= 0 || slices.Contains(before, line)
		})
		if len(list) > 0 {
			return fmt.Errorf("%d denials:\n%s", len(list), strings.Join(list, "\n"))
		}
		return nil
	})
	summary()
}
