// Package client attacks sshfront as its clients and its users do, who own nothing yet.
// Most of it was done to sshd once: p9auth-threats(7) names the vulnerabilities. Debian's
// sshd stands beside ours, with the same lines of configuration.
package client

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/test/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m, nil) }

// base is what both servers have.
const base = `UsePAM yes
X11Forwarding yes
PrintMotd no
PrintLastLog no
MaxStartups 100
MaxAuthTries 6
KbdInteractiveAuthentication yes
AuthorizedKeysFile /etc/p9/keys/%u
`

// A pair is a testbed with our server and Debian's sshd beside it.
type pair struct {
	*testbed.Bed
	ours, theirs string // ports
}

// up starts both servers.
func up(t *testing.T) *pair {
	t.Helper()
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		t.Skip(err)
	}
	b := testbed.Up(t)
	port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{Bed: b, ours: strings.TrimSpace(string(port))}
	b.Sh(t, `mkdir -p /etc/p9/keys
cp `+b.Dir+`/keys/alice.pub /etc/p9/keys/alice
useradd --create-home locked; useradd --create-home --shell /nonexistent shell-less; useradd --create-home keyless
echo locked:open-sesame | chpasswd -c SHA512 -s 1000; passwd -q -l locked`)
	b.Write(t, "/etc/pam.d/sshd", "auth required pam_unix.so nodelay\naccount required pam_unix.so\nsession required pam_unix.so\n")
	b.Configure(t, "PerSourcePenalties no\n"+base)
	p.theirs = b.SSHD(t, base).Port
	return p
}

// both calls f with each server's port: sshd shows what is right, if it is up to date.
func (p *pair) both(t *testing.T, f func(t *testing.T, port string)) {
	t.Helper()
	t.Run("sshd", func(t *testing.T) { f(t, p.theirs) })
	t.Run("sshfront", func(t *testing.T) { f(t, p.ours) })
}

// key is a user's key of the testbed.
func (p *pair) key(t *testing.T, user string) ssh.Signer {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.Dir, "keys", user))
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.ParsePrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// login logs a user in.
func login(port, user string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	return ssh.Dial("tcp", "127.0.0.1:"+port, &ssh.ClientConfig{
		User: user, Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: testbed.Patience,
	})
}

// paramiko runs a script that sends what no honest client does, and returns what it
// prints. It finds the port and alice's key in its arguments.
func (p *pair) paramiko(t *testing.T, port, script string, args ...string) string {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", append([]string{"-c", script, port, filepath.Join(p.Dir, "keys", "alice")}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	timer := time.AfterFunc(2*testbed.Patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("paramiko: %v: %s%s", err, out, errs.String())
	}
	return strings.TrimSpace(string(out))
}
