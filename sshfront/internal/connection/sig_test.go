package connection

import (
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"testing"

	"golang.org/x/crypto/ssh"
)

func testSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keyLogin tries a login by a key that PublicKeyCallback accepts. It returns
// what setVerifySignature returns, what is logged of the attempt, and the
// server's error.
func keyLogin(t *testing.T, verdict error) (can bool, logged, login error) {
	t.Helper()
	c := &ssh.ServerConfig{
		PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil },
		AuthLogCallback: func(_ ssh.ConnMetadata, method string, err error) {
			if method == "publickey" {
				logged = err
			}
		},
	}
	c.AddHostKey(testSigner(t))
	can = setVerifySignature(c, func(_ ssh.ConnMetadata, _ string, key ssh.PublicKey, signed []byte, sig *ssh.Signature) error {
		if err := key.Verify(signed, sig); err != nil {
			t.Error(err)
		}
		return verdict
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return
		}
		defer c.Close()
		ssh.NewClientConn(c, "test", &ssh.ClientConfig{
			User:            "alice",
			Auth:            []ssh.AuthMethod{ssh.PublicKeys(testSigner(t))},
			HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		})
	}()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_, _, _, login = ssh.NewServerConn(nc, c)
	return can, logged, login
}
