package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sshdconf"
)

// Each key exchange that is offered logs a client in, with each host key and host
// certificate, and exchanges keys again when the client or the server asks: the
// host keys sign nothing but key exchanges, so each kind has to be known for one.
func TestEachKeyExchangeLogsInAndExchangesKeysAgain(t *testing.T) {
	need(t, "ssh", "ssh-keygen")
	conf, err := sshdconf.Parse("/dev/null", nil)
	if err != nil {
		t.Fatal(err)
	}
	known, err := exec.Command("ssh", "-Q", "kex").Output()
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	const client = "ssh -n -v -o BatchMode=yes -p $port ${options/-o LogLevel=ERROR/} "
	tried := 0
	s.configure(t, "RekeyLimit 1G none")
	for _, kex := range conf.Global().KexAlgorithms {
		if !strings.Contains("\n"+string(known), "\n"+kex+"\n") {
			t.Logf("this client does not have %s", kex)
			continue
		}
		tried++
		out, err := s.run(t, client+"-o KexAlgorithms="+kex+" -o RekeyLimit=1M alice@127.0.0.1 'head -c 16000000 /dev/zero' 2>&1 >out; wc -c <out")
		if n := strings.Count(out, "kex: algorithm: "+kex+"\n") + strings.Count(out, "kex: algorithm: "+kex+"\r\n"); err != nil || n < 2 || !strings.HasSuffix(out, "16000000\n") {
			t.Errorf("%s, new keys by the client: %d key exchanges, %v: %.300s", kex, n, err, out)
		}
	}
	s.configure(t, "RekeyLimit 1M none")
	for _, kex := range conf.Global().KexAlgorithms {
		if !strings.Contains("\n"+string(known), "\n"+kex+"\n") {
			continue
		}
		out, err := s.run(t, client+"-o KexAlgorithms="+kex+" -o RekeyLimit=1G alice@127.0.0.1 'head -c 16000000 /dev/zero' 2>&1 >out; wc -c <out")
		if n := strings.Count(out, "SSH2_MSG_KEXINIT received"); err != nil || n < 2 || !strings.HasSuffix(out, "16000000\n") {
			t.Errorf("%s, new keys by the server: %d key exchanges, %v: %.300s", kex, n, err, out)
		}
	}
	if tried < 4 {
		t.Errorf("%d of %s were tried", tried, conf.Global().KexAlgorithms)
	}

	// Go's client asks for new keys itself.
	s.configure(t, "RekeyLimit 1G none")
	pem, err := os.ReadFile(filepath.Join(s.Dir, "keys/alice"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	for _, kex := range conf.Global().KexAlgorithms {
		if strings.HasPrefix(kex, "sntrup761") {
			continue // which Go's client does not have
		}
		var exchanges atomic.Int32 // the client looks at the host key once for each
		c, err := ssh.Dial("tcp", "127.0.0.1:"+s.port, &ssh.ClientConfig{
			Config: ssh.Config{KeyExchanges: []string{kex}, RekeyThreshold: 1 << 20},
			User:   "alice", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
			HostKeyCallback: func(string, net.Addr, ssh.PublicKey) error { exchanges.Add(1); return nil },
		})
		if err != nil {
			t.Errorf("%s: %v", kex, err)
			continue
		}
		session, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		out, err := session.Output("head -c 16000000 /dev/zero")
		if n := exchanges.Load(); err != nil || len(out) != 16000000 || n < 2 {
			t.Errorf("%s by Go's client: %d bytes, %d key exchanges, %v", kex, len(out), n, err)
		}
		c.Close()
	}

	// What factotum would not sign is not offered: nobody is taken for an attacker.
	for _, kex := range []string{"diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group-exchange-sha1"} {
		bySHA1 := client + "-o KexAlgorithms=" + kex + " alice@127.0.0.1 true"
		s.configure(t, "RekeyLimit 1G none")
		if out, err := s.run(t, bySHA1); err == nil || !strings.Contains(out, "no matching key exchange method found") {
			t.Errorf("%s, which is not named: %v: %.300s", kex, err, out)
		}
		s.configure(t, "KexAlgorithms +"+kex)
		if out, err := s.run(t, bySHA1); err != nil {
			t.Errorf("%s, which is named: %v: %.300s", kex, err, out)
		}
	}
	if s.Logged("protocol violation") > 0 {
		t.Error("factotum takes a key exchange by SHA-1 for an attack")
	}

	// Host keys and certificates of each kind.
	s.Sh(t, "set -e; cd /etc/ssh; rm -rf /tmp/ca; mkdir /tmp/ca; ssh-keygen -q -t ed25519 -N '' -f /tmp/ca/ca; "+
		"for k in ed25519 ecdsa rsa; do [ -e ssh_host_${k}_key ] || ssh-keygen -q -t $k -N '' -f ssh_host_${k}_key; "+
		"ssh-keygen -q -h -s /tmp/ca/ca -I host -n 127.0.0.1 ssh_host_${k}_key.pub; done")
	lines := ""
	for _, k := range []string{"ed25519", "ecdsa", "rsa"} {
		lines += fmt.Sprintf("HostKey /etc/ssh/ssh_host_%s_key\nHostCertificate /etc/ssh/ssh_host_%[1]s_key-cert.pub\n", k)
	}
	s.configure(t, lines+"HostKeyAlgorithms +ssh-rsa*\nRekeyLimit 1M none")
	ca := s.Sh(t, "cat /tmp/ca/ca.pub")
	for _, alg := range []string{
		"ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256", "rsa-sha2-512", "ssh-ed25519-cert-v01@openssh.com",
		"ecdsa-sha2-nistp256-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com", "rsa-sha2-512-cert-v01@openssh.com",
		"ssh-rsa", "ssh-rsa-cert-v01@openssh.com", // as they are named
	} {
		check := ""
		if strings.Contains(alg, "-cert-") {
			check = "-o StrictHostKeyChecking=yes -o UserKnownHostsFile=$tmp/ca "
		}
		out, err := s.run(t, "echo '@cert-authority * "+ca+"' >$tmp/ca; ssh -n -v -o BatchMode=yes -o HostKeyAlgorithms="+alg+" "+check+
			"-p $port ${options/-o LogLevel=ERROR/} alice@127.0.0.1 'head -c 16000000 /dev/zero' 2>&1 >out; wc -c <out")
		if err != nil || strings.Count(out, "kex: host key algorithm: "+alg) < 2 || !strings.HasSuffix(out, "16000000\n") {
			t.Errorf("%s: %v: %.300s", alg, err, out)
		}
	}
	s.noneLeft(t)
}
