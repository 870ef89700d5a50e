package restrict

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/test/testbed"
)

// said is what a login says that asks to run a command, or that there is none.
func said(port, from, user string, auth ...ssh.AuthMethod) string {
	c, err := login(port, from, user, auth...)
	if err != nil {
		return "no login"
	}
	defer c.Close()
	return ran(c, "", func(s *ssh.Session) error { return s.Start("echo UNRESTRICTED") })
}

// TestTheOptionsOfAllKeysOfALoginHold logs in by two keys, in either order, and by a
// key and a certificate.
func TestTheOptionsOfAllKeysOfALoginHold(t *testing.T) {
	options := []string{"", `command="echo ONE",restrict`, `command="echo ONE"`, `command="echo TWO"`, `permitopen="127.0.0.1:1"`, "restrict,pty", "no-port-forwarding"}
	var keys strings.Builder
	var signers []ssh.Signer
	for _, o := range options {
		signer, line := newKey(o)
		signers = append(signers, signer)
		fmt.Fprintln(&keys, line)
	}
	ca, line := newKey(`cert-authority,no-port-forwarding`)
	fmt.Fprintln(&keys, line)
	plain, _ := newKey("")
	certificate, err := ssh.NewCertSigner(certify(ca, plain, []string{"alice"}, map[string]string{"force-command": "echo CERT"}), plain)
	if err != nil {
		t.Fatal(err)
	}
	options, signers = append(options, "a certificate with a forced command"), append(signers, certificate)

	p := up(t, "AuthenticationMethods publickey,publickey\n", keys.String())
	cases := 0
	for i, first := range signers {
		for j, second := range signers {
			if i == j {
				continue
			}
			both := func(port string) string {
				c, err := login(port, "127.0.0.1", "alice", ssh.PublicKeys(first, second))
				if err != nil {
					return "no login"
				}
				defer c.Close()
				out := ran(c, "", func(s *ssh.Session) error { return s.Start("echo UNRESTRICTED") })
				if out == "no session" {
					return "no login" // sshd accepts two commands that differ, and disconnects
				}
				for _, ask := range []func(*ssh.Client) string{
					inSession("pty-req", struct {
						Term             string
						Cols, Rows, W, H uint32
						Modes            string
					}{"vt100", 80, 24, 0, 0, "\x00"}),
					inSession("auth-agent-req@openssh.com", nil),
					global("tcpip-forward", addr{"127.0.0.1", 0}),
					open("direct-tcpip", tcp{"127.0.0.1", number(p.theirs), "127.0.0.1", 1}),
				} {
					out += " " + ask(c)
				}
				return out
			}
			cases++
			if want, got := both(p.theirs), both(p.ours); got != want {
				t.Errorf("%q, then %q: sshd %q, ours %q", options[i], options[j], want, got)
			}
		}
	}
	t.Logf("%d cases", cases)
	p.WantLog(t, "Inconsistent authentication options: forced command options do not match")
}

// certify is a user certificate.
func certify(ca, key ssh.Signer, principals []string, critical map[string]string) *ssh.Certificate {
	c := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.UserCert, KeyId: "id", ValidPrincipals: principals, ValidBefore: ssh.CertTimeInfinity,
		Permissions: ssh.Permissions{CriticalOptions: critical, Extensions: map[string]string{
			"permit-pty": "", "permit-port-forwarding": "", "permit-agent-forwarding": "", "permit-X11-forwarding": "", "permit-user-rc": "",
		}},
	}
	if err := c.SignCert(rand.Reader, ca); err != nil {
		panic(err)
	}
	return c
}

// TestALoginShellThatIsNoneKeepsTheUserOut gives alice shells that sshd refuses, and
// some that it does not.
func TestALoginShellThatIsNoneKeepsTheUserOut(t *testing.T) {
	key, line := newKey("")
	p := up(t, "", line)
	p.Sh(t, "install -m 644 /bin/true /etc/p9/plain; install -m 100 /bin/true /etc/p9/for-root; ln -s /nonexistent /etc/p9/dangling")
	for shell, log := range map[string]string{
		"/nonexistent": "does not exist", "/etc/p9/dangling": "does not exist", "/dev/null": "is not executable", "/tmp": "is not executable",
		"/etc/p9/plain": "is not executable", "/etc/p9/for-root": "", "/usr/sbin/nologin": "", "/bin/sh": "", "": "",
	} {
		p.Sh(t, fmt.Sprintf("sed -i 's,^\\(alice:.*:\\)[^:]*$,\\1%s,' /etc/passwd", shell))
		asks := []func(*ssh.Client) string{
			func(c *ssh.Client) string {
				return ran(c, "", func(s *ssh.Session) error { return s.Start("echo in") })
			},
			sftp,
			open("direct-tcpip", tcp{"127.0.0.1", number(p.theirs), "127.0.0.1", 1}),
		}
		do := func(port string) string {
			var all []string
			for _, auth := range []ssh.AuthMethod{ssh.PublicKeys(key), ssh.Password(testbed.Password)} {
				c, err := login(port, "127.0.0.1", "alice", auth)
				if err != nil {
					all = append(all, "no login")
					continue
				}
				for _, ask := range asks {
					all = append(all, ask(c))
				}
				c.Close()
			}
			return strings.Join(all, " ")
		}
		// The words for an errno are the C library's and Go's.
		if want, got := do(p.theirs), do(p.ours); !strings.EqualFold(got, want) {
			t.Errorf("shell %q: sshd %q, ours %q", shell, want, got)
		}
		if log == "" {
			continue
		}
		text := fmt.Sprintf("User alice not allowed because shell %s %s", shell, log)
		if !testbed.Eventually(func() bool { return p.Logged(text) > 0 }) || !strings.Contains(p.log.String(), text) {
			t.Errorf("shell %q: one of the logs does not have %q", shell, text)
		}
	}
}

// TestTheFirstLineOfAPrincipalCounts has two lines for a principal, of which the first
// one refuses the client or forces a command.
func TestTheFirstLineOfAPrincipalCounts(t *testing.T) {
	ca, line := newKey("")
	plain, _ := newKey("")
	certificate, err := ssh.NewCertSigner(certify(ca, plain, []string{"alice"}, nil), plain)
	if err != nil {
		t.Fatal(err)
	}
	p := up(t, "TrustedUserCAKeys /etc/p9/ca.pub\nAuthorizedPrincipalsFile /etc/p9/principals\n", "")
	p.Write(t, "/etc/p9/ca.pub", line)
	for _, lines := range []string{
		"alice\n", "bob\n", "from=\"10.0.0.1\" alice\nalice\n", "alice\nfrom=\"10.0.0.1\" alice\n", "command=\"echo FIRST\" alice\nalice\n",
		"alice\ncommand=\"echo SECOND\" alice\n", "bob\ncommand=\"echo SECOND\" alice\n", "unknown-option alice\nalice\n",
		"expiry-time=\"20200101\" alice\nalice\n", "cert-authority alice\nalice\n", "# alice\n\n alice # yes\n",
	} {
		p.Write(t, "/etc/p9/principals", lines)
		do := func(port string) string { return said(port, "127.0.0.1", "alice", ssh.PublicKeys(certificate)) }
		if want, got := do(p.theirs), do(p.ours); got != want {
			t.Errorf("%q: sshd %q, ours %q", lines, want, got)
		}
	}
}

// TestACertificateIsForWhomItsPrincipalsAndTheLineSay logs in by certificates with and
// without principals, which authorized_keys and TrustedUserCAKeys take differently.
func TestACertificateIsForWhomItsPrincipalsAndTheLineSay(t *testing.T) {
	ca, line := newKey("")
	plain, _ := newKey("")
	p := up(t, "TrustedUserCAKeys /etc/p9/ca.pub\n", "")
	for _, place := range []string{"/etc/p9/ca.pub", "authorized_keys", `authorized_keys principals="staff"`, `authorized_keys principals=""`} {
		p.Write(t, "/etc/p9/ca.pub", "")
		keys := ""
		if place == "/etc/p9/ca.pub" {
			p.Write(t, place, line)
		} else {
			_, option, named := strings.Cut(place, " ")
			if named {
				option = "," + option
			}
			keys = "cert-authority" + option + " " + strings.TrimSpace(line) + "\n"
		}
		p.Write(t, "/etc/p9/keys/alice", keys)
		for _, principals := range [][]string{nil, {""}, {"alice"}, {"bob"}, {"staff"}, {"bob", "staff"}} {
			certificate, err := ssh.NewCertSigner(certify(ca, plain, principals, nil), plain)
			if err != nil {
				t.Fatal(err)
			}
			do := func(port string) string { return said(port, "127.0.0.1", "alice", ssh.PublicKeys(certificate)) }
			if want, got := do(p.theirs), do(p.ours); got != want {
				t.Errorf("%s, principals %q: sshd %q, ours %q", place, principals, want, got)
			}
		}
	}
}

// TestStreamLocalBindUnlinkRemovesNoDirectory forwards sockets to names that are taken.
func TestStreamLocalBindUnlinkRemovesNoDirectory(t *testing.T) {
	key, line := newKey("")
	p := up(t, "StreamLocalBindUnlink yes\n", line)
	for _, taken := range []string{"mkdir %s", "touch %s", "ln -s /nonexistent %s", "true"} {
		do := func(port string) string {
			path := fmt.Sprintf("/home/alice/taken-%s-%d", port, time.Now().UnixNano())
			p.Sh(t, "setpriv --reuid alice --regid alice --clear-groups "+strings.Replace(taken, "%s", path, 1))
			c, err := login(port, "127.0.0.1", "alice", ssh.PublicKeys(key))
			if err != nil {
				return "no login"
			}
			defer c.Close()
			ok, _, err := c.SendRequest("streamlocal-forward@openssh.com", true, ssh.Marshal(struct{ Path string }{path}))
			return fmt.Sprint(ok, err, " ", p.Sh(t, "stat -c %F "+path))
		}
		if want, got := do(p.theirs), do(p.ours); got != want {
			t.Errorf("%s: sshd %q, ours %q", taken, want, got)
		}
	}
}
