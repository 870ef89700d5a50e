package sshauth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Flags are what a security key must attest beside its signature: that somebody
// touched it, that it verified who (touch-required and verify-required in
// sshd(8)).
type Flags struct{ Touch, Verify bool }

var errDoesNotVerify = errors.New("the signature does not verify")

// Verify checks a signature, encoded as RFC 4253 section 6.6 says, by which a
// user proves to own the key. It is over the bytes of RFC 4252 section 7, which
// are put together here, from the session id and the user's name: the client and
// the front end have no say in them. A signature that is bound to a host key, or a
// host certificate, is over that too (OpenSSH's PROTOCOL, section 3.1); boundTo is
// empty for one that is not.
func (k Key) Verify(sessionID []byte, user string, boundTo, signature []byte, f Flags) error {
	if len(sessionID) == 0 {
		return errors.New("there is no session id")
	}
	sig := new(ssh.Signature)
	if err := ssh.Unmarshal(signature, sig); err != nil {
		return errors.New("the signature cannot be read")
	}
	if want := SignatureFormat(k.alg); sig.Format != want {
		return fmt.Errorf("the signature is of format %.60q, the algorithm is %s", sig.Format, want)
	}
	method := "publickey"
	if len(boundTo) > 0 {
		method = "publickey-hostbound-v00@openssh.com"
	}
	signed := ssh.Marshal(struct {
		SessionID []byte
		Type      byte
		User      string
		Service   string
		Method    string
		Signed    bool
		Algorithm string
		Key       []byte
	}{sessionID, 50, user, "ssh-connection", method, true, k.alg, k.blob})
	if len(boundTo) > 0 {
		signed = append(signed, ssh.Marshal(struct{ HostKey []byte }{boundTo})...)
	}
	switch k.bare.Type() {
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		if err := verifySK(k.bare, signed, sig); err != nil {
			return err
		}
		return f.check(sig.Rest[0])
	}
	if len(sig.Rest) != 0 {
		return errors.New("bytes after the signature")
	}
	if err := k.bare.Verify(signed, sig); err != nil {
		return errDoesNotVerify
	}
	return nil
}

// verifyCertificate checks the signature of a certificate's authority. It is over all
// that comes before it in the encoding (PROTOCOL.certkeys). What a security key that
// is an authority attests does not count, as with sshd.
func verifyCertificate(c *ssh.Certificate, blob []byte) error {
	sig := ssh.Marshal(c.Signature)
	signed := blob[:len(blob)-4-len(sig)] // 4 bytes are the signature's length
	if err := verify(c.SignatureKey, signed, c.Signature); err != nil {
		return errors.New("the signature of the certificate's authority does not verify")
	}
	return nil
}

// VerifyHostKey checks a signature that somebody else has made with one of our host
// keys. What a security key attests does not count, as with clients.
func VerifyHostKey(key ssh.PublicKey, signed []byte, sig *ssh.Signature) error {
	if err := verify(key, signed, sig); err != nil {
		return errDoesNotVerify
	}
	return nil
}

// verify checks a signature, whatever a security key attests.
func verify(key ssh.PublicKey, signed []byte, sig *ssh.Signature) error {
	switch key.Type() {
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return verifySK(key, signed, sig)
	}
	return key.Verify(signed, sig)
}

// SignatureFormat is the format in which an algorithm signs: that of a
// certificate is its key's.
func SignatureFormat(alg string) string {
	switch alg {
	case ssh.CertAlgoRSASHA256v01:
		return ssh.KeyAlgoRSASHA256
	case ssh.CertAlgoRSASHA512v01:
		return ssh.KeyAlgoRSASHA512
	case ssh.CertAlgoSKED25519v01:
		return ssh.KeyAlgoSKED25519
	case ssh.CertAlgoSKECDSA256v01:
		return ssh.KeyAlgoSKECDSA256
	}
	return strings.TrimSuffix(alg, "-cert-v01@openssh.com")
}

// verifySK checks the signature of a security key, whatever it attests: the
// library's Verify refuses one without a touch, which no-touch-required may
// permit. After the signature come a byte of flags and a counter of four bytes
// (PROTOCOL.u2f of OpenSSH).
func verifySK(key ssh.PublicKey, signed []byte, sig *ssh.Signature) error {
	if len(sig.Rest) != 5 {
		return errors.New("not the signature of a security key")
	}
	var application string
	switch key.Type() {
	case ssh.KeyAlgoSKED25519:
		var k struct{ Type, Key, Application string }
		if err := ssh.Unmarshal(key.Marshal(), &k); err != nil {
			return err
		}
		application = k.Application
	case ssh.KeyAlgoSKECDSA256:
		var k struct{ Type, Curve, Key, Application string }
		if err := ssh.Unmarshal(key.Marshal(), &k); err != nil {
			return err
		}
		application = k.Application
	}
	app, sum := sha256.Sum256([]byte(application)), sha256.Sum256(signed)
	msg := slices.Concat(app[:], sig.Rest, sum[:])
	crypto, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return errDoesNotVerify
	}
	switch k := crypto.CryptoPublicKey().(type) {
	case ed25519.PublicKey:
		if ed25519.Verify(k, msg, sig.Blob) {
			return nil
		}
	case *ecdsa.PublicKey:
		var rs struct{ R, S *big.Int }
		digest := sha256.Sum256(msg)
		if ssh.Unmarshal(sig.Blob, &rs) == nil && ecdsa.Verify(k, digest[:], rs.R, rs.S) {
			return nil
		}
	}
	return errDoesNotVerify
}

// check compares the flags that a security key attests (PROTOCOL.u2f) with what
// it must attest.
func (f Flags) check(attested byte) error {
	const present, verified = 0x01, 0x04
	if f.Touch && attested&present == 0 {
		return errors.New("the security key was not touched, see no-touch-required in sshd(8)")
	}
	if f.Verify && attested&verified == 0 {
		return errors.New("the security key did not verify its user, see verify-required in sshd(8)")
	}
	return nil
}
