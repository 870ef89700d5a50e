//go:build containers

package container

import (
	"testing"

	"p9auth/test/testbed"
)

// filled fills / to the last block, root's reserve too, so that no file there can grow.
const filled = `dd if=/dev/zero of=/filler bs=1M 2>/dev/null; dd if=/dev/zero of=/filler.small bs=512 2>/dev/null; sync
for d in / /var/log /var/lib /etc /home/alice; do head -c 8192 /dev/zero 2>/dev/null >$d/probe && echo "there is room in $d"; rm -f $d/probe; done; df --output=avail / | tail -n 1`

// While nothing can be written to / people get in by ssh and at the console, as they do by
// Debian's sshd and login. factotum and the listener live, and start where they are started
// again. passwd leaves the password alone and says so. All works when there is room again.
func TestAFullRootKeepsNobodyOut(t *testing.T) {
	m := newImage(t, "1").boot(t, ordinary)
	in := func() {
		t.Helper()
		out, err := m.SSH("-o", "BatchMode=yes", "alice@127.0.0.1", "id -un").CombinedOutput()
		if string(out) != "alice\n" {
			t.Errorf("by ssh: %v: %s", err, out)
		}
		logIn(t, m, m.Console, "console-getty.service", "alice")
		m.Console.Send("exit\n")
	}
	fill := func() {
		t.Helper()
		want(t, m.Sh(t, filled), ` *0`)
	}
	const empty = "rm -f /filler*; sync"
	fill()
	in()
	m.Sh(t, empty)
	want(t, m.Sh(t, "p9auth-switch "+accepted+" all on; p9auth-switch local on; p9auth-switch status"), "ssh: on", "console: on", "local: on")
	in()
	stays := testbed.StartTerm(t, m.SSH("-tt", "bob@127.0.0.1", "-o", "PubkeyAuthentication=no"))
	stays.Expect(`assword: $`)
	stays.Send("open-sesame\n")
	stays.Expect(`\$ $`)
	const daemons = "systemctl show -p MainPID -p NRestarts -p ActiveState factotum p9auth-ssh"
	before := m.Sh(t, daemons)
	fill()
	in()
	if after := m.Sh(t, daemons); after != before {
		t.Errorf("the daemons were\n%s\nand are\n%s", before, after)
	}
	passwd := testbed.StartTerm(t, m.SSH("-tt", "alice@127.0.0.1", "passwd"))
	shadow := m.Sh(t, "sha256sum /etc/shadow; ls -l /etc/shadow")
	passwd.Expect(`urrent password: $`)
	passwd.Send("open-sesame\n")
	for range 2 {
		passwd.Expect(`(?i)new password: $`)
		passwd.Send("Another-Passw0rd\n")
	}
	passwd.Expect(`passwd: password unchanged`)
	if passwd.Wait() == nil {
		t.Errorf("passwd ends with status 0: %s", passwd.Screen())
	}
	if after := m.Sh(t, "sha256sum /etc/shadow; ls -l /etc/shadow"); after != shadow {
		t.Errorf("/etc/shadow was\n%s\nand is\n%s", shadow, after)
	}
	want(t, m.Sh(t, "systemctl restart factotum p9auth-ssh; systemctl is-active factotum p9auth-ssh | sort -u"), "active")
	in()
	want(t, stays.Run("id -un"), "bob")
	m.Sh(t, empty)
	in()
	want(t, m.Sh(t, "systemctl --failed --no-legend --plain; echo end"), "end")
	t.Log(passwd.Screen(), m.Sh(t, "journalctl -b --no-pager -o cat -u factotum -p warning"))
}
