package main

import (
	"net"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// withOpenSSH has OpenSSH's client talk to a server over TCP, with options of its own.
// It returns the server's side of the connection, and what the client says.
func withOpenSSH(t *testing.T, server *ssh.ServerConfig, options ...string) (*ssh.ServerConn, string, error) {
	t.Helper()
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("needs OpenSSH's client: run scripts/deps")
	}
	server.AddHostKey(ed25519Signer(t))
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
	conn, said, err := withOpenSSH(t, server)
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if a, ok := conn.Conn.(ssh.AlgorithmsConnMetadata); !ok || a.Algorithms().KeyExchange != "diffie-hellman-group18-sha512" {
		t.Errorf("the key exchange was another one: %s", said)
	}
}
