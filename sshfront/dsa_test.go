package main

import (
	"regexp"
	"strings"
	"testing"
)

// Old devices have no other key than one of DSA. OpenSSH up to 9.9 lets it in where the
// algorithm is named, and so do we.
func TestAKeyOfDSALogsInWhereItIsNamedAsWithSshd(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	if out, err := s.run(t, `ssh-keygen -q -t dsa -N '' -f old; ssh-keygen -q -t ed25519 -N '' -f ca
		ssh-keygen -q -s ca -I old -n alice old; mkdir cert; cp old cert; mv old-cert.pub cert; cp cert/old-cert.pub cert/old.pub`); err != nil {
		t.Skipf("ssh-keygen makes no key of DSA: %s", out)
	}
	lines, err := s.run(t, `cat old.pub; echo cert-authority $(cat ca.pub)`)
	if err != nil {
		t.Fatal(lines)
	}
	s.Write(t, "/home/alice/.ssh/authorized_keys", lines)
	for _, c := range []struct{ accepted, key, cert string }{
		{"+ssh-rsa", "refused", "refused"},
		{"+ssh-dss", "alice", "refused"},
		{"ssh-ed25519,ssh-dss-cert*", "refused", "alice"},
		{"^ssh-dss*", "alice", "alice"},
	} {
		conf := "PubkeyAcceptedAlgorithms " + c.accepted
		theirs, _ := s.sshd(t, conf)
		s.reload(t, conf)
		got, sshds := s.beside(t, theirs, `for key in old cert/old; do ssh -n -p $port ${options% -i*} -o PubkeyAcceptedAlgorithms=+ssh-dss* -o PreferredAuthentications=publickey -o IdentitiesOnly=yes -i $key alice@127.0.0.1 id -un 2>/dev/null || echo refused; done`)
		if want := c.key + "\n" + c.cert + "\n"; got != sshds || got != want {
			t.Errorf("%s: %q, with sshd %q, want %q", c.accepted, got, sshds, want)
		}
	}
	// In sshd's words.
	words := regexp.MustCompile(`Accepted publickey for alice from 127\.0\.0\.1 port \d+ (ssh2: DSA(?:-CERT)? SHA256:[^\s"]+)`)
	find := func(log string) string {
		var said []string
		for _, m := range words.FindAllStringSubmatch(log, -1) {
			said = append(said, m[1])
		}
		return strings.Join(said, "\n")
	}
	if got, sshds := find(s.Log()), find(s.Sh(t, "cat "+sshdLog)); got != sshds || strings.Count(got, "\n") != 3 {
		t.Errorf("logged: %s\nsshd: %s", got, sshds)
	}
}
