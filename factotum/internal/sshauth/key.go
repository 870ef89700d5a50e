package sshauth

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sshkey"
)

// A Policy is which keys are accepted: PubkeyAcceptedAlgorithms and
// RequiredRSASize of sshd_config(5).
type Policy struct {
	Algorithms []string
	RSABits    int // the least length of an RSA key
}

// A Key is a public key or a certificate that a client offers, and the algorithm
// that it signs in.
type Key struct {
	alg  string
	blob []byte
	pub  ssh.PublicKey // as offered: perhaps a certificate
	bare ssh.PublicKey // the key itself
}

// Parse accepts a key, encoded as RFC 4253 section 6.6 says, only in its one
// encoding, of a kind that the policy takes, and with an algorithm that is its
// own. It accepts a certificate only if its authority has signed it; who that is, and
// what the certificate says, is the worker's to judge.
func Parse(alg string, blob []byte, p Policy) (Key, error) {
	if !slices.Contains(p.Algorithms, alg) {
		return Key{}, fmt.Errorf("algorithm %.60q is not in PubkeyAcceptedAlgorithms", alg)
	}
	pub, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return Key{}, errors.New("the key cannot be read")
	}
	if !bytes.Equal(pub.Marshal(), blob) {
		return Key{}, errors.New("the key is not in its canonical form")
	}
	if !slices.Contains(AlgorithmsOf(pub.Type()), alg) {
		return Key{}, fmt.Errorf("a key of type %s does not sign in algorithm %s", pub.Type(), alg)
	}
	bare := pub
	if c, ok := pub.(*ssh.Certificate); ok {
		if err := verifyCertificate(c, blob); err != nil {
			return Key{}, err
		}
		bare = c.Key
	}
	if ck, ok := bare.(ssh.CryptoPublicKey); ok {
		if r, ok := ck.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() < p.RSABits {
			return Key{}, fmt.Errorf("an RSA key of %d bits is shorter than RequiredRSASize", r.N.BitLen())
		}
	}
	return Key{alg, blob, pub, bare}, nil
}

// Blob is the key as it was offered.
func (k Key) Blob() []byte { return k.blob }

// Type is the type of what was offered, as "ssh-ed25519-cert-v01@openssh.com".
func (k Key) Type() string { return k.pub.Type() }

// Bare is the encoded key itself, which is one for all its certificates.
func (k Key) Bare() []byte { return k.bare.Marshal() }

// Fingerprint is that of the key itself, by "sha256" or "md5".
func (k Key) Fingerprint(hash string) string {
	return sshkey.Key{Blob: k.Bare()}.Fingerprint(hash)
}

// names are the types of keys as sshd's log has them.
var names = map[string]string{
	ssh.KeyAlgoED25519: "ED25519", ssh.KeyAlgoSKED25519: "ED25519-SK", ssh.KeyAlgoSKECDSA256: "ECDSA-SK", ssh.KeyAlgoRSA: "RSA", sshkey.DSA: "DSA",
	ssh.KeyAlgoECDSA256: "ECDSA", ssh.KeyAlgoECDSA384: "ECDSA", ssh.KeyAlgoECDSA521: "ECDSA",
}

// Name is the key's type as sshd's log has it: "ED25519", "RSA-CERT".
func (k Key) Name() string {
	if _, ok := k.pub.(*ssh.Certificate); ok {
		return names[k.bare.Type()] + "-CERT"
	}
	return names[k.bare.Type()]
}

// AlgorithmsOf is the signature algorithms of a type of key or certificate
// (RFC 8332 for RSA). Those of RSA with SHA-1 are the last; no list has them by default.
func AlgorithmsOf(keyType string) []string {
	switch keyType {
	case ssh.KeyAlgoRSA:
		return []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSA}
	case ssh.CertAlgoRSAv01:
		return []string{ssh.CertAlgoRSASHA256v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSAv01}
	}
	return []string{keyType}
}
