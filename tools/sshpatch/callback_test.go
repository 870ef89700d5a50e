package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// seen is what the callback got.
type seen struct {
	user    string
	session []byte
	method  string
	alg     string
	key     ssh.PublicKey
	signed  []byte
	sig     *ssh.Signature
}

// An attempt is one login by key: the client's signers, what the server says
// to the key and to the signature, and what came of it.
type attempt struct {
	signers []ssh.Signer
	accept  func(ssh.PublicKey) error // nil accepts
	verify  func(seen) error
	seen    []seen
	logged  []error // of publickey
}

// login returns the server's error and the client's.
func (a *attempt) login(t *testing.T) (server, client error) {
	t.Helper()
	c := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			if a.accept != nil {
				return nil, a.accept(k)
			}
			return nil, nil
		},
		VerifySignatureCallback: func(conn ssh.ConnMetadata, method, alg string, key ssh.PublicKey, signed []byte, sig *ssh.Signature) error {
			s := seen{conn.User(), conn.SessionID(), method, alg, key, signed, sig}
			a.seen = append(a.seen, s)
			return a.verify(s)
		},
		AuthLogCallback: func(_ ssh.ConnMetadata, method string, err error) {
			if method == "publickey" {
				a.logged = append(a.logged, err)
			}
		},
	}
	c.AddHostKey(ed25519Signer(t))
	ours, theirs := tcpPair(t)
	done := make(chan error, 1)
	go func() {
		defer ours.Close()
		conn, _, _, err := ssh.NewServerConn(ours, c)
		if err == nil {
			conn.Close()
		}
		done <- err
	}()
	conn, _, _, client := ssh.NewClientConn(theirs, "test", &ssh.ClientConfig{
		User:            "alice",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(a.signers...)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if client == nil {
		conn.Close()
	}
	theirs.Close()
	return <-done, client
}

func tcpPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if b, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if a, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func signer(t *testing.T, key any, err error) ssh.Signer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ed25519Signer(t *testing.T) ssh.Signer {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	return signer(t, k, err)
}

// only makes a signer use one algorithm.
func only(t *testing.T, s ssh.Signer, alg string) ssh.Signer {
	t.Helper()
	m, err := ssh.NewSignerWithAlgorithms(s.(ssh.AlgorithmSigner), []string{alg})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// certified puts a certificate before a key.
func certified(t *testing.T, s ssh.Signer) ssh.Signer {
	t.Helper()
	cert := &ssh.Certificate{
		Key: s.PublicKey(), CertType: ssh.UserCert, KeyId: "test",
		ValidPrincipals: []string{"alice"}, ValidBefore: ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, ed25519Signer(t)); err != nil {
		t.Fatal(err)
	}
	c, err := ssh.NewCertSigner(cert, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// skSigner is a security key made of software: PROTOCOL.u2f of OpenSSH.
type skSigner struct {
	key   ed25519.PrivateKey
	flags byte
}

func (s skSigner) PublicKey() ssh.PublicKey {
	k, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Name string
		Key  []byte
		App  string
	}{ssh.KeyAlgoSKED25519, s.key.Public().(ed25519.PublicKey), "ssh:"}))
	if err != nil {
		panic(err)
	}
	return k
}

func (s skSigner) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	app, msg := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	rest := binary.BigEndian.AppendUint32([]byte{s.flags}, 7)
	blob := append(append(app[:], rest...), msg[:]...)
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(s.key, blob), Rest: rest}, nil
}

// kinds are signers, by the algorithm that they ask for.
func kinds(t *testing.T) map[string]ssh.Signer {
	ed := ed25519Signer(t)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ec := signer(t, p256, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	ec521 := signer(t, p521, err)
	r2048, err := rsa.GenerateKey(rand.Reader, 2048)
	r := signer(t, r2048, err)
	_, sk, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]ssh.Signer{
		ssh.KeyAlgoED25519:       ed,
		ssh.KeyAlgoECDSA256:      ec,
		ssh.KeyAlgoECDSA521:      ec521,
		ssh.KeyAlgoRSASHA256:     only(t, r, ssh.KeyAlgoRSASHA256),
		ssh.KeyAlgoRSASHA512:     only(t, r, ssh.KeyAlgoRSASHA512),
		ssh.KeyAlgoSKED25519:     skSigner{sk, 1},
		ssh.CertAlgoED25519v01:   certified(t, ed),
		ssh.CertAlgoECDSA256v01:  certified(t, ec),
		ssh.CertAlgoRSASHA512v01: certified(t, only(t, r, ssh.KeyAlgoRSASHA512)),
		ssh.CertAlgoSKED25519v01: certified(t, skSigner{sk, 1}),
	}
}

// signedBytes is what RFC 4252 section 7 has signed.
func signedBytes(s seen, blob []byte) []byte {
	return ssh.Marshal(struct {
		Session []byte
		Type    byte
		User    string
		Service string
		Method  string
		Sign    bool
		Alg     string
		Blob    []byte
	}{s.session, 50, s.user, "ssh-connection", "publickey", true, s.alg, blob})
}

func TestTheCallbackGetsWhatProvesTheKey(t *testing.T) {
	for alg, key := range kinds(t) {
		t.Run(alg, func(t *testing.T) {
			a := &attempt{signers: []ssh.Signer{key}, verify: func(s seen) error { return s.key.Verify(s.signed, s.sig) }}
			if server, client := a.login(t); server != nil || client != nil {
				t.Fatalf("server: %v, client: %v", server, client)
			}
			if len(a.seen) != 1 {
				t.Fatalf("%d calls, not one", len(a.seen))
			}
			s := a.seen[0]
			blob := key.PublicKey().Marshal()
			if s.user != "alice" || s.method != "publickey" || s.alg != alg || len(s.session) == 0 {
				t.Errorf("user %q, method %q, algorithm %q, session %x", s.user, s.method, s.alg, s.session)
			}
			if !bytes.Equal(s.key.Marshal(), blob) {
				t.Error("not the key, or certificate, that was offered")
			}
			if !bytes.Equal(s.signed, signedBytes(s, blob)) {
				t.Errorf("signed bytes %q", s.signed)
			}
			if want := strings.Replace(alg, "-cert-v01", "", 1); s.sig.Format != want && s.sig.Format+"-cert-v01@openssh.com" != alg {
				t.Errorf("signature format %q", s.sig.Format)
			}
			if sk := strings.HasPrefix(alg, "sk-"); sk != (len(s.sig.Rest) == 5) {
				t.Errorf("flags and counter: %x", s.sig.Rest)
			}
			// What the callback got verifies after a trip through bytes, too.
			k, err := ssh.ParsePublicKey(blob)
			if err != nil {
				t.Fatal(err)
			}
			var back ssh.Signature
			if err := ssh.Unmarshal(ssh.Marshal(s.sig), &back); err != nil {
				t.Fatal(err)
			}
			if err := k.Verify(s.signed, &back); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAFailingCallbackRefusesEachKind(t *testing.T) {
	no := errors.New("not this one")
	for alg, key := range kinds(t) {
		t.Run(alg, func(t *testing.T) {
			a := &attempt{signers: []ssh.Signer{key}, verify: func(seen) error { return no }}
			if server, client := a.login(t); server == nil || client == nil {
				t.Fatal("logged in")
			}
			if len(a.seen) != 1 || len(a.logged) != 1 || a.logged[0] != no {
				t.Errorf("%d calls; logged %v", len(a.seen), a.logged)
			}
		})
	}
}

// The library must not have verified before, nor do it after.
func TestTheCallbackDecidesAlone(t *testing.T) {
	a := &attempt{signers: []ssh.Signer{liar{ed25519Signer(t)}}, verify: func(s seen) error {
		if s.key.Verify(s.signed, s.sig) == nil {
			t.Error("the liar's signature is good")
		}
		return nil
	}}
	if server, client := a.login(t); server != nil || client != nil {
		t.Errorf("server: %v, client: %v", server, client)
	}
}

// liar signs something else.
type liar struct{ ssh.Signer }

func (l liar) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	return l.Signer.Sign(r, append(data, 0))
}

func TestAKeyThatWasRefusedIsNotVerified(t *testing.T) {
	a := &attempt{
		signers: []ssh.Signer{ed25519Signer(t)},
		accept:  func(ssh.PublicKey) error { return errors.New("unknown key") },
		verify:  func(seen) error { return nil },
	}
	if server, client := a.login(t); server == nil || client == nil {
		t.Error("logged in")
	}
	if len(a.seen) != 0 {
		t.Errorf("%d calls", len(a.seen))
	}
}

func TestAFailedAttemptLeavesRoomForTheNext(t *testing.T) {
	bad, good := ed25519Signer(t), ed25519Signer(t)
	a := &attempt{signers: []ssh.Signer{bad, good}, verify: func(s seen) error {
		if bytes.Equal(s.key.Marshal(), bad.PublicKey().Marshal()) {
			return errors.New("not this one")
		}
		return nil
	}}
	if server, client := a.login(t); server != nil || client != nil {
		t.Errorf("server: %v, client: %v", server, client)
	}
	if len(a.seen) != 2 {
		t.Errorf("%d calls", len(a.seen))
	}
}

// AuthenticationMethods publickey,publickey: the callback asks for a second
// key, and is asked about that one too.
func TestPartialSuccessAsksForAnotherKey(t *testing.T) {
	first, second := ed25519Signer(t), ed25519Signer(t)
	a := &attempt{signers: []ssh.Signer{first, second}}
	a.verify = func(seen) error {
		if len(a.seen) > 1 {
			return nil
		}
		p := new(ssh.PartialSuccessError)
		p.Next.PublicKeyCallback = func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }
		return p
	}
	if server, client := a.login(t); server != nil || client != nil {
		t.Fatalf("server: %v, client: %v", server, client)
	}
	if len(a.seen) != 2 {
		t.Errorf("%d calls, not two", len(a.seen))
	}
}
