package ssh

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
)

// A key is what a user offers: a public key or a certificate, and the
// algorithm to use it with.
type key struct {
	alg  string
	pub  ssh.PublicKey
	sign func(data []byte) *ssh.Signature
}

func (k key) blob() []byte { return k.pub.Marshal() }

// line is the key as a line of authorized_keys, after options.
func (k key) line(options string) string {
	return strings.TrimLeft(options+" "+string(ssh.MarshalAuthorizedKey(k.pub)), " ")
}

// keyTypes are the kinds of keys, and the algorithms that they sign with.
var keyTypes = map[string][]string{
	"ed25519":    {ssh.KeyAlgoED25519},
	"ecdsa-256":  {ssh.KeyAlgoECDSA256},
	"ecdsa-384":  {ssh.KeyAlgoECDSA384},
	"ecdsa-521":  {ssh.KeyAlgoECDSA521},
	"rsa":        {ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512},
	"sk-ed25519": {ssh.KeyAlgoSKED25519},
	"sk-ecdsa":   {ssh.KeyAlgoSKECDSA256},
}

// newKey makes a key. flags are what a security key attests: 1 for a touch, 4
// for its user's PIN.
func newKey(t *testing.T, kind string, flags byte) key {
	t.Helper()
	switch kind {
	case "sk-ed25519":
		pub, priv, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k := parsed(t, ssh.Marshal(struct {
			Type string
			Key  []byte
			App  string
		}{ssh.KeyAlgoSKED25519, pub, "ssh:"}))
		return key{ssh.KeyAlgoSKED25519, k, func(data []byte) *ssh.Signature {
			rest, msg := attest(flags, data)
			return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(priv, msg), Rest: rest}
		}}
	case "sk-ecdsa":
		priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := priv.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		k := parsed(t, ssh.Marshal(struct {
			Type, Curve string
			Point       []byte
			App         string
		}{ssh.KeyAlgoSKECDSA256, "nistp256", point, "ssh:"}))
		return key{ssh.KeyAlgoSKECDSA256, k, func(data []byte) *ssh.Signature {
			rest, msg := attest(flags, data)
			sum := sha256.Sum256(msg)
			r, s, err := ecdsa.Sign(rand.Reader, priv, sum[:])
			must(err)
			return &ssh.Signature{Format: ssh.KeyAlgoSKECDSA256, Blob: ssh.Marshal(struct{ R, S *big.Int }{r, s}), Rest: rest}
		}}
	}
	var private any
	var err error
	switch kind {
	case "ed25519":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa-256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa-384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ecdsa-521":
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "rsa":
		private, err = rsa2048()
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	k := key{alg: keyTypes[kind][0], pub: s.PublicKey()}
	return k.signing(s.(ssh.AlgorithmSigner))
}

// rsa2048 takes long to make: the tests share one.
var rsa2048 = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func (k key) signing(s ssh.AlgorithmSigner) key {
	alg := k.alg
	k.sign = func(data []byte) *ssh.Signature {
		sig, err := s.SignWithAlgorithm(rand.Reader, data, alg)
		must(err)
		return sig
	}
	return k
}

// as is the RSA key with another algorithm.
func (k key) as(t *testing.T, alg string) key {
	t.Helper()
	if alg == k.alg {
		return k
	}
	private, err := rsa2048()
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	k.alg = alg
	return k.signing(s.(ssh.AlgorithmSigner))
}

func parsed(t *testing.T, blob []byte) ssh.PublicKey {
	t.Helper()
	k, err := ssh.ParsePublicKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// attest is what a security key signs: PROTOCOL.u2f of OpenSSH.
func attest(flags byte, data []byte) (rest, msg []byte) {
	app, sum := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	rest = binary.BigEndian.AppendUint32([]byte{flags}, 42)
	return rest, append(append(app[:], rest...), sum[:]...)
}

// certify has an authority certify a key for alice; change may change what it
// says.
func certify(t *testing.T, ca, k key, change func(*ssh.Certificate)) key {
	t.Helper()
	cert := &ssh.Certificate{
		Key: k.pub, CertType: ssh.UserCert, KeyId: "a test", Serial: 7, ValidPrincipals: []string{"alice"},
		ValidAfter: uint64(time.Now().Add(-time.Hour).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if change != nil {
		change(cert)
	}
	if err := cert.SignCert(rand.Reader, authority{ca}); err != nil {
		t.Fatal(err)
	}
	alg := map[string]string{
		ssh.KeyAlgoRSASHA256: ssh.CertAlgoRSASHA256v01, ssh.KeyAlgoRSASHA512: ssh.CertAlgoRSASHA512v01,
		ssh.KeyAlgoSKED25519: ssh.CertAlgoSKED25519v01, ssh.KeyAlgoSKECDSA256: ssh.CertAlgoSKECDSA256v01,
	}[k.alg]
	if alg == "" {
		alg = k.alg + "-cert-v01@openssh.com"
	}
	return key{alg, parsed(t, cert.Marshal()), k.sign}
}

// authority lets a key sign certificates.
type authority struct{ key }

func (a authority) PublicKey() ssh.PublicKey { return a.pub }

func (a authority) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	return a.sign(data), nil
}

// A claim is what RFC 4252, section 7, has signed.
type claim struct {
	Session []byte
	Type    byte
	User    string
	Service string
	Method  string
	Signed  bool
	Alg     string
	Blob    []byte
}

// claim is the true one.
func (k *talk) claim(user string, key key) claim {
	return claim{k.sid, 50, user, "ssh-connection", "publickey", true, key.alg, key.blob()}
}

// query asks whether a key would do.
func (k *talk) query(user string, key key) capproto.Msg {
	k.t.Helper()
	return k.ask("auth", "user", user, "method", "publickey", "alg", key.alg, "key", capproto.B64(key.blob()))
}

// prove offers a key with a signature.
func (k *talk) prove(user string, key key, sig []byte) capproto.Msg {
	k.t.Helper()
	return k.ask("auth", "user", user, "method", "publickey", "alg", key.alg, "key", capproto.B64(key.blob()), "sig", capproto.B64(sig))
}

// login offers a key as a client does.
func (k *talk) login(user string, key key) capproto.Msg {
	k.t.Helper()
	return k.prove(user, key, ssh.Marshal(key.sign(ssh.Marshal(k.claim(user, key)))))
}

// password offers a password.
func (k *talk) password(user, password string) capproto.Msg {
	k.t.Helper()
	return k.ask("auth", "user", user, "method", "password", "data", password)
}
