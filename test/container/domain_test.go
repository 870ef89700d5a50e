//go:build containers

package container

import (
	"os"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// domainController makes a domain of Samba's on the machine, TEST.EXAMPLE, and has sssd,
// which on a busy machine must not take it for offline,
// take its users and groups from there. dana is a user, in the group crew, and has the key
// of the machine's alice; erin's account has expired, fred's is disabled, and gina is not in
// the group; nobody is in the group ghosts.
const domainController = `set -e
ip addr add 10.9.9.1/24 dev lo
rm -f /etc/samba/smb.conf
samba-tool domain provision --realm=TEST.EXAMPLE --domain=TEST --server-role=dc --dns-backend=SAMBA_INTERNAL --adminpass=Open-Sesame1 --host-ip=10.9.9.1 >/root/provision.log
cp /var/lib/samba/private/krb5.conf /etc/krb5.conf
printf 'search test.example\nnameserver 10.9.9.1\n' >/etc/resolv.conf
systemctl unmask -q samba-ad-dc
systemctl start samba-ad-dc
samba-tool domain passwordsettings set --complexity=off --min-pwd-length=4 >/dev/null
for u in dana erin fred gina; do samba-tool user create $u open-sesame >/dev/null; done
samba-tool group add crew >/dev/null
samba-tool group addmembers crew dana,erin,fred >/dev/null
samba-tool group add ghosts >/dev/null
samba-tool user setexpiry erin --days=0 >/dev/null
samba-tool user disable fred >/dev/null
printf 'dn: CN=dana,CN=Users,DC=test,DC=example\nchangetype: modify\nadd: altSecurityIdentities\naltSecurityIdentities: %s\n' "$(cat /home/alice/.ssh/authorized_keys)" >/root/key.ldif
ldbmodify -H /var/lib/samba/private/sam.ldb /root/key.ldif >/dev/null
for p in 'P9VM$' host/p9vm.test.example; do samba-tool domain exportkeytab /etc/krb5.keytab --principal="$p" >/dev/null; done
cat >/etc/sssd/sssd.conf <<'END'
[sssd]
services = nss, pam, ssh
domains = test.example
[domain/test.example]
id_provider = ad
access_provider = ad
ad_server = p9vm.test.example
ldap_sasl_authid = P9VM$
fallback_homedir = /home/%u
default_shell = /bin/bash
ldap_user_ssh_public_key = altSecurityIdentities
ad_gpo_access_control = disabled
krb5_auth_timeout = 60
ldap_opt_timeout = 60
dyndns_update = false
END
chmod 600 /etc/sssd/sssd.conf
systemctl restart sssd
for i in $(seq 60); do id dana >/dev/null 2>&1 && break; sleep 0.5; done
id dana || { klist -k; tail -n 30 /var/log/sssd/*.log; exit 1; }`

// sees is what dana has of a login, without what differs between any two.
const sees = `{ id; pwd; ls -ld ~ | cut -d' ' -f1,3; ls -A ~ | sort | tr '\n' ' '; echo; echo "$KRB5CCNAME" | sed 's/_[^_]*$/_X/'; klist | grep -E 'principal|krbtgt' | sed 's/.* krbtgt/krbtgt/'; } 2>&1`

// With a domain, users log in at the console and by SSH as with login and sshd.
func TestUsersOfADomain(t *testing.T) {
	if _, err := os.Stat(os.Getenv(dirVar) + "/root/usr/sbin/samba"); err != nil {
		t.Skip("needs a tree with Samba and sssd, which make test-domain makes")
	}
	m := Boot(t, `systemctl mask -q smbd nmbd winbind samba-ad-dc 2>/dev/null
pam-auth-update --enable mkhomedir sss unix systemd
sed -i 's/^127.0.0.1.*/127.0.0.1 localhost/' /etc/hosts
echo '10.9.9.1 p9vm.test.example p9vm' >>/etc/hosts
printf 'AuthorizedKeysCommand /usr/bin/sss_ssh_authorizedkeys\nAuthorizedKeysCommandUser nobody\nPerSourcePenalties no\n' >>/etc/ssh/sshd_config
/usr/sbin/sshd -t 2>/dev/null || sed -i '$d' /etc/ssh/sshd_config
printf 'GSSAPIAuthentication yes\nAllowGroups crew wizards\nMatch Group crew\nAllowTcpForwarding no\n' >>/etc/ssh/sshd_config`)
	made, err := m.Command("/bin/sh", "-c", domainController).CombinedOutput() // it takes a minute on a busy machine
	if err != nil {
		t.Fatalf("the domain: %v: %s", err, made)
	}
	want(t, string(made), `uid=\d+\(dana\) .*\(crew\).*`)
	t.Log(m.Sh(t, "sss_ssh_authorizedkeys dana; true"))
	groupsOfADomain(t, m)
	saw := map[string]map[string]string{}
	for _, by := range []string{"Debian's", "ours"} {
		if by == "ours" {
			t.Log(m.Sh(t, "rm -r /home/dana; p9auth-switch "+accepted+" all on; p9auth-switch status"))
		}
		saw[by] = domainLogins(t, m)
	}
	for what, theirs := range saw["Debian's"] {
		theirs = strings.ReplaceAll(theirs, "gssapi-keyex,", "") // which is a key exchange of Debian's alone
		if ours := saw["ours"][what]; ours != theirs {
			t.Errorf("%s\nby Debian's:\n%s\nby ours:\n%s", what, theirs, ours)
		}
		t.Logf("%s:\n%s", what, theirs)
	}
	for what, shows := range map[string]string{
		"dana by password":                        `uid=\d+\(dana\) .*\(crew\)`,
		"dana by key":                             `uid=\d+\(dana\) .*\(crew\)`,
		"dana at the console, with open-sesame":   `krbtgt/TEST.EXAMPLE@TEST.EXAMPLE`,
		"sftp of dana, with a ticket":             `krbtgt/TEST.EXAMPLE@TEST.EXAMPLE`,
		"dana by dana's ticket, which goes along": `(?s)uid=\d+\(dana\) .*krbtgt/TEST.EXAMPLE@TEST.EXAMPLE`,
		"gina by dana's ticket, which goes along": `status 255`,
		"dana by a wrong password":                `exit status 255`,
		"erin, who has expired":                   `exit status 255`,
		"gina, who is not in AllowGroups":         `exit status 255`,
		"fred, who is disabled":                   `exit status 255`,
	} {
		want(t, saw["ours"][what], ".*"+shows+".*")
	}
}

// groupsOfADomain has p9auth-switch compare what a Match says of a domain's group: getent(1)
// lists neither the group nor its users.
func groupsOfADomain(t *testing.T, m *Machine) {
	t.Helper()
	want(t, m.Sh(t, "getent passwd | grep -c ^dana; getent group | grep -c ^crew; true"), "0\n0")
	ours := func(edit string) string {
		return m.Sh(t, "sed "+edit+" /etc/ssh/sshd_config >/etc/p9auth/sshd_config; p9auth-switch "+accepted+" ssh on 2>&1; echo status $?; p9auth-switch -n "+accepted+" -a match ssh on >/dev/null 2>&1; echo with -a $?; rm /etc/p9auth/sshd_config")
	}
	// Without the rule for its members, one of them could forward.
	want(t, ours("'/^Match Group crew/,$d'"), `(?s).*allowtcpforwarding +no +yes +weaker +user=(dana|erin|fred),.*nothing was changed\nstatus 1\nwith -a 1`)
	// Nobody is known to be in this group, so sshd cannot be asked.
	want(t, ours(`-e '$aMatch Group ghosts' -e '$aPermitTTY no'`), `(?s).*match +Group ghosts +not compared +weaker +no user known\n.*nothing was changed\nstatus 1\nwith -a 0`)
}

// domainLogins tries to log in by each way, and says what came of it.
func domainLogins(t *testing.T, m *Machine) map[string]string {
	t.Helper()
	saw := map[string]string{}
	ssh := func(options, user, password, command string) string {
		cmd := m.SSH(append(strings.Fields(options), user+"@10.9.9.1", command)...)
		if password != "" {
			cmd.Env = append(os.Environ(), "SSH_ASKPASS="+askpass(t, password), "SSH_ASKPASS_REQUIRE=force")
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return strings.TrimSpace(string(out)) + "\n" + err.Error()
		}
		return strings.TrimSpace(string(out))
	}
	const byPassword = "-o PubkeyAuthentication=no -o NumberOfPasswordPrompts=1"
	saw["dana by password"] = ssh(byPassword, "dana", "open-sesame", sees)
	saw["dana by a wrong password"] = ssh(byPassword, "dana", "wrong", sees)
	saw["erin, who has expired"] = ssh(byPassword, "erin", "open-sesame", "id")
	saw["fred, who is disabled"] = ssh(byPassword, "fred", "open-sesame", "id")
	saw["gina, who is not in AllowGroups"] = ssh(byPassword, "gina", "open-sesame", "id")
	saw["dana by key"] = ssh("-o BatchMode=yes", "dana", "", "id")
	saw["sftp of dana, with a ticket"] = sftp(t, m)
	for _, user := range []string{"dana", "gina"} {
		saw[user+" by dana's ticket, which goes along"] = m.Sh(t, `export KRB5CCNAME=/root/cc; echo open-sesame | kinit -f dana >/dev/null; `+
			`ssh -F none -K -o GSSAPIAuthentication=yes -o PreferredAuthentications=gssapi-with-mic -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR `+user+`@p9vm.test.example '`+strings.ReplaceAll(sees, "'", `'\''`)+`' 2>&1 || echo status $?; rm /root/cc`)
	}

	for _, c := range []struct{ user, password, ends string }{{"dana", "open-sesame", `\$ $`}, {"dana", "wrong", `Login incorrect`}, {"erin", "open-sesame", `(?i)expired|incorrect|denied`}, {"fred", "open-sesame", `(?i)incorrect|denied`}} {
		what := c.user + " at the console, with " + c.password
		prompt(t, m, m.Console, "console-getty.service")
		m.Console.Send(c.user + "\n")
		m.Console.Expect(`Password: $`)
		m.Console.Send(c.password + "\n")
		m.Console.Expect(c.ends)
		if c.ends == `\$ $` {
			saw[what] = m.Console.Run(sees)
			m.Console.Send("exit\n")
		} else {
			saw[what] = "refused"
			m.Sh(t, "systemctl restart console-getty.service")
		}
	}
	return saw
}

// askpass is a program that says the password.
func askpass(t *testing.T, password string) string {
	t.Helper()
	f := t.TempDir() + "/askpass"
	if err := os.WriteFile(f, []byte("#!/bin/sh\necho '"+password+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return f
}

// sftp is what a file server of dana's, who has logged in by password, has of the ticket
// that PAM got for her.
func sftp(t *testing.T, m *Machine) string {
	t.Helper()
	cmd := m.SSH("-o", "PubkeyAuthentication=no", "-s", "dana@10.9.9.1", "sftp")
	cmd.Env = append(os.Environ(), "SSH_ASKPASS="+askpass(t, "open-sesame"), "SSH_ASKPASS_REQUIRE=force")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		cmd.Wait()
	}()
	var out string
	if !testbed.Eventually(func() bool {
		out = m.Sh(t, `for p in $(pgrep -f -u dana sftp); do c=$(tr '\0' '\n' </proc/$p/environ | sed -n s/^KRB5CCNAME=//p); [ -z "$c" ] || { echo "$c" | sed 's/_[^_]*$/_X/'; setpriv --reuid dana --regid "domain users" --clear-groups klist "$c" | grep -E 'principal|krbtgt' | sed 's/.* krbtgt/krbtgt/'; break; }; done`)
		return out != ""
	}) {
		return "no process with KRB5CCNAME"
	}
	return out
}
