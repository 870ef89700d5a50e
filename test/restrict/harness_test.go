// Package restrict compares what a login may do here with what Debian's sshd lets it
// do: every keyword and key option that restricts, by the requests of RFC 4254 and of
// OpenSSH's PROTOCOL, with a client that sends them raw.
package restrict

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/test/testbed"
)

// base is what both servers have before the blocks. Everything is permitted.
const base = `UsePAM yes
X11Forwarding yes
PrintMotd no
PrintLastLog no
PermitRootLogin no
MaxStartups 100
Subsystem sftp internal-sftp
AuthorizedKeysFile /etc/p9/keys/%u
`

// A pair is a testbed with our server and Debian's sshd beside it.
type pair struct {
	*testbed.Bed
	ours, theirs string // ports
	log          *testbed.Log
}

// up starts both servers with the lines: those of Match blocks come after base, the
// others before it, so that they count. keys is alice's authorized_keys.
func up(t *testing.T, lines, keys string) *pair {
	t.Helper()
	for _, program := range []string{"/usr/sbin/sshd", "socat", "xauth"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	b := testbed.Up(t)
	port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := ""
	if i := strings.Index("\n"+lines, "\nMatch "); i >= 0 {
		lines, blocks = lines[:i], lines[i:]
	}
	lines += base + blocks
	p := &pair{Bed: b, ours: strings.TrimSpace(string(port))}
	b.Sh(t, "mkdir -p /etc/p9/keys")
	b.Write(t, "/etc/p9/keys/alice", keys)
	b.Configure(t, "PerSourcePenalties no\n"+lines)
	sshd := b.SSHD(t, lines)
	p.theirs, p.log = sshd.Port, &sshd.Log
	return p
}

// newKey is a key, and its line of authorized_keys with those options.
func newKey(options string) (ssh.Signer, string) {
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		panic(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		panic(err)
	}
	return signer, strings.TrimSpace(options + " " + string(ssh.MarshalAuthorizedKey(key)))
}

// login logs a user in from an address of the loopback network, which chooses the
// Match block.
func login(port, from, user string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 20 * time.Second}
	c, err := d.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(60 * time.Second))
	conn, channels, requests, err := ssh.NewClientConn(c, "", &ssh.ClientConfig{User: user, Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		c.Close()
		return nil, err
	}
	return ssh.NewClient(conn, channels, requests), nil
}

// session opens a session, for which another one may have to be gone first.
func session(c *ssh.Client) (*ssh.Session, error) {
	for tries := 0; ; tries++ {
		s, err := c.NewSession()
		if err == nil || tries == 3 {
			return s, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// ran is what a session prints.
func ran(c *ssh.Client, input string, begin func(*ssh.Session) error) string {
	s, err := session(c)
	if err != nil {
		return "no session"
	}
	defer s.Close()
	var out, errors bytes.Buffer
	s.Stdout, s.Stderr = &out, &errors
	s.Stdin = strings.NewReader(input)
	if err := begin(s); err != nil {
		return "refused"
	}
	s.Wait()
	if out.Len() == 0 {
		return errors.String() // where some of our words are, which sshd prints
	}
	return out.String()
}

// sftp is what the subsystem sftp says, which is nothing to a client who leaves.
func sftp(c *ssh.Client) string {
	s, err := session(c)
	if err != nil {
		return "no session"
	}
	defer s.Close()
	in, err1 := s.StdinPipe()
	out, err2 := s.StdoutPipe()
	if err := errors.Join(err1, err2, s.RequestSubsystem("sftp")); err != nil {
		return "refused"
	}
	in.Write([]byte("\x00\x00\x00\x05\x01\x00\x00\x00\x03"))
	b := make([]byte, 1024)
	n, _ := io.ReadAtLeast(out, b, 9)
	if n > 8 && b[4] == 2 { // SSH_FXP_VERSION
		return "sftp"
	}
	return string(b[:n])
}

func yes(ok bool) string {
	if ok {
		return "granted"
	}
	return "refused"
}
