//go:build site

package site

import (
	"strings"
	"testing"

	"p9auth/test/manual"
)

// certificates are the displays about certificates.
const (
	authorities = iota
	signed
	signedForTask
	eachMachine
	clients
	revoke
)

func TestKeysByACertificateAuthority(t *testing.T) {
	s := up(t)
	page := manual.Displays(t, "p9auth-site.7", "Certificates")
	// The authorities' machine is the folder /root/ca. Who works there types a
	// passphrase.
	s.write(t, "/root/askpass", "#!/bin/sh\necho a passphrase\n")
	const ca = "/root/ca"
	at := func(display string) string {
		return s.do(t, ca, "chmod +x /root/askpass; export SSH_ASKPASS=/root/askpass SSH_ASKPASS_REQUIRE=force\n"+display)
	}
	at(page[authorities])
	s.Sh(t, "cp /etc/ssh/ssh_host_ed25519_key.pub "+ca+"; cp "+s.Dir+"/keys/alice.pub "+ca+"/id_ed25519.pub")
	at(page[signed])
	s.Sh(t, "cd "+ca+"; mv id_ed25519-cert.pub alice-cert.pub; cp "+s.Dir+"/keys/bob.pub id_ed25519.pub")
	at(page[signedForTask])
	s.Sh(t, "cd "+ca+"; mv id_ed25519-cert.pub bob-cert.pub; cp people_ca.pub revoked_keys ssh_host_ed25519_key-cert.pub /etc/ssh/")
	s.Sh(t, "rm ~alice/.ssh/authorized_keys ~bob/.ssh/authorized_keys")

	client := func(name, account string) ssh {
		return ssh{account, "publickey", []string{"-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=/dev/null", "-o", "HostKeyAlgorithms=ssh-ed25519-cert-v01@openssh.com",
			"-o", "IdentitiesOnly=yes", "-i", s.Dir + "/keys/" + name, "-o", "CertificateFile=" + ca + "/" + name + "-cert.pub"}, ""}
	}
	if out, err := client("alice", "alice").run(t, s, "id -un"); err == nil {
		t.Fatalf("alice gets in before anything is set up: %s", out)
	}
	s.do(t, ca, page[eachMachine])
	// The client does not take the machine for one of the site's yet.
	if out, err := client("alice", "alice").run(t, s, "id -un"); err == nil || !strings.Contains(out, "Host key verification failed") {
		t.Errorf("a machine that is not known: %v: %s", err, out)
	}
	s.do(t, ca, page[clients])
	client("alice", "alice").wantPrints(t, s, "id -un", "alice")
	client("bob", "bob").wantPrints(t, s, "id -un", "bob")
	client("bob", "root").wantPrints(t, s, "id -un", "root")
	client("alice", "bob").wantRefused(t, s)
	client("alice", "root").wantRefused(t, s)
	s.WantLog(t, `Accepted publickey for alice from 127.0.0.1 port \d+ ssh2: ED25519-CERT`)
	// A key without its certificate is nobody's.
	bare := client("alice", "alice")
	bare.options = append(bare.options[:len(bare.options)-2:len(bare.options)-2], "-o", "CertificateFile=none")
	bare.wantRefused(t, s)

	// Alice's certificate is revoked by its number; bob's key, all of it.
	number, rest, _ := strings.Cut(page[revoke], "\n")
	key, query, _ := strings.Cut(rest, "\n")
	s.do(t, ca, number)
	deploy := "cp " + ca + "/revoked_keys /etc/ssh/revoked_keys.new; mv /etc/ssh/revoked_keys.new /etc/ssh/revoked_keys"
	s.Sh(t, deploy)
	client("alice", "alice").wantRefused(t, s)
	client("bob", "bob").wantPrints(t, s, "id -un", "bob")
	s.WantLog(t, "revoked by file /etc/ssh/revoked_keys")
	s.do(t, ca, key)
	s.Sh(t, deploy)
	client("bob", "bob").wantRefused(t, s)
	client("bob", "root").wantRefused(t, s)
	s.Sh(t, "cp "+ca+"/bob-cert.pub "+ca+"/id_ed25519-cert.pub")
	if out, err := s.Command("sh", "-c", "cd "+ca+"; "+query).CombinedOutput(); err == nil || !strings.Contains(string(out), "REVOKED") {
		t.Errorf("%s: %v: %s", query, err, out)
	}
	s.Sh(t, "mv /etc/ssh/revoked_keys /etc/ssh/away")
	client("alice", "alice").wantRefused(t, s)
}
