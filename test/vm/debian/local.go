package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// newPassword is bob's, after he had to change his.
const newPassword = "Xq7-new-horse"

// setIDs lists the files with a set-id bit on all file systems but the kernel's own.
const setIDs = `find / \( -path /proc -o -path /sys \) -prune -o -type f -perm /6000 -print`

// theirs are the programs of Debian that ours take the places of, as their packages
// have them.
const theirs = `/usr/bin/su 4755 root:root
/usr/bin/passwd 4755 root:root
/usr/bin/doas 4755 root:root
/usr/sbin/unix_chkpwd 2755 root:shadow
`

// localState says all that p9auth-switch local may have changed.
const localState = `stat -c '%n %a %U:%G' /usr/bin/su /usr/bin/passwd /usr/bin/doas /usr/sbin/unix_chkpwd
sha256sum /usr/bin/su /usr/bin/passwd /usr/bin/doas /usr/sbin/unix_chkpwd /etc/p9auth/factotum.conf
dpkg-divert --list; dpkg-statoverride --list; ls /var/lib/p9auth /usr/bin/*.distrib /usr/sbin/*.distrib 2>&1`

// localPrograms has people who are logged in use su, passwd and the like, where no file
// has a set-id bit. Root is logged in at ttyS0 before and after. The programs are ours
// afterwards, until the package is removed.
func localPrograms() {
	var before string
	must("su, passwd, doas and unix_chkpwd have the modes of their packages", func() error {
		vm.sh("while read f mode owner; do chown $owner $f; chmod $mode $f; done <<'END'\n" + theirs + "END")
		before = vm.sh(localState)
		return want(before, "^"+regexp.QuoteMeta(theirs))
	})
	localOn()
	claim("the list of set-id files on the whole system is empty", func() error {
		out := vm.sh(setIDs + "; echo end")
		fmt.Printf("       set-id files: %d\n%s", strings.Count(out, "\n"), strings.TrimSuffix(out, "end"))
		return want(out, `^end$`)
	})
	must("bob has to change his password at his first login, and does", func() error {
		vm.sh("chage -d 0 bob; printf '%s\\n' 'permit persist bob as root' 'permit nopass bob as alice cmd /usr/bin/id' >/etc/doas.conf; chmod 644 /etc/doas.conf")
		vm.logout()
		vm.expect(`p9vm login: $`)
		vm.send("bob\n")
		vm.answer("Password: $", password)
		vm.expect(`You are required to change your password immediately`)
		vm.answer(`Current password: $`, password)
		vm.answer(`New password: $`, newPassword)
		vm.answer(`Retype new password: $`, newPassword)
		vm.expect(`\$ $`)
		vm.plain()
		return want(vm.sh("id -un; passwd -S"), `^bob\nbob P `)
	})
	bobsPassword()
	bobsRights()
	vm.logout()
	must("root logs in at ttyS0 once more", func() error { return vm.login("root", `# $`) })
	forcedBySSH()
	besideSetID()
	claim("systemd has nothing failed after that", nothingFailed)
	claim("p9auth-switch local off gives the system its programs, modes, diversions and configuration back", func() error {
		if err := want(vm.sh("p9auth-switch local off; echo status $?; p9auth-switch local status"), `local is as it was before; open sessions go on\nstatus 0\nlocal: off$`); err != nil {
			return err
		}
		if after := vm.sh(localState); after != before {
			return fmt.Errorf("before\n%s\nafter\n%s", before, after)
		}
		return want(vm.sh("runuser -u bob -- /usr/lib/p9auth/passwd -S 2>&1; passwd -S bob"), `is not configured as a front end[\s\S]*\nbob P `)
	})
	localOn()
}

func localOn() {
	must("p9auth-switch local on puts ours in the places of su, passwd, doas and unix_chkpwd", func() error {
		out := vm.sh("p9auth-switch local on; echo status $?; p9auth-switch local status")
		return want(out, `local is on: su passwd doas unix_chkpwd\nstatus 0\nlocal: on\n/usr/bin/su: p9auth's\n/usr/bin/passwd: p9auth's\n/usr/bin/doas: p9auth's\n/usr/sbin/unix_chkpwd: p9auth's$`)
	})
}

// localRemoved says whether the package has left what it found.
func localRemoved() error {
	out := vm.sh(localState + "; dpkg-divert --list | grep -cE '(su|passwd|doas|unix_chkpwd)\\.distrib'; dpkg-statoverride --list | grep -cE '/(su|passwd|doas|unix_chkpwd)$'; grep -c '^FrontEnd \\*' /etc/p9auth/factotum.conf")
	return want(out, "^"+regexp.QuoteMeta(theirs)+`(?s:.*)(ls: .*/\*\.distrib': No such file or directory\n){2}(?s:.*)\n0\n0\n0$`)
}

// bobsPassword is about bob's password, at the console.
func bobsPassword() {
	claim("bob changes it back with passwd", func() error {
		vm.send("passwd; echo status $?\n")
		vm.answer(`Current password: $`, newPassword)
		vm.answer(`New password: $`, password)
		vm.answer(`Retype new password: $`, password)
		vm.expect(`passwd: password updated successfully\nstatus 0\n`)
		return nil
	})
	claim("bob is refused with a wrong password, and about another's", func() error {
		vm.send("passwd; echo status $?\n")
		vm.answer(`Current password: $`, "wrong")
		vm.expect(`passwd: Authentication token manipulation error\npasswd: password unchanged\nstatus 10\n`)
		return want(vm.sh("passwd alice; echo status $?"), `^passwd: You may not view or modify password information for alice\.\nstatus 1$`)
	})
	claim("a screen locker's question about bob's password is answered, and about alice's not", func() error {
		return want(vm.sh(fmt.Sprintf(`for u in bob alice; do printf '%s\0' | /usr/sbin/unix_chkpwd $u nullok; echo $?; done; printf 'wrong\0' | /usr/sbin/unix_chkpwd bob nullok; echo $?`, password)), `^0\n9\n7$`)
	})
	claim("pam_unix in a program of bob's own has his password checked by it", func() error {
		return want(vm.sh(fmt.Sprintf(`check() { printf '%%s\n' "$1" | pamtester locker bob authenticate 2>&1 | tail -n 1; }; check %s; check wrong`, password)),
			`pamtester: successfully authenticated\n.*pamtester: Authentication failure$`)
	})
}

// bobsRights is about who bob can become, at the console.
func bobsRights() {
	claim("bob runs a command as root with doas, by his password, and the next one without", func() error {
		vm.send("doas id -u; echo status $?\n")
		vm.answer(`doas \(bob@p9vm\) password: $`, password)
		vm.expect(`\n0\nstatus 0\n`)
		return want(vm.sh("doas cat /etc/shadow | grep -c ^root:; doas -u alice /usr/bin/id -un; doas -u carol id; echo status $?"), `^1\nalice\ndoas: Operation not permitted\nstatus 1$`)
	})
	must("bob becomes root with su -, with root's password", func() error {
		vm.send("su -\n")
		vm.answer(`Password: $`, password)
		vm.expect(`# $`)
		vm.plain()
		// The login uid says who has logged in.
		return want(vm.sh("id -u; echo $HOME $USER; pwd; [ $(cat /proc/self/loginuid) = $(id -u bob) ] && echo bob"), `^0\n/root root\n/root\nbob$`)
	})
	claim("root, by su, uses the system's own passwd", func() error {
		return want(vm.sh("passwd -l carol; passwd -S carol; passwd -u carol; passwd -S carol"), `carol L [\s\S]*carol P `)
	})
	claim("nobody has a right that su or passwd has left", func() error {
		return want(vm.sh("ls /run/factotum/cap; ps -e -o comm= | grep -cE '^(passwd|unix_chkpwd)$'; echo end"), `capuse[\s\S]*\n0\nend$`)
	})
	vm.logout() // of su
	vm.expect(`logout\n`)
	must("bob becomes alice with su -, with her password", func() error {
		vm.send("su - alice\n")
		vm.answer(`Password: $`, password)
		vm.expect(`alice@p9vm:~\$ $`)
		vm.plain()
		err := want(vm.sh("id -un; id -Gn; pwd; ulimit -Sn; tty"), `^alice\nalice wizards\n/home/alice\n1234\n/dev/ttyS0$`)
		vm.logout()
		vm.expect(`logout\n`)
		return err
	})
	claim("bob is bob again, and is refused by su with a wrong password", func() error {
		if err := want(vm.sh("id -un"), `^bob$`); err != nil {
			return err
		}
		vm.send("su -c true; echo status $?\n")
		vm.answer(`Password: $`, "wrong")
		vm.expect(`su: Authentication failure\nstatus 1\n`)
		return nil
	})
}

// forcedBySSH has bob change a password by ssh, as he must. Root is at ttyS0.
func forcedBySSH() {
	claim("bob has to change his password when he logs in by ssh, and does, with a passwd that has no right", func() error {
		vm.sh("chage -d 0 bob")
		c, err := dial("bob", ssh.Password(password))
		if err != nil {
			return err
		}
		defer c.Close()
		s, err := c.NewSession()
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.RequestPty("vt100", 24, 80, nil); err != nil {
			return err
		}
		in, _ := s.StdinPipe()
		out, _ := s.StdoutPipe()
		if err := s.Shell(); err != nil {
			return err
		}
		t := newTalk(out)
		for _, step := range [][2]string{{`You must change your password now and login again!`, ""}, {`Current password: $`, password}, {`New password: $`, newPassword}, {`Retype new password: $`, newPassword}, {`password updated successfully`, ""}} {
			if err := t.expect(step[0]); err != nil {
				return err
			}
			if step[1] != "" {
				fmt.Fprintf(in, "%s\n", step[1])
			}
		}
		if err := s.Wait(); err != nil {
			return fmt.Errorf("after the change: %w", err)
		}
		return nil
	})
	claim("ssh: bob logs in with the new password, and not with the one before", func() error {
		if c, err := dial("bob", ssh.Password(password)); err == nil {
			c.Close()
			return fmt.Errorf("he is let in with the one before")
		}
		c, err := dial("bob", ssh.Password(newPassword))
		if err != nil {
			return err
		}
		defer c.Close()
		return want(run(c, "id -un; passwd -S"), `^bob\nbob P `)
	})
	vm.sh("echo bob:" + password + " | chpasswd")
}

// A talk is what a program over there has printed.
type talk struct {
	seen string
	new  chan string
}

func newTalk(r io.Reader) *talk {
	t := &talk{new: make(chan string)}
	go func() {
		defer close(t.new)
		for b := make([]byte, 4096); ; {
			n, err := r.Read(b)
			t.new <- string(b[:n])
			if err != nil {
				return
			}
		}
	}()
	return t
}

// expect waits for what a regular expression matches, and takes all up to there.
func (t *talk) expect(re string) error {
	for limit := time.After(patience); ; {
		if loc := regexp.MustCompile(re).FindStringIndex(t.seen); loc != nil {
			t.seen = t.seen[loc[1]:]
			return nil
		}
		select {
		case s, ok := <-t.new:
			if t.seen += s; !ok {
				return fmt.Errorf("want %s, it ends with %.600q", re, t.seen)
			}
		case <-limit:
			return fmt.Errorf("want %s, got %.600q", re, t.seen)
		}
	}
}

// answer types an answer when the question is there.
func (m *machine) answer(question, text string) {
	m.expect(question)
	m.send(text + "\n")
}
