//go:build containers

package container

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// keysByCommand makes accounts of many kinds, each with alice's key by a command that
// runs as user keys and notes what it is asked.
const keysByCommand = `useradd -r keys
useradd -m -s /bin/sh -G wizards locked && usermod -L locked
useradd -M -d /nowhere -s /bin/sh homeless
useradd -m -s /bin/sh expired && chage -E 0 expired
useradd -m -s /bin/sh aged && chage -d 0 aged
useradd -m -s /usr/sbin/nologin shellless
useradd -m -s /bin/rbash restricted
useradd -m -s /bin/sh -g nogroup grouped
useradd -r -m -s /bin/sh system
useradd -m -s /bin/sh --badname Some.One
useradd -m -s /bin/sh -p '' empty
useradd -o -u 0 -g 0 -M -d /root -s /bin/sh toor
useradd -o -u $(id -u bob) -g bob -M -d /home/bob -s /bin/sh robert
cp /home/alice/.ssh/authorized_keys /usr/local/keys
cat >/usr/local/bin/keys <<'E'
#!/bin/sh
echo "$(id -un) $*" >>/var/tmp/asked
[ "$1" = carol ] || cat /usr/local/keys
E
chmod 755 /usr/local/bin/keys
: >/var/tmp/asked
chmod 666 /var/tmp/asked
printf '%s\n' 'AuthorizedKeysCommand /usr/local/bin/keys %u %t %f' 'AuthorizedKeysCommandUser keys' 'PermitRootLogin prohibit-password' 'RequiredRSASize 3072' >/etc/ssh/sshd_config.d/keys.conf
`

// Whoever gets in by sshd with the keys that a command knows, and of the sizes that it
// takes, gets in after the switch, and nobody else.
func TestEachKindOfAccountAndKeyIsLetInAsBySSHD(t *testing.T) {
	m := Boot(t, keysByCommand)
	accounts := strings.Fields("root toor alice bob robert carol locked homeless expired aged shellless restricted grouped system Some.One empty keys nobody absent")
	dir := t.TempDir()
	for _, bits := range []string{"2048", "3072"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "rsa", "-b", bits, "-N", "", "-f", dir+"/"+bits).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
		if out, err := exec.Command("sh", "-c", "cat "+dir+"/"+bits+".pub >>"+m.Root+"/usr/local/keys").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	in := func() string {
		var all strings.Builder
		one := func(account, key string) {
			cmd := m.SSH("-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", account+"@127.0.0.1", "id; pwd")
			cmd.Args[slices.Index(cmd.Args, m.dir+"/alice")] = key
			var out, errs strings.Builder // which of the two comes first is chance
			cmd.Stdout, cmd.Stderr = &out, &errs
			err := cmd.Run()
			fmt.Fprintf(&all, "%s: %v %s%s\n", account, err, out.String(), strings.ReplaceAll(errs.String(), "\r", ""))
		}
		for _, a := range accounts {
			one(a, m.dir+"/alice")
		}
		one("bob", dir+"/2048")
		one("bob", dir+"/3072")
		return all.String() + m.Sh(t, "sort /var/tmp/asked | uniq; : >/var/tmp/asked")
	}
	// Nobody is turned away for the failures before: Debian 12's sshd has no penalties.
	const forgiving = "echo PerSourcePenalties no >/etc/ssh/sshd_config.d/forgiving.conf; "
	m.Sh(t, forgiving+"if /usr/sbin/sshd -t; then systemctl try-restart ssh; else rm /etc/ssh/sshd_config.d/forgiving.conf; fi")
	sshd := in()
	want(t, m.Sh(t, "p9auth-switch "+accepted+" ssh on; echo status $?"), "status 0")
	m.Sh(t, forgiving+"systemctl restart p9auth-ssh")
	if ours := in(); ours != sshd {
		t.Errorf("by sshd\n%s\nby ours\n%s", sshd, ours)
	}
	t.Log(sshd)
}

// What only sshd takes - keys by a command, types and sizes of keys, a host key, another
// service of PAM - is in the table, also with -n, and nothing is changed until it is named.
func TestWhatOnlySSHDTakesIsNamedBeforeTheSwitch(t *testing.T) {
	m := Boot(t, keysByCommand+`ssh-keygen -q -t rsa -N '' -f /etc/ssh/shared_key
chown keys: /etc/ssh/shared_key
chmod 640 /etc/ssh/shared_key
printf '%s\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'HostKey /etc/ssh/shared_key' 'PubkeyAuthOptions touch-required' >>/etc/ssh/sshd_config.d/keys.conf
printf '%s\n' 'UsePAM yes' 'KbdInteractiveAuthentication yes' 'PrintMotd no' 'X11Forwarding yes' "$(grep ^AcceptEnv /etc/ssh/sshd_config)" 'Subsystem sftp /usr/lib/openssh/sftp-server' 'PubkeyAcceptedAlgorithms -sk-*' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'HostKey /etc/ssh/shared_key' >/etc/p9auth/own
sed -i 's/^FrontEnd _sshfront sshd/FrontEnd _sshfront p9auth-sshd/' /etc/p9auth/factotum.conf`)
	before := state(t, m)
	unchanged := func(said string) {
		t.Helper()
		want(t, said, ".*nothing was changed", "status 1")
		if after := state(t, m); after != before {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
	}
	// A command as root is not run, whoever permits it: another configuration has to say so.
	m.Sh(t, "printf 'AuthorizedKeysCommandUser root\\n' >/etc/ssh/sshd_config.d/aaa.conf; systemctl reload ssh")
	unchanged(m.Sh(t, "p9auth-switch "+accepted+",authorizedkeyscommanduser ssh on 2>&1; echo status $?"))
	m.Sh(t, "mv /etc/p9auth/own /etc/p9auth/sshd_config; systemctl restart factotum")
	for _, dry := range []string{"-n ", ""} {
		said := m.Sh(t, "p9auth-switch "+dry+accepted+" ssh on 2>&1; echo status $?")
		hash := map[string]string{"-n ": "# ", "": ""}[dry]
		want(t, said, hash+`authorizedkeyscommand +/usr/local/bin/keys %u %t %f +\S+ +shuts out +all`, hash+`authorizedkeyscommanduser +root +\S+ +shuts out +all`,
			hash+`requiredrsasize +3072 +1024 +weaker +all`, hash+`pubkeyauthoptions +touch-required +none +weaker +all`,
			hash+`pubkeyacceptedalgorithms +also \S*sk-\S* +no other +shuts out +all`, hash+`pamservicename +sshd +p9auth-sshd +weaker +all`,
			hash+`hostkey +/etc/ssh/shared_key +left out +shuts out +all`)
		unchanged(said)
		if dry == "" {
			t.Log(said)
		}
	}
	all := "authorizedkeyscommand,authorizedkeyscommanduser,requiredrsasize,pubkeyauthoptions,pubkeyacceptedalgorithms,pamservicename"
	some := m.Sh(t, "p9auth-switch "+accepted+","+all+" ssh on 2>&1; echo status $?")
	want(t, some, `sshfront: hostkey: not as with sshd, .*`, `requiredrsasize +3072 +1024 +weaker, accepted +all`)
	unchanged(some)
	want(t, m.Sh(t, "p9auth-switch -n "+accepted+","+all+",hostkey ssh on 2>&1; echo status $?"), "systemctl start p9auth-ssh.socket", "status 0")
	want(t, m.Sh(t, "p9auth-switch "+accepted+","+all+",hostkey ssh on 2>&1; echo status $?; p9auth-switch status"), "status 0", "ssh: on")
}
