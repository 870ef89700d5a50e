package main

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"hash"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sntrup761"
	"p9auth/internal/umac"
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
	l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute))
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

func TestOpenSSHIsGivenAGroupOf8192Bits(t *testing.T) {
	server := &ssh.ServerConfig{NoClientAuth: true, Config: ssh.Config{KeyExchanges: []string{ssh.KeyExchangeDHGEXSHA256}}}
	server.AddHostKey(ed25519Signer(t))
	_, said, err := withOpenSSH(t, server, "-vvv", "-o", "Ciphers=aes256-ctr")
	if err != nil || !regexp.MustCompile(`bits set: \d+/8192`).MatchString(said) {
		t.Errorf("%v: %s", err, said)
	}
}

func TestOpenSSHTalksByEachCipherAndMAC(t *testing.T) {
	type pair struct{ cipher, mac string }
	var pairs []pair
	for _, c := range []string{"aes192-cbc", "aes256-cbc"} {
		pairs = append(pairs, pair{c, "hmac-sha2-256"}, pair{c, "hmac-sha2-256-etm@openssh.com"})
	}
	for _, m := range []string{"hmac-sha1-etm@openssh.com", "hmac-sha1-96-etm@openssh.com", "hmac-md5", "hmac-md5-96", "hmac-md5-etm@openssh.com", "hmac-md5-96-etm@openssh.com"} {
		pairs = append(pairs, pair{"aes128-ctr", m})
	}
	for _, p := range pairs {
		talk(t, ssh.Config{Ciphers: []string{p.cipher}, MACs: []string{p.mac}})
	}
}

// talk has OpenSSH's client log in by the algorithms of a configuration, and get
// a text of many blocks.
func talk(t *testing.T, config ssh.Config) {
	t.Helper()
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 500)
	server := &ssh.ServerConfig{NoClientAuth: true, Config: config, BannerCallback: func(ssh.ConnMetadata) string { return text }}
	server.AddHostKey(ed25519Signer(t))
	var options []string
	for keyword, list := range map[string][]string{"KexAlgorithms": config.KeyExchanges, "Ciphers": config.Ciphers, "MACs": config.MACs} {
		if len(list) > 0 {
			options = append(options, "-o", keyword+"="+strings.Join(list, ","))
		}
	}
	if _, said, err := withOpenSSH(t, server, options...); err != nil || !strings.Contains(said, text) {
		t.Errorf("%v: %v: %s", config, err, said)
	}
}

// sntrup is the hybrid key exchange that the tests register.
const sntrup = "sntrup761x25519-sha512@openssh.com"

// umacs are the MACs that the tests register, without their domain and in their form
// before encryption.
var umacs = map[string]func([]byte) hash.Hash{"umac-64": umac.New64, "umac-128": umac.New128}

// What a program registers is there before its first connection, as connections read the
// tables without a lock.
func init() {
	for name, newMAC := range umacs {
		ssh.RegisterMAC(name+"@openssh.com", umac.KeySize, false, newMAC)
		ssh.RegisterMAC(name+"-etm@openssh.com", umac.KeySize, true, newMAC)
	}
	ssh.RegisterHybridKeyExchange(sntrup, ssh.KEM{PublicKeySize: sntrup761.PublicKeySize, CiphertextSize: sntrup761.CiphertextSize, Encapsulate: sntrup761.Encapsulate}, crypto.SHA512)
}

func TestAServerBringsAMACOfItsOwn(t *testing.T) {
	for name := range umacs {
		talk(t, ssh.Config{Ciphers: []string{"aes128-ctr"}, MACs: []string{name + "@openssh.com"}})
		talk(t, ssh.Config{Ciphers: []string{"aes256-ctr"}, MACs: []string{name + "-etm@openssh.com"}})
	}
}

// The exchange is made several times, as all in it is random.
func TestAServerBringsAKeyExchangeOfItsOwn(t *testing.T) {
	for range 5 {
		talk(t, ssh.Config{KeyExchanges: []string{sntrup}})
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
