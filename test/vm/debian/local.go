package main

import (
	"fmt"
	"strings"
)

// newPassword is bob's, after he had to change his.
const newPassword = "Xq7-new-horse"

// setIDs lists the files with a set-id bit on all file systems but the kernel's own.
const setIDs = `find / \( -path /proc -o -path /sys \) -prune -o -type f -perm /6000 -print`

// localPrograms has people who are logged in use su, passwd and the like, where no file
// has a set-id bit. Root is logged in at ttyS0 before and after. What is switched on
// stays so until the package is removed.
func localPrograms() {
	must("p9auth-switch local on puts ours in the places of su, passwd, doas and unix_chkpwd", func() error {
		out := vm.sh("p9auth-switch local on; echo status $?; p9auth-switch local status; /usr/bin/passwd --version | head -n 1")
		return want(out, `local is on: su passwd doas unix_chkpwd\nstatus 0\nlocal: on\n/usr/bin/su: p9auth's\n/usr/bin/passwd: p9auth's\n/usr/bin/doas: p9auth's\n/usr/sbin/unix_chkpwd: p9auth's`)
	})
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
	claim("bob is bob again, and is refused by su with a wrong password", func() error {
		if err := want(vm.sh("id -un"), `^bob$`); err != nil {
			return err
		}
		vm.send("su -c true; echo status $?\n")
		vm.answer(`Password: $`, "wrong")
		vm.expect(`su: Authentication failure\nstatus 1\n`)
		return nil
	})
	vm.logout()
	must("root logs in at ttyS0 once more", func() error { return vm.login("root", `# $`) })
	claim("systemd has nothing failed after that", nothingFailed)
}

// answer types an answer when the question is there.
func (m *machine) answer(question, text string) {
	m.expect(question)
	m.send(text + "\n")
}
