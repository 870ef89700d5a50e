//go:build containers

package container

import (
	"testing"

	"p9auth/test/testbed"
)

// An upgrade leaves what an administrator has disabled disabled, and a purge succeeds while
// somebody is logged in, whose session goes on.
func TestThePackageWhileSomebodyIsLoggedIn(t *testing.T) {
	m := Boot(t, "")
	m.Sh(t, "p9auth-switch "+accepted+" all on")
	alice := testbed.StartTerm(t, m.SSH("-tt", "alice@127.0.0.1"))
	alice.Expect(`\$ $`)
	out := m.Sh(t, "systemctl disable -q factotum.service p9auth-ssh.service; dpkg -i /root/p9auth.deb >/root/log 2>&1; echo status $?; dpkg-query -W -f '${Version}\n' p9auth; systemctl is-enabled factotum.service p9auth-ssh.service; systemctl is-active factotum.service p9auth-ssh.socket")
	want(t, out, "status 0", "[1-9]*0\\.[1-9].*", "disabled\ndisabled\nactive\nactive")
	want(t, alice.Run("echo goes on"), "goes on")
	want(t, m.Sh(t, "dpkg -P p9auth >/root/log 2>&1; echo status $?; cat /root/log; systemctl is-active ssh.service; ls -d /var/lib/p9auth /etc/p9auth 2>&1"),
		"status 0", "active", "ls: cannot access '/var/lib/p9auth': No such file or directory", "ls: cannot access '/etc/p9auth': No such file or directory")
	want(t, alice.Run("echo goes on"), "goes on")
}
