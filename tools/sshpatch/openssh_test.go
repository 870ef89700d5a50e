package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// withOpenSSH has OpenSSH's client talk over TCP to a server that has a host key, with
// options of its own. It returns the server's side of the connection, and what the
// client says.
func withOpenSSH(t *testing.T, server *ssh.ServerConfig, options ...string) (*ssh.ServerConn, string, error) {
	t.Helper()
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("needs OpenSSH's client: run scripts/deps")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	client := exec.Command("ssh", append([]string{"-F", "none", "-n", "-N", "-v", "-p", port, "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "IdentityFile=none"}, append(options, "alice@127.0.0.1")...)...)
	said := make(chan string, 1)
	go func() {
		out, _ := client.CombinedOutput() // it ends by force, with the connection
		said <- string(out)
	}()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(time.Minute))
	conn, chans, reqs, err := ssh.NewServerConn(nc, server)
	if err == nil {
		go ssh.DiscardRequests(reqs)
		go refuse(chans)
	}
	nc.Close()
	return conn, <-said, err
}

func TestOpenSSHExchangesKeysByGroup18(t *testing.T) {
	server := &ssh.ServerConfig{NoClientAuth: true, Config: ssh.Config{KeyExchanges: []string{ssh.KeyExchangeDH18SHA512}}}
	server.AddHostKey(ed25519Signer(t))
	conn, said, err := withOpenSSH(t, server)
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if a, ok := conn.Conn.(ssh.AlgorithmsConnMetadata); !ok || a.Algorithms().KeyExchange != "diffie-hellman-group18-sha512" {
		t.Errorf("the key exchange was another one: %s", said)
	}
}

// A client whose agent has a key for this server alone proves it so. What the callback
// is to verify has the host key at its end.
func TestOpenSSHsClientSignsTheHostKeyToo(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, option := range []string{"PubkeyAuthentication=yes", "PubkeyAuthentication=unbound"} {
		var methods []string
		server := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
		hostKey := ed25519Signer(t)
		server.AddHostKey(hostKey)
		server.VerifySignatureCallback = func(_ ssh.ConnMetadata, method, _ string, key ssh.PublicKey, signed []byte, sig *ssh.Signature) error {
			methods = append(methods, method)
			if bound := bytes.HasSuffix(signed, hostKey.PublicKey().Marshal()); bound != (method != "publickey") {
				t.Errorf("%s: the host key is signed: %v", method, bound)
			}
			return key.Verify(signed, sig)
		}
		_, said, err := withOpenSSH(t, server, "-i", file, "-o", option)
		want := "publickey"
		if option == "PubkeyAuthentication=yes" {
			want = "publickey-hostbound-v00@openssh.com"
		}
		if err != nil || !slices.Equal(methods, []string{want}) {
			t.Errorf("%s: %v: %q: %s", option, err, methods, said)
		}
	}
}
