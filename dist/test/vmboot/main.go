// Vmboot boots a Debian that p9auth was installed on, in qemu, by software
// emulation, with systemd, a root file system that is mounted nosuid, and no
// setuid file: `make vm-boot` runs it. It switches the machine over, logs in
// at the serial console and through port 22, looks at what an administrator
// looks at, restarts and kills the daemons, reboots, and takes p9auth off.
//
// dist/test/image makes the disk; it is changed here. The exit status is 0 only
// if every claim held.
package main

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

const password = "open-sesame"

var (
	passed, failed int
	began          = time.Now()
)

// claim runs a part of the test and says how it went.
func claim(what string, f func() error) bool {
	start := time.Now()
	if err := f(); err != nil {
		failed++
		fmt.Printf("  FAIL %s: %v\n", what, err)
		return false
	}
	passed++
	fmt.Printf("  ok   %s (%.1f s)\n", what, time.Since(start).Seconds())
	return true
}

// must is for what nothing else works without.
func must(what string, f func() error) {
	if !claim(what, f) {
		summary()
	}
}

func summary() {
	if vm != nil {
		vm.stop()
	}
	fmt.Printf("vm-boot: %d passed, %d failed, %.0f seconds\n", passed, failed, time.Since(began).Seconds())
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
	os.Exit(0)
}

// want is an error unless text matches a regular expression.
func want(text, re string) error {
	if !regexp.MustCompile(re).MatchString(text) {
		return fmt.Errorf("want %s, got %.600q", re, text)
	}
	return nil
}

var vm *machine

func main() {
	dir := flag.String("dir", "build/boot", "where dist/test/image has put the disk")
	verbose := flag.Bool("v", false, "show the guest's console")
	flag.Parse()
	var err error
	if vm, err = start(*dir, *verbose); err != nil {
		fmt.Fprintf(os.Stderr, "vm-boot: %v\n", err)
		os.Exit(1)
	}
	key, err := os.ReadFile(filepath.Join(*dir, "alice"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "vm-boot: %v\n", err)
		os.Exit(1)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		fmt.Fprintf(os.Stderr, "vm-boot: %v\n", err)
		os.Exit(1)
	}
	switchOver()
	console()
	overSSH(signer)
	asRoot()
	disturb(signer)
	reboot(signer)
	remove()
	summary()
}

// switchOver is what an administrator does after the installation, at a
// console of Debian's own.
func switchOver() {
	must("Debian boots, and its own login lets root in", func() error { return vm.login("root", `# $`) })
	claim("systemd has nothing failed", nothingFailed)
	claim("factotum runs, and nothing else is switched", func() error {
		return want(vm.sh("p9auth-switch status"), `factotum: running\nssh: off\nport 22: SSH-2.0-OpenSSH\S*.*\nconsole: off`)
	})
	claim("a dry run changes nothing", func() error {
		before := vm.sh("p9auth-switch status")
		if err := want(vm.sh("p9auth-switch -n all on; echo status $?"), `would run: systemctl stop ssh.service[\s\S]*would run: systemctl daemon-reload[\s\S]*status 0`); err != nil {
			return err
		}
		if after := vm.sh("p9auth-switch status"); after != before {
			return fmt.Errorf("before %q, after %q", before, after)
		}
		return nil
	})
	claim("a wrong configuration changes nothing", func() error {
		out := vm.sh("echo Nonsense >>/etc/p9auth/sshd_config; p9auth-switch ssh on; echo status $?; sed -i '$d' /etc/p9auth/sshd_config; p9auth-switch status")
		return want(out, `nothing was changed[\s\S]*status 1[\s\S]*ssh: off\nport 22: SSH-2.0-OpenSSH`)
	})
	must("p9auth-switch moves port 22 and the consoles over", func() error {
		return want(vm.sh("p9auth-switch all on; echo status $?; p9auth-switch status"), `status 0[\s\S]*ssh: on\nport 22: SSH-2.0-p9auth\S*\nconsole: on`)
	})
	vm.logout()
}

// console is a login on ttyS0 by agetty, as _login, and our login.
func console() {
	must("alice logs in at ttyS0", func() error {
		vm.expect(`p9vm login: $`)
		return vm.login("alice", `\$ $`)
	})
	claim("she is herself, with her groups and no rights", func() error {
		return want(vm.sh("id; grep -h CapPrm /proc/self/status; tty"), `^uid=\d+\(alice\) gid=\d+\(alice\) groups=\d+\(alice\),\d+\(wizards\)\nCapPrm:\t0+\n/dev/ttyS0$`)
	})
	claim("login became her shell: systemd's main process of the getty", func() error {
		return want(vm.sh(`[ $(systemctl show -p MainPID --value serial-getty@ttyS0) = $$ ] && echo same`), `^same$`)
	})
	session("at the console", vm.sh, "ttyS0", "login")
	vm.logout()
}

// session is what logind, PAM's modules and the accounting say of a session.
func session(where string, sh func(string) string, line, service string) {
	claim(where+": logind has her session, and her shell is in its scope", func() error {
		out := sh("echo id=$XDG_SESSION_ID dir=$XDG_RUNTIME_DIR; loginctl show-session $XDG_SESSION_ID -p Name -p Service -p State -p Leader; cat /proc/self/cgroup; ls -d $XDG_RUNTIME_DIR")
		for _, re := range []string{`id=\w+ dir=/run/user/\d+\n`, `Name=alice`, `Service=` + service, `State=(active|online)`, `session-\w+\.scope`, `\n/run/user/\d+`} {
			if err := want(out, re); err != nil {
				return err
			}
		}
		return nil
	})
	claim(where+": limits.conf holds", func() error {
		return want(sh("ulimit -Sn; ulimit -Hn; ulimit -u"), `^1234\n4321\n777$`)
	})
	claim(where+": the login uid is hers", func() error {
		return want(sh("cat /proc/self/loginuid; echo; id -u"), `^(\d{4})\n(\d{4})$`)
	})
	if line != "" {
		claim(where+": w and last know her", func() error {
			return want(sh("w -h; last -w | head -5"), `(?m)^alice\s+`+line+`[\s\S]*^alice\s+`+line+`.*still logged in`)
		})
	}
}

func dial(user string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	return ssh.Dial("tcp", vm.ssh, &ssh.ClientConfig{User: user, Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: time.Minute})
}

func run(c *ssh.Client, command string) string {
	s, err := c.NewSession()
	if err != nil {
		return err.Error()
	}
	defer s.Close()
	out, err := s.CombinedOutput(command)
	if err != nil {
		return string(out) + err.Error()
	}
	return strings.TrimSpace(string(out))
}

// loginsWork are the ways in by ssh.
func loginsWork(signer ssh.Signer) {
	for how, auth := range map[string]ssh.AuthMethod{"password": ssh.Password(password), "key": ssh.PublicKeys(signer)} {
		claim("ssh: alice logs in by "+how, func() error {
			c, err := dial("alice", auth)
			if err != nil {
				return err
			}
			defer c.Close()
			return want(run(c, "id -un; id -Gn"), `^alice\nalice wizards$`)
		})
	}
}

func overSSH(signer ssh.Signer) {
	loginsWork(signer)
	second := func(code string) ssh.AuthMethod {
		return ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			var answers []string
			for _, q := range questions {
				if strings.Contains(q, "One-time") {
					answers = append(answers, code)
				} else {
					answers = append(answers, password)
				}
			}
			return answers, nil
		})
	}
	claim("ssh: carol logs in with password and one-time code", func() error {
		// The guest's clock may not be ours.
		c, err := dial("carol", second(totp("12345678901234567890", time.Now())))
		if err != nil {
			return err
		}
		defer c.Close()
		return want(run(c, "id -un"), `^carol$`)
	})
	claim("ssh: carol is refused with a wrong code, and with her password alone", func() error {
		for _, auth := range []ssh.AuthMethod{second("000000"), ssh.Password(password)} {
			if c, err := dial("carol", auth); err == nil {
				c.Close()
				return fmt.Errorf("she is let in")
			} else if err := want(err.Error(), `unable to authenticate`); err != nil {
				return err
			}
		}
		return nil
	})
	claim("ssh: a session of alice's is held", func() error {
		c, err := dial("alice", ssh.PublicKeys(signer))
		if err != nil {
			return err
		}
		defer c.Close()
		session("ssh", func(cmd string) string { return run(c, cmd) }, "", "sshd")
		return nil
	})
}

// asRoot looks at the machine as its administrator, who logs in by us too.
func asRoot() {
	must("root logs in at ttyS0", func() error {
		vm.expect(`p9vm login: $`)
		return vm.login("root", `# $`)
	})
	claim("no file is setuid or setgid, and / is nosuid", func() error {
		return want(vm.sh("find / -xdev -type f -perm /6000; findmnt -n -o OPTIONS /; echo end"), `^rw,nosuid\S*\nend$`)
	})
	claim("only factotum and its workers have rights, of ours", func() error {
		out := vm.sh(`for p in /proc/[0-9]*; do awk '$1 == "Name:" {n = $2} $1 == "Uid:" {u = $2} $1 == "CapPrm:" && (u == 0 || $2 !~ /^0+$/) {print n}' $p/status 2>/dev/null; done | grep -E 'factotum|login|sshfront|become|agetty|exe' | sort -u`)
		return want(out, `^factotum\n(factotum-pam\n)?systemd-logind$`)
	})
	claim("systemd has nothing failed", nothingFailed)
	claim("audit has the logins", func() error {
		return want(vm.sh("cat /var/log/audit/audit.log 2>/dev/null | grep -oE 'type=USER_(AUTH|ACCT|START|END|LOGIN)' | sort -u | tr '\\n' ' '; journalctl -q --no-pager _TRANSPORT=audit 2>/dev/null | grep -c .; true"), `type=USER_ACCT type=USER_AUTH type=USER_END (type=USER_LOGIN )?type=USER_START`)
	})
	claim("the journal has what factotum and sshfront say", func() error {
		return want(vm.sh("journalctl -q --no-pager -u factotum -u p9auth-ssh | grep -oE 'session opened|Accepted (publickey|password|keyboard-interactive/pam) for (alice|carol)|Failed (keyboard-interactive/pam|password) for carol' | sort -u"),
			`Accepted keyboard-interactive/pam for carol\nAccepted password for alice\nAccepted publickey for alice\n`)
	})
	claim("systemd-analyze security", func() error {
		out := vm.sh("systemd-analyze --no-pager security factotum.service p9auth-ssh.service 2>&1 | grep -i overall")
		fmt.Println("       " + strings.ReplaceAll(out, "\n", "\n       "))
		return want(out, `factotum`)
	})
}

func nothingFailed() error {
	return want(vm.sh("systemctl --failed --no-legend --plain; echo end"), `^end$`)
}

// disturb restarts and kills the daemons while alice is logged in.
func disturb(signer ssh.Signer) {
	c, err := dial("alice", ssh.PublicKeys(signer))
	if err != nil {
		claim("alice logs in", func() error { return err })
		return
	}
	defer c.Close()
	goesOn := func() error { return want(run(c, "echo goes on"), `^goes on$`) }
	again := func() error {
		c, err := dial("alice", ssh.PublicKeys(signer))
		if err != nil {
			return err
		}
		defer c.Close()
		return want(run(c, "id -un"), `^alice$`)
	}
	must("alice has a session", goesOn)
	for _, d := range []struct{ what, command string }{
		{"a restart of factotum", "systemctl restart factotum"},
		{"a restart of sshfront", "systemctl restart p9auth-ssh"},
		{"kill -9 of factotum", "kill -9 $(systemctl show -p MainPID --value factotum); sleep 1; for i in $(seq 60); do systemctl is-active -q factotum && break; sleep 1; done"},
		{"kill -9 of sshfront", "kill -9 $(systemctl show -p MainPID --value p9auth-ssh); sleep 2"},
	} {
		claim(d.what+" leaves sessions alone, and logins go on", func() error {
			vm.sh(d.command)
			if err := goesOn(); err != nil {
				return err
			}
			return again()
		})
	}
	claim("systemd has nothing failed after that", nothingFailed)
}

func reboot(signer ssh.Signer) {
	must("it reboots, from a console of ours", func() error {
		vm.send("systemctl reboot\n")
		vm.expect(`reboot: Restarting system`)
		vm.expect(`p9vm login: $`)
		return vm.login("alice", `\$ $`)
	})
	vm.logout()
	loginsWork(signer)
}

// remove takes p9auth off again.
func remove() {
	must("root logs in at ttyS0 again", func() error {
		vm.expect(`p9vm login: $`)
		return vm.login("root", `# $`)
	})
	claim("p9auth-switch moves everything back", func() error {
		return want(vm.sh("p9auth-switch all off; echo status $?; p9auth-switch status"), `status 0[\s\S]*ssh: off\nport 22: SSH-2.0-OpenSSH\S*.*\nconsole: off`)
	})
	claim("and over once more", func() error {
		return want(vm.sh("p9auth-switch all on; echo status $?; p9auth-switch status"), `status 0[\s\S]*ssh: on\nport 22: SSH-2.0-p9auth`)
	})
	claim("removing the package gives the machine sshd and its consoles back", func() error {
		return want(vm.sh("dpkg -r p9auth >/dev/null; echo status $?; ssh-keyscan -T 10 localhost 2>&1 | grep -c OpenSSH; ls /etc/systemd/system/*getty@.service.d 2>&1; ls /usr/lib/p9auth 2>&1"),
			`status 0\n[1-9][\s\S]*No such file[\s\S]*/usr/lib/p9auth.*No such file`)
	})
	claim("purging it leaves nothing", func() error {
		return want(vm.sh("dpkg -P p9auth >/dev/null 2>&1; echo status $?; getent passwd _login _sshfront; ls -d /etc/p9auth /var/lib/p9auth /run/factotum/cap 2>/dev/null; findmnt -n -t fuse.p9auth; echo end"), `status 0\nend$`)
	})
	vm.logout()
	claim("Debian's login works as before", func() error {
		vm.expect(`p9vm login: $`)
		return vm.login("root", `# $`)
	})
	claim("it shuts down", func() error {
		vm.send("systemctl poweroff\n")
		vm.expect(`reboot: Power down`)
		return nil
	})
}

// totp is the code of RFC 6238 for a key at a time: 30 seconds, 6 digits.
func totp(key string, at time.Time) string {
	var msg [8]byte
	binary.BigEndian.PutUint64(msg[:], uint64(at.Unix()/30))
	m := hmac.New(sha1.New, []byte(key))
	m.Write(msg[:])
	h := m.Sum(nil)
	n := binary.BigEndian.Uint32(h[h[19]&15:]) & 0x7fffffff
	return fmt.Sprintf("%06d", n%1000000)
}

func init() {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		fmt.Fprintln(os.Stderr, "vm-boot: qemu-system-x86_64 is missing: scripts/deps boot installs it")
		os.Exit(1)
	}
}
