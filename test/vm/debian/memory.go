package main

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// eat is a program that a PAM module of a worker starts. For bob it takes all the memory
// that there is, and has the kernel take the worker first.
const eat = `[ "$PAM_USER" = bob ] || exit 0
echo 1000 >/proc/$PPID/oom_score_adj
exec tail /dev/zero`

// outOfMemory has the kernel's out-of-memory killer take a PAM worker, in a unit whose
// memory is bounded, while alice is logged in.
func outOfMemory(signer ssh.Signer) {
	claim("systemd ends neither unit for a process of it that the kernel takes", func() error {
		return want(vm.sh("systemctl show -p OOMPolicy -p OOMScoreAdjust factotum; systemctl show -p OOMPolicy p9auth-ssh"), `^OOMPolicy=continue\nOOMScoreAdjust=-900\n+OOMPolicy=continue$`)
	})
	c, err := dial("alice", ssh.PublicKeys(signer))
	if err != nil {
		claim("alice logs in", func() error { return err })
		return
	}
	defer c.Close()
	claim("the kernel takes bob's PAM worker for want of memory: he is refused, the daemons live, alice's session and new logins go on", func() error {
		const daemons = "systemctl show -p MainPID -p NRestarts -p ActiveState factotum p9auth-ssh"
		before := vm.sh(daemons)
		vm.sh("printf '%s\\n' '#!/bin/sh' '" + strings.ReplaceAll(eat, "\n", "' '") + "' >/usr/local/bin/eat; chmod 755 /usr/local/bin/eat; cp /etc/pam.d/sshd /root/sshd.pam; sed -i '1i account optional pam_exec.so /usr/local/bin/eat' /etc/pam.d/sshd; " +
			"systemctl set-property --runtime factotum MemoryMax=150M MemorySwapMax=0")
		b, err := dial("bob", ssh.Password(password))
		if err == nil {
			b.Close()
			return errors.New("bob is in")
		}
		after := vm.sh(daemons + "; cp /root/sshd.pam /etc/pam.d/sshd; systemctl set-property --runtime factotum MemoryMax=infinity MemorySwapMax=infinity")
		taken := vm.sh("grep '^oom_kill ' /sys/fs/cgroup/system.slice/factotum.service/memory.events; journalctl -b -k --no-pager -o cat -g 'Killed process'; journalctl -b --no-pager -o cat -u factotum -p err | tail -n 3")
		fmt.Printf("       %s\n", strings.ReplaceAll(taken, "\n", "\n       "))
		if err := want(taken, `^oom_kill [1-9][\s\S]*Killed process \d+ \(factotum-pam\)[\s\S]*the PAM worker failed`); err != nil {
			return err
		}
		if after != before {
			return fmt.Errorf("the daemons were %q and are %q", before, after)
		}
		return errors.Join(want(run(c, "echo goes on"), `^goes on$`), eventuallyIn(signer), nothingFailed())
	})
}
