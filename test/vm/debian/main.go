// Vmboot boots a Debian that p9auth was installed on, in qemu, by software
// emulation, with systemd, a root file system that is mounted nosuid, and no
// setuid file: `make vm-boot` runs it. It logs in by Debian's login and sshd,
// switches the machine over, logs in at the serial console and through port 22
// and compares, has a user become root and change a password with no set-id program, looks at what an
// administrator looks at, restarts and kills the daemons, upgrades, reboots, and takes
// p9auth off.
//
// test/vm/debian/image makes the disk; it is changed here. The exit status is 0 only
// if every claim held.
package main

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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

var (
	vm      *machine
	systemd int // its version
	rounds  int // of timings
)

func main() {
	dir := flag.String("dir", "build/boot/trixie", "where test/vm/debian/image has put the disk")
	only := flag.String("only", "", "local tries su, passwd and the like alone; cuts cuts the power during switches; memory has the kernel kill for want of memory; selinux logs in where SELinux is enforced (an image made with SELINUX=yes)")
	permissive := flag.Bool("permissive", false, "with -only selinux: log what the policy would deny, and deny nothing")
	cuts := flag.Int("cuts", 2, "how often the power is cut during a switch")
	flag.DurationVar(&patience, "patience", patience, "how long anything in the guest may take, its boot included")
	flag.IntVar(&rounds, "rounds", 5, "how often each way to become root is timed")
	verbose := flag.Bool("v", false, "show the guest's console")
	flag.Parse()
	var err error
	os.Remove(filepath.Join(*dir, "console"))
	words, mode := "", "Enforcing"
	if *permissive {
		mode = "Permissive"
	}
	if *only == "selinux" {
		words = "security=selinux enforcing=" + map[string]string{"Enforcing": "1", "Permissive": "0"}[mode]
	}
	if vm, err = start(*dir, *verbose, words); err != nil {
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
	if *only == "selinux" {
		enforced(signer, mode)
	}
	if *only == "local" {
		must("Debian's login lets root in", func() error { return vm.login("root", `# $`) })
		must("p9auth-switch moves port 22 and the consoles over", func() error {
			return want(vm.sh("p9auth-switch all on; echo status $?"), `status 0$`)
		})
		localPrograms()
		summary()
	}
	if *only == "memory" {
		must("Debian's login lets root in", func() error { return vm.login("root", `# $`) })
		must("p9auth-switch moves port 22 and the consoles over", func() error {
			return want(vm.sh("p9auth-switch "+accept+"all on; echo status $?"), `status 0$`)
		})
		outOfMemory(signer)
		summary()
	}
	if *only == "cuts" {
		must("Debian's login lets root in", func() error { return vm.login("root", `# $`) })
		powerCuts(*dir, *verbose, signer, *cuts)
		summary()
	}
	before := reference(signer)
	switchOver()
	console()
	terminals()
	overSSH(signer)
	compare(before, observe(signer))
	asRoot()
	localPrograms()
	upgrade(signer)
	disturb(signer)
	outOfMemory(signer)
	reboot(signer)
	must("root logs in for power cuts", func() error { return vm.login("root", `# $`) })
	powerCuts(*dir, *verbose, signer, *cuts)
	must("all is on again", func() error {
		out := vm.sh("p9auth-switch " + accept + "all on; p9auth-switch local on; p9auth-switch status")
		vm.logout()
		return want(out, `ssh: on\n[\s\S]*console: on\n[\s\S]*local: on`)
	})
	if systemd < 256 {
		hybrid(*dir, *verbose, signer)
	} else {
		fmt.Printf("  --   systemd %d has given up control groups of version 1: not booted with them\n", systemd)
	}
	remove()
	summary()
}

// observations are what users see of a login, by how it was made.
type observations map[string]string

// observe logs alice and bob in by both ways, and has them run the image's
// program observe. bob is without limits of his own.
func observe(signer ssh.Signer) observations {
	seen := observations{}
	for _, user := range []string{"alice", "bob"} {
		if err := vm.login(user, `\$ $`); err != nil {
			seen[user+" at the console"] = err.Error()
			continue
		}
		seen[user+" at the console"] = vm.sh("observe")
		vm.logout()
	}
	for name, as := range map[string]struct {
		user string
		auth ssh.AuthMethod
	}{"alice by ssh with a key": {"alice", ssh.PublicKeys(signer)}, "bob by ssh with a password": {"bob", ssh.Password(password)}} {
		c, err := dial(as.user, as.auth)
		if err != nil {
			seen[name] = err.Error()
			continue
		}
		seen[name] = run(c, "observe")
		c.Close()
	}
	return seen
}

// reference is what Debian's own login and sshd give.
func reference(signer ssh.Signer) (seen observations) {
	must("Debian boots, and its own login and sshd let alice and bob in", func() error {
		seen = observe(signer)
		for how, text := range seen {
			if err := want(text, `uid=\d+\((alice|bob)\)[\s\S]*Max open files[\s\S]*session-N.scope[\s\S]*audit session[\s\S]*CapEff[\s\S]*Service=`); err != nil {
				return fmt.Errorf("%s: %v", how, err)
			}
		}
		return nil
	})
	return seen
}

// compare says what differs for users, line by line.
func compare(debian, ours observations) {
	for how, text := range debian {
		claim(how+": all is as by Debian's login and sshd", func() error {
			return differ(text, ours[how])
		})
	}
}

// differ is an error if two observations have different lines.
func differ(debian, ours string) error {
	var diff []string
	a, b := strings.Split(debian, "\n"), strings.Split(ours, "\n")
	for _, l := range a {
		if !slices.Contains(b, l) {
			diff = append(diff, "- "+l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			diff = append(diff, "+ "+l)
		}
	}
	if diff != nil {
		return fmt.Errorf("theirs (-) and ours (+):\n       %s", strings.Join(diff, "\n       "))
	}
	return nil
}

// switched is what p9auth-switch says when port 22 has answered, which a busy machine may
// not do in the time that it has.
func switched() string {
	return vm.sh(`for i in 1 2 3 4 5; do s=$(p9auth-switch status); case $s in *"port 22: SSH"*) break ;; esac; done; echo "$s"`)
}

// switchOver is what an administrator does after the installation, at a
// console of Debian's own.
func switchOver() {
	must("Debian's login lets root in", func() error { return vm.login("root", `# $`) })
	must("the guest runs systemd", func() error {
		_, err := fmt.Sscanf(vm.sh("systemctl --version"), "systemd %d", &systemd)
		return err
	})
	claim("systemd has nothing failed", nothingFailed)
	claim("factotum runs, and nothing else is switched", func() error {
		return want(vm.sh("p9auth-switch status"), `factotum: running\nssh: off\nport 22: SSH-2.0-OpenSSH_[0-9.]+p[0-9]+( .*)?\nconsole: off`)
	})
	claim("a dry run changes nothing", func() error {
		before := switched()
		if err := want(vm.sh("p9auth-switch -n all on; echo status $?"), `systemctl stop ssh.service[\s\S]*systemctl daemon-reload[\s\S]*status 0`); err != nil {
			return err
		}
		if after := switched(); after != before {
			return fmt.Errorf("before %q, after %q", before, after)
		}
		return nil
	})
	claim("a wrong configuration changes nothing", func() error {
		out := vm.sh("echo Nonsense >>/etc/p9auth/sshd_config; p9auth-switch ssh on; echo status $?; rm /etc/p9auth/sshd_config; p9auth-switch status")
		return want(out, `nothing was changed[\s\S]*status 1[\s\S]*ssh: off\nport 22: SSH-2.0-OpenSSH_[0-9.]+p[0-9]+( .*)?\n`)
	})
	must("p9auth-switch moves port 22 and the consoles over", func() error {
		return want(vm.sh("p9auth-switch all on; echo status $?")+"\n"+switched(), `status 0[\s\S]*ssh: on\nport 22: SSH-2.0-OpenSSH_\S*p9auth\S*\nconsole: on`)
	})
	vm.logout()
}

// console is a login on ttyS0 by agetty, as _login, and our login.
func console() {
	must("alice is refused at ttyS0 with a wrong password", func() error {
		vm.expect(`p9vm login: $`)
		vm.send("alice\n")
		vm.expect(`Password: $`)
		vm.send("wrong\n")
		vm.expect(`Login incorrect\n`)
		// login asks for a name itself now; the next agetty's prompt is as good.
		vm.send("alice\n")
		vm.expect(`Password: $`)
		vm.send(password + "\n")
		vm.expect(`\$ $`)
		vm.logout()
		return nil
	})
	must("alice logs in at ttyS0", func() error {
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

// tap is a process of login's uid that opens a terminal while agetty prompts there, says so
// there, and reads and writes once somebody logs in. It notes what it reads, how that ends
// (0: the descriptor is dead), and whether it could write. A process named "(agetty)" is
// systemd, which may not have made the terminal _login's yet.
const tap = `#!/bin/sh
until pgrep -x -t $1 agetty >/dev/null; do sleep 0.2; done
exec 3<>/dev/$1
echo open
echo tapped >&3
while [ $(stat -c %U /dev/$1) = _login ]; do sleep 0.05; done
timeout 120 cat <&3
echo ended $?
echo spoofed >&3 && echo wrote || exit 0 # the unit must not count as failed
`

// terminals taps a serial line and a virtual terminal before alice logs in there.
func terminals() {
	start := func(tty string) {
		vm.sh("systemd-run -q --unit=tap-" + tty + " -p User=_login -p StandardOutput=file:/var/tmp/" + tty + " -p StandardError=null /usr/local/bin/tap " + tty)
	}
	heard := func(tty string) error { return want(vm.sh("cat /var/tmp/"+tty), `^open\nended 0$`) }
	must("root logs in at ttyS0, and a process of _login waits for the next prompt there", func() error {
		if err := vm.login("root", `# $`); err != nil {
			return err
		}
		vm.sh("cat >/usr/local/bin/tap <<'END'\n" + tap + "END\nchmod 755 /usr/local/bin/tap")
		start("ttyS0")
		vm.logout()
		return nil
	})
	must("alice logs in at ttyS0 and types a secret", func() error {
		vm.expect(`p9vm login: (.*\n)*tapped\n$|tapped\n(.*\n)*p9vm login: $`)
		vm.send("alice\n")
		vm.expect(`Password: $`)
		vm.send(password + "\n")
		vm.expect(`\$ $`)
		vm.send("stty -echo; PS1=; bind 'set enable-bracketed-paste off' 2>/dev/null\n")
		err := want(vm.sh("echo a-secret; tty; stat -c %U $(tty)"), `a-secret\n/dev/ttyS0\nalice$`)
		vm.logout()
		return err
	})
	must("root logs in again", func() error { return vm.login("root", `# $`) })
	claim("at a serial line, the process that had it open before has read nothing", func() error { return heard("ttyS0") })
	claim("at a virtual terminal, agetty and login let alice in, whoever has it open", func() error {
		// Nobody has a keyboard: root types by TIOCSTI.
		vm.sh(`type() { perl -e 'open F, "+<", "/dev/tty1" or die; ioctl(F, 0x5412, my $c = $_) or die $! for split //, shift' "$1
"; }; owner() { for i in $(seq 300); do [ $(stat -c %U /dev/tty1) = $1 ] && break; sleep 0.2; done; }`)
		start("tty1")
		return want(vm.sh("for i in $(seq 300); do [ -s /var/tmp/tty1 ] && break; sleep 0.2; done; type alice; owner root; sleep 3; type "+password+
			"; owner alice; sleep 3; type 'tty >at-tty1; stat -c %U /dev/tty1 >>at-tty1; exit'; owner _login; cat /home/alice/at-tty1"), `^/dev/tty1\nalice$`)
	})
	claim("and it has read nothing there", func() error { return heard("tty1") })
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
		return want(sh("ulimit -Sn; ulimit -Hn; ulimit -u; nice"), `^1234\n4321\n777\n4$`)
	})
	claim(where+": the login uid is hers", func() error {
		return want(sh("cat /proc/self/loginuid; echo; id -u"), `^(\d{4})\n(\d{4})$`)
	})
	claim(where+": w, last and lastlog know her", func() error {
		// Debian 13 has lastlog2, whose module has PAM's name of the terminal, as with sshd.
		inLast := line
		if sh("command -v lastlog || :") == "" {
			inLast = strings.Replace(line, `pts/\d+`, "ssh", 1)
		}
		return want(sh("w -h; last -w | head -5; $(command -v lastlog lastlog2) -u alice"), `(?m)^alice\s+`+line+`[\s\S]*^alice\s+`+line+`.*still logged in[\s\S]*^alice\s+`+inLast+`\s.*20\d\d$`)
	})
	if where == "ssh" { // at the console that is a module's
		claim(where+": the sessions before have an end in last", func() error {
			return want(sh("last -w"), `(?m)^alice\s+`+line+`.* - \d+:\d+ `)
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
		// As with sshd, terminals are recorded: one that is over, and one that is not.
		for _, program := range []string{"true", "exec sleep 600"} {
			s, err := c.NewSession()
			if err != nil {
				return err
			}
			defer s.Close()
			if err := s.RequestPty("vt100", 24, 80, nil); err != nil {
				return err
			}
			if err := s.Start(program); err != nil {
				return err
			}
			if program == "true" {
				if err := s.Wait(); err != nil {
					return err
				}
			}
		}
		session("ssh", func(cmd string) string { return run(c, cmd) }, `pts/\d+\s+10\.0\.2\.2`, "sshd")
		return nil
	})
}

// asRoot looks at the machine as its administrator, who logs in by us too.
func asRoot() {
	must("root logs in at ttyS0", func() error {
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
	audit()
	// Debian 13 has no lastb.
	claim("lastb or lslogins knows who was refused, at the console and by ssh", func() error {
		if vm.sh("command -v lastb") == "" {
			return want(vm.sh("lslogins --noheadings -o USER,FAILED-TTY"), `(?m)^alice\s+ttyS0$[\s\S]*^carol\s+ssh:notty$`)
		}
		return want(vm.sh("lastb -w"), `(?m)^carol\s+ssh:notty\s+10\.0\.2\.2[\s\S]*^alice\s+ttyS0\s`)
	})
	claim("the journal has what factotum and sshfront say", func() error {
		return want(vm.sh("journalctl -q --no-pager -u factotum -u p9auth-ssh | grep -oE 'session opened|Accepted (publickey|password|keyboard-interactive/pam) for (alice|carol)|Failed (keyboard-interactive/pam|password) for carol' | sort -u"),
			`Accepted keyboard-interactive/pam for carol\nAccepted password for alice\nAccepted publickey for alice\n`)
	})
	claim("fail2ban's journalmatch of p9auth(7) finds them", func() error {
		return want(vm.sh("journalctl -q --no-pager -o short _SYSTEMD_UNIT=factotum.service SYSLOG_IDENTIFIER=sshd + _SYSTEMD_UNIT=p9auth-ssh.service SYSLOG_IDENTIFIER=sshd | sed 's/port .*//' | sort -u"),
			`sshd\[\d+\]: Accepted publickey for alice from 10\.0\.2\.2 [\s\S]*sshd\[\d+\]: Failed password for carol from 10\.0\.2\.2 `)
	})
	claim("systemd-analyze security", func() error {
		out := vm.sh("systemd-analyze --no-pager security factotum.service p9auth-ssh.service 2>&1 | grep -i overall")
		fmt.Println("       " + strings.ReplaceAll(out, "\n", "\n       "))
		return want(out, `factotum`)
	})
}

// audit looks for the records of logins by us, which a factotum-pam sends
// itself or by libpam.
func audit() {
	lines := vm.sh("grep -h factotum-pam /var/log/audit/audit.log")
	for where, place := range map[string]string{"at the console": `hostname=\S+ addr=\? terminal=(/dev/)?ttyS0`, "ssh": `hostname=\S+ addr=10\.0\.2\.2 terminal=ssh`} {
		claim(where+": audit has USER_AUTH, USER_ACCT, USER_START, USER_LOGIN and USER_END, and what was refused", func() error {
			for record, res := range map[string]string{"USER_AUTH": "success", "USER_ACCT": "success", "USER_START": "success", "USER_LOGIN": "success", "USER_END": "success",
				"USER_AUTH ": "failed", "USER_LOGIN ": "failed"} {
				if err := want(lines, `(?m)^type=`+strings.TrimSpace(record)+` msg=.*`+place+` res=`+res); err != nil {
					var some []string
					for l := range strings.Lines(lines) {
						if strings.HasPrefix(l, "type="+strings.TrimSpace(record)+" ") {
							some = append(some, l)
						}
					}
					return fmt.Errorf("no %s at %s with %s; there are %d of that type: %.1000s", record, place, res, len(some), strings.Join(some, ""))
				}
			}
			return nil
		})
	}
	claim("audit has the login uid's change", func() error {
		return want(vm.sh("grep -h '^type=LOGIN ' /var/log/audit/audit.log | tail -5"), `(?m)old-auid=4294967295 auid=\d+ .*ses=\d+ res=1`)
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
	claim("a login that comes while factotum is restarted waits and goes on", func() error {
		// The restart lasts, since something stands before the start.
		const dir = "/run/systemd/system/factotum.service.d"
		vm.sh("mkdir -p " + dir + "; printf '[Service]\\nExecStartPre=/bin/sleep 10\\n' >" + dir + "/test.conf; systemctl daemon-reload; systemctl restart --no-block factotum; " +
			"until [ $(systemctl show -p ActiveState --value factotum) = activating ]; do sleep 0.2; done")
		err := again()
		vm.sh("rm -r " + dir + "; systemctl daemon-reload")
		return errors.Join(err, goesOn())
	})
	claim("a login starts a factotum that was stopped", func() error {
		vm.sh("systemctl stop factotum")
		if err := want(vm.sh("p9auth-switch status"), `factotum: not running, starts when it is asked`); err != nil {
			return err
		}
		return again()
	})
	claim("a factotum that cannot start tells who wants to log in, and systemd does not give up", func() error {
		vm.sh("echo Nonsense 1 >>/etc/p9auth/factotum.conf; systemctl restart --no-block factotum; sleep 8")
		c, err := dial("alice", ssh.PublicKeys(signer))
		if err == nil {
			c.Close()
			return fmt.Errorf("she is let in")
		}
		if err := want(vm.sh("systemctl is-active factotum.socket; journalctl -q --no-pager -b -u p9auth-ssh | grep -c 'factotum cannot start'"), `^active\n[1-9]\d*$`); err != nil {
			return err
		}
		vm.sh("sed -i '$d' /etc/p9auth/factotum.conf; for i in $(seq 60); do systemctl is-active -q factotum && break; sleep 1; done")
		return again()
	})
	claim("without its socket unit, factotum makes its socket", func() error {
		if err := want(vm.sh("systemctl mask -q --now factotum.socket; systemctl restart factotum; echo status $?; ls /run/factotum/rpc"), `status 0\n/run/factotum/rpc$`); err != nil {
			return err
		}
		if err := again(); err != nil {
			return err
		}
		return want(vm.sh("systemctl unmask -q factotum.socket; systemctl restart factotum; systemctl is-active factotum.socket factotum.service"), `^active\nactive$`)
	})
	claim("alice's session goes on, and logins do", func() error { return errors.Join(goesOn(), again()) })
	claim("systemd has nothing failed after that", nothingFailed)
}

// upgrade puts the package over an older one, while alice is logged in.
func upgrade(signer ssh.Signer) {
	c, err := dial("alice", ssh.PublicKeys(signer))
	if err != nil {
		claim("alice logs in", func() error { return err })
		return
	}
	defer c.Close()
	claim("an upgrade of the package leaves sessions and changed configurations alone", func() error {
		out := vm.sh("echo '# mine' >>/etc/p9auth/factotum.conf; old=$(dpkg-query -W -f '${Version}' p9auth); dpkg -i /root/p9auth.deb >/root/log 2>&1; echo status $?; new=$(dpkg-query -W -f '${Version}' p9auth); dpkg --compare-versions $new gt $old && echo newer; tail -n 1 /etc/p9auth/factotum.conf; systemctl is-active factotum.socket factotum.service p9auth-ssh.socket p9auth-ssh.service; systemctl is-enabled factotum.socket factotum.service p9auth-ssh.socket")
		if err := want(out, `^status 0\nnewer\n# mine\nactive\nactive\nactive\nactive\nenabled\nenabled\nenabled$`); err != nil {
			return fmt.Errorf("%v; %s", err, vm.sh("cat /root/log"))
		}
		return want(run(c, "echo goes on"), `^goes on$`)
	})
	loginsWork(signer)
	claim("systemd has nothing failed after the upgrade", nothingFailed)
}

func reboot(signer ssh.Signer) {
	must("it reboots, from a console of ours", func() error {
		vm.send("systemctl reboot\n")
		vm.expect(`reboot: Restarting system`)
		return vm.login("alice", `\$ $`)
	})
	vm.logout()
	loginsWork(signer)
}

// hybrid boots with control groups of version 1 and 2 side by side.
func hybrid(dir string, verbose bool, signer ssh.Signer) {
	must("it shuts down, for a boot with control groups of version 1", func() error {
		if err := vm.login("root", `# $`); err != nil {
			return err
		}
		vm.send("systemctl poweroff\n")
		vm.expect(`reboot: Power down`)
		vm.stop()
		var err error
		vm, err = start(dir, verbose, "systemd.unified_cgroup_hierarchy=0")
		return err
	})
	must("alice logs in at ttyS0, with both versions of control groups", func() error {
		if err := vm.login("alice", `\$ $`); err != nil {
			return err
		}
		return want(vm.sh("cat /proc/self/cgroup"), `name=systemd:/user\.slice/\S+session-\w+\.scope\n[\s\S]*0::/user\.slice/\S+session-\w+\.scope$`)
	})
	vm.logout()
	claim("and by ssh", func() error {
		c, err := dial("alice", ssh.PublicKeys(signer))
		if err != nil {
			return err
		}
		defer c.Close()
		return want(run(c, "cat /proc/self/cgroup"), `name=systemd:/user\.slice/\S+session-\w+\.scope\n[\s\S]*0::/user\.slice/\S+session-\w+\.scope$`)
	})
}

// remove takes p9auth off again.
func remove() {
	must("root logs in at ttyS0 again", func() error {
		return vm.login("root", `# $`)
	})
	claim("p9auth-switch moves everything back", func() error {
		if err := want(vm.sh("p9auth-switch all off; echo status $?; p9auth-switch status"), `status 0[\s\S]*ssh: off\nport 22: SSH-2.0-OpenSSH_[0-9.]+p[0-9]+( .*)?\nconsole: off`); err != nil {
			return err
		}
		return want(vm.sh("systemctl is-active ssh.service; systemctl is-enabled ssh.service"), `^active\nenabled$`)
	})
	claim("and over once more", func() error {
		return want(vm.sh("p9auth-switch all on; echo status $?; p9auth-switch status"), `status 0[\s\S]*ssh: on\nport 22: SSH-2.0-OpenSSH_\S*p9auth`)
	})
	claim("removing the package gives the machine sshd and its consoles back", func() error {
		return want(vm.sh("dpkg -r p9auth >/dev/null; echo status $?; ssh-keyscan -T 10 localhost 2>&1 | grep -c OpenSSH; ls /etc/systemd/system/*getty@.service.d 2>&1; ls /usr/lib/p9auth 2>&1"),
			`status 0\n[1-9][\s\S]*No such file[\s\S]*/usr/lib/p9auth.*No such file`)
	})
	claim("and its su, passwd, doas and unix_chkpwd, with their modes", localRemoved)
	claim("purging it leaves nothing", func() error {
		return want(vm.sh("ls /etc/p9auth/factotum.conf; dpkg -P p9auth >/dev/null 2>&1; echo status $?; getent passwd _login _sshfront; ls -d /etc/p9auth /var/lib/p9auth /run/factotum/cap 2>/dev/null; findmnt -n -t fuse.p9auth; ls /etc/systemd/system/*/ | grep -E 'factotum|p9auth'; echo end"), `^/etc/p9auth/factotum.conf\nstatus 0\nend$`)
	})
	vm.logout()
	claim("Debian's login works as before", func() error {
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
