//go:build site

package site

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"p9auth/test/manual"
	"p9auth/test/testbed"
)

// directory has slapd serve two people and four groups. One group takes more
// than 64 KiB. Carol is in all of them but mine, dave in one.
func (s *site) directory(t *testing.T) {
	t.Helper()
	var ldif strings.Builder
	ldif.WriteString(`dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
dc: example
o: example

`)
	for i, name := range []string{"carol", "dave"} {
		fmt.Fprintf(&ldif, `dn: uid=%s,dc=example,dc=com
objectClass: account
objectClass: posixAccount
objectClass: shadowAccount
uid: %s
cn: %s
uidNumber: %d
gidNumber: %d
homeDirectory: /home/%s
loginShell: /bin/bash
userPassword: %s

`, name, name, name, 20001+i, 20001+i, name, s.Sh(t, "slappasswd -s "+password))
	}
	group := func(name string, gid int, members ...string) {
		fmt.Fprintf(&ldif, "dn: cn=%s,dc=example,dc=com\nobjectClass: posixGroup\ncn: %s\ngidNumber: %d\n", name, name, gid)
		for _, m := range members {
			ldif.WriteString("memberUid: " + m + "\n")
		}
		ldif.WriteString("\n")
	}
	everybody := make([]string, 10000)
	for i := range everybody {
		everybody[i] = fmt.Sprintf("person%06d", i)
	}
	group("carol", 20001)
	group("dave", 20002)
	group("staff-of-example", 20010, "carol")
	group("everybody", 20011, append(everybody, "carol", "dave")...)
	group("visitors", 20012, "dave", "alice")
	s.write(t, "/etc/site/people.ldif", ldif.String())
	s.write(t, "/etc/site/slapd.conf", `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile /etc/site/ldap.pem
TLSCertificateKeyFile /etc/site/ldap.key
TLSCACertificateFile /etc/site/ca.pem
database mdb
suffix dc=example,dc=com
rootdn cn=admin,dc=example,dc=com
directory /var/lib/site-ldap
maxsize 268435456
access to attrs=userPassword by anonymous auth by * none
access to * by * read
`)
	s.Sh(t, "mkdir /var/lib/site-ldap; slapadd -q -f /etc/site/slapd.conf -l /etc/site/people.ldif; echo TLS_CACERT /etc/site/ca.pem >/etc/ldap/ldap.conf")
	s.daemon(t, "slapd")
}

const (
	idOfCarol = "uid=20001(carol) gid=20001(carol) groups=20001(carol),20010(staff-of-example),20011(everybody)"
	idOfDave  = "uid=20002(dave) gid=20002(dave) groups=20002(dave),20011(everybody),20012(visitors)"
)

// people are the displays about people.
const (
	byNslcd = iota
	bySssd
	seen
	onlyStaff
)

func TestPeopleInLDAP(t *testing.T) {
	for _, c := range []struct {
		client  string
		display int
	}{{"nslcd", byNslcd}, {"sssd", bySssd}} {
		t.Run("by "+c.client, func(t *testing.T) {
			s := up(t)
			page := manual.Displays(t, "p9auth-site.7", "People")
			s.directory(t)
			if out, err := s.Command("id", "carol").CombinedOutput(); err == nil {
				t.Fatalf("carol is a user without the directory: %s", out)
			}
			s.do(t, "/root", page[c.display])
			s.people(t, page)
			s.withoutDirectory(t, c.client)
		})
	}
}

func (s *site) people(t *testing.T, page []string) {
	if got := s.do(t, "/root", page[seen]); got != idOfCarol {
		t.Errorf("carol is %s", got)
	}
	// By console.
	term := s.atConsole(t, "carol", "wrong")
	term.Expect("Login incorrect")
	term.Hangup()
	term.Wait()
	term = s.atConsole(t, "carol", password)
	term.Expect(`\$ `)
	if got := term.Run("id"); got != idOfCarol {
		t.Errorf("at the console carol is %s", got)
	}
	if got := term.Run("pwd; stat -c '%U %G' . $(tty)"); got != "/home/carol\ncarol carol\ncarol tty" {
		t.Errorf("carol's home and terminal are %s", got)
	}
	term.Send("exit\n")
	term.Wait()
	// By ssh.
	for _, method := range []string{"password", "keyboard-interactive"} {
		carol := ssh{"carol", method, anyHost, password}
		carol.wantPrints(t, s, "id", idOfCarol)
		carol.password = "wrong"
		carol.wantRefused(t, s)
	}
	dave := ssh{"dave", "password", anyHost, password}
	dave.wantPrints(t, s, "id", idOfDave)
	key := ssh{"carol", "publickey", append([]string{"-i", s.Dir + "/keys/alice"}, anyHost...), ""}
	key.wantRefused(t, s)
	s.Sh(t, "install -d -o carol -g carol -m 700 ~carol/.ssh; install -o carol -g carol -m 600 "+s.Dir+"/keys/alice.pub ~carol/.ssh/authorized_keys")
	key.wantPrints(t, s, "id", idOfCarol)

	// Rules by the directory's groups.
	conf := s.Sh(t, "cat /etc/p9auth/sshd_config")
	s.do(t, "/root", page[onlyStaff])
	key.wantPrints(t, s, "id -un", "carol")
	ssh{"carol", "password", anyHost, password}.wantPrints(t, s, "id -un", "carol")
	dave.wantRefused(t, s)
	s.WantLog(t, "User dave from 127.0.0.1 not allowed because none of user's groups are listed in AllowGroups")
	for rule, in := range map[string]bool{"AllowGroups everybody": true, "DenyGroups everybody": false, "DenyGroups visitors": true} {
		s.write(t, "/etc/p9auth/sshd_config", rule+"\n"+conf+"\n")
		s.systemctl(t, "reload", "factotum")
		if in {
			key.wantPrints(t, s, "id -un", "carol")
		} else {
			key.wantRefused(t, s)
		}
	}
	s.write(t, "/etc/p9auth/sshd_config", conf+"\n")
	s.systemctl(t, "reload", "factotum")
}

// withoutDirectory is what the page says of a directory that does not answer.
func (s *site) withoutDirectory(t *testing.T, client string) {
	conf := s.Sh(t, "cat /etc/p9auth/sshd_config")
	rule := func(rule string) {
		s.write(t, "/etc/p9auth/sshd_config", rule+"\n"+conf+"\n")
		s.systemctl(t, "reload", "factotum")
	}
	alice := ssh{"alice", "publickey", append([]string{"-i", s.Dir + "/keys/alice"}, anyHost...), ""}
	if client == "nslcd" {
		rule("AllowGroups visitors")
		alice.wantPrints(t, s, "id -un", "alice")
		rule("DenyGroups visitors")
		alice.wantRefused(t, s)
		s.stop("slapd")
		alice.wantPrints(t, s, "id -un", "alice")
		rule("AllowGroups visitors")
		alice.wantRefused(t, s)
	} else { // the directory's groups are for its own people
		rule("DenyGroups visitors")
		alice.wantPrints(t, s, "id -un", "alice")
		rule("AllowGroups visitors")
		alice.wantRefused(t, s)
		s.stop("slapd")
	}
	rule("")
	alice.wantPrints(t, s, "id -un", "alice")
	term := s.atConsole(t, "alice", password)
	term.Expect(`\$ `)
	term.Send("exit\n")
	term.Wait()
	ssh{"dave", "password", anyHost, password}.wantRefused(t, s)
	s.daemon(t, "slapd")
	if client == "sssd" { // it asks again in a minute, or when it is told to, see sssd(8)
		s.running["sssd"].Process.Signal(syscall.SIGUSR2)
	}
	back := ssh{"dave", "password", anyHost, password}
	if !testbed.Eventually(func() bool { out, err := back.run(t, s, "id"); return err == nil && out == idOfDave }) {
		t.Errorf("%s: dave cannot log in again", client)
	}
}
