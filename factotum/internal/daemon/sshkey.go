package daemon

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/internal/authkeys"
)

// publickey judges a key, or a signature by it over the bytes of RFC 4252,
// section 7, that are put together here: the front end has no say in them.
func (c *conv) publickey(p capproto.Packet) (capproto.Msg, error) {
	a := c.ssh
	blob, err := capproto.UnB64(p.Get("key"))
	if err != nil {
		return capproto.Msg{}, violation("auth: %v", err)
	}
	alg := p.Get("alg")
	key, err := parseKey(a, alg, blob)
	if err != nil {
		c.log.Info("public key refused", "user", a.user, "rhost", a.host, "reason", err.Error())
		return c.failed("publickey", "publickey")
	}
	detail := keyDetail(keyName(key), a.fingerprint(key))
	// A key counts once, with whatever certificates.
	bare := underKey(key).Marshal()
	if a.barred || slices.ContainsFunc(a.usedKeys, func(k []byte) bool { return bytes.Equal(k, bare) }) {
		return c.failed("publickey", detail)
	}
	if !bytes.Equal(a.checked, blob) {
		if err := c.checkKey(blob); err != nil {
			return capproto.Msg{}, err
		}
	}
	if !a.allowed {
		return c.failed("publickey", detail)
	}
	sigBlob, signed := p.Lookup("sig")
	if !signed {
		return capproto.NewMsg(capproto.VerbOK), nil
	}
	sig, err := capproto.UnB64(sigBlob)
	if err == nil {
		err = a.verify(alg, key, blob, sig)
	}
	if err != nil {
		c.log.Warn("signature refused", "user", a.user, "rhost", a.host, "key", a.fingerprint(key), "reason", err.Error())
		return c.failed("publickey", detail)
	}
	a.usedKeys = append(a.usedKeys, bare)
	a.keyOptions = a.options
	// One login has one key's options: what several keys' lines say adds up
	// to the last one's, as with sshd.
	a.proofs = append(a.proofs, "publickey "+key.Type()+" "+capproto.B64(blob))
	return c.succeeded("publickey", detail)
}

// fingerprint is that of a key, or of a certificate's.
func (a *sshConv) fingerprint(key ssh.PublicKey) string {
	return authkeys.Fingerprint(underKey(key), a.conf.FingerprintHash)
}

func underKey(key ssh.PublicKey) ssh.PublicKey {
	if c, ok := key.(*ssh.Certificate); ok {
		return c.Key
	}
	return key
}

// keyName is a key's type as sshd's log has it.
func keyName(key ssh.PublicKey) string {
	name := map[string]string{
		ssh.KeyAlgoED25519: "ED25519", ssh.KeyAlgoSKED25519: "ED25519-SK", ssh.KeyAlgoSKECDSA256: "ECDSA-SK", ssh.KeyAlgoRSA: "RSA",
		ssh.KeyAlgoECDSA256: "ECDSA", ssh.KeyAlgoECDSA384: "ECDSA", ssh.KeyAlgoECDSA521: "ECDSA",
	}[underKey(key).Type()]
	if _, ok := key.(*ssh.Certificate); ok {
		name += "-CERT"
	}
	return name
}

// parseKey accepts a key only in its one encoding, of a kind that the
// settings take, and with an algorithm that is its own.
func parseKey(a *sshConv, alg string, blob []byte) (ssh.PublicKey, error) {
	if !slices.Contains(a.conf.PubkeyAcceptedAlgorithms, alg) {
		return nil, fmt.Errorf("algorithm %.60q is not in PubkeyAcceptedAlgorithms", alg)
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, errors.New("the key cannot be read")
	}
	if !bytes.Equal(key.Marshal(), blob) {
		return nil, errors.New("the key is not in its canonical form")
	}
	if !slices.Contains(algorithmsOf(key.Type()), alg) {
		return nil, fmt.Errorf("algorithm %s is none of a key of type %s", alg, key.Type())
	}
	if ck, ok := underKey(key).(ssh.CryptoPublicKey); ok {
		if r, ok := ck.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() < a.conf.RequiredRSASize {
			return nil, fmt.Errorf("an RSA key of %d bits is shorter than RequiredRSASize", r.N.BitLen())
		}
	}
	return key, nil
}

// algorithmsOf is with which algorithms a key of the type signs.
func algorithmsOf(keyType string) []string {
	switch keyType {
	case ssh.KeyAlgoRSA:
		return []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}
	case ssh.CertAlgoRSAv01:
		return []string{ssh.CertAlgoRSASHA256v01, ssh.CertAlgoRSASHA512v01}
	}
	return []string{keyType}
}

// checkKey has the worker find out whether the key may log the user in.
func (c *conv) checkKey(blob []byte) error {
	a := c.ssh
	a.checked, a.allowed, a.options = nil, false, nil
	if c.worker == nil {
		if err := c.startSSHWorker(false); err != nil {
			return err
		}
	}
	settings, err := json.Marshal(a.conf)
	if err != nil {
		return err
	}
	host := a.host
	if host == a.remote.Addr().String() {
		host = ""
	}
	ends := fmt.Sprintf("%s %d %s %d", a.local.Addr(), a.local.Port(), a.remote.Addr(), a.remote.Port())
	m := capproto.NewMsg("key", "key", capproto.B64(blob), "settings", string(settings), "addr", a.remote.Addr().String(), "ends", ends)
	if host != "" {
		m.Add("host", host)
	}
	if err := c.tell(m); err != nil {
		return err
	}
	if m, err = c.await(); err != nil {
		return err
	}
	for _, n := range m.All("note") {
		c.sshlog(slog.LevelInfo, "%s", safe(n))
	}
	switch m.Verb {
	case "allowed":
		o := new(authkeys.Options)
		if err := json.Unmarshal([]byte(m.Get("options")), o); err != nil {
			return c.workerFailed(err)
		}
		a.options, a.allowed = o, true
	case "denied":
	default:
		return c.workerFailed(errors.New("it cannot look for keys: " + m.Get("text")))
	}
	a.checked = blob
	return nil
}

// verify checks a signature, encoded as RFC 4253 section 6.6 says.
func (a *sshConv) verify(alg string, key ssh.PublicKey, blob, sigBlob []byte) error {
	if a.sessionID == nil {
		return errors.New("there is no session id")
	}
	sig := new(ssh.Signature)
	if err := ssh.Unmarshal(sigBlob, sig); err != nil {
		return errors.New("the signature cannot be read")
	}
	if want := signatureFormat(alg); sig.Format != want {
		return fmt.Errorf("the signature is of format %.60q, the algorithm is %s", sig.Format, want)
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
	}{a.sessionID, 50, a.user, "ssh-connection", "publickey", true, alg, blob})
	switch underKey(key).Type() {
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		if err := verifySK(underKey(key), signed, sig); err != nil {
			return err
		}
		return a.verifyFlags(sig)
	}
	if len(sig.Rest) != 0 {
		return errors.New("bytes after the signature")
	}
	if err := underKey(key).Verify(signed, sig); err != nil {
		return errDoesNotVerify
	}
	return nil
}

var errDoesNotVerify = errors.New("the signature does not verify")

// verifySK checks the signature of a security key, whatever it attests: the
// library's Verify would not have one without a touch (PROTOCOL.u2f of
// OpenSSH).
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

// signatureFormat is in which format an algorithm signs: a certificate's is
// that of its key.
func signatureFormat(alg string) string {
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

// verifyFlags checks what a security key attests (PROTOCOL.u2f of OpenSSH):
// the signature ends with a byte of flags and a counter of four bytes.
func (a *sshConv) verifyFlags(sig *ssh.Signature) error {
	const present, verified = 0x01, 0x04
	flags := sig.Rest[0]
	if (a.conf.TouchRequired || !a.options.NoTouchRequired) && flags&present == 0 {
		return errors.New("the security key was not touched, see no-touch-required in sshd(8)")
	}
	if (a.conf.VerifyRequired || a.options.VerifyRequired) && flags&verified == 0 {
		return errors.New("the security key did not verify its user, see verify-required in sshd(8)")
	}
	return nil
}
