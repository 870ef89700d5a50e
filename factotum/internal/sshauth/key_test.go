package sshauth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"io"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/authkeys"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sshkey"
)

var all = Policy{Algorithms: []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoECDSA256, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
	ssh.CertAlgoED25519v01, ssh.CertAlgoRSASHA256v01, ssh.CertAlgoRSASHA512v01, sshkey.DSA,
}, RSABits: 2048}

// signedBytes is what a client signs, by RFC 4252 section 7, written out anew.
func signedBytes(sid []byte, user, alg string, blob []byte) []byte {
	var b []byte
	str := func(s []byte) {
		b = append(b, byte(len(s)>>24), byte(len(s)>>16), byte(len(s)>>8), byte(len(s)))
		b = append(b, s...)
	}
	str(sid)
	b = append(b, 50)
	for _, s := range []string{user, "ssh-connection", "publickey"} {
		str([]byte(s))
	}
	b = append(b, 1)
	str([]byte(alg))
	str(blob)
	return b
}

func signer(t *testing.T, key any) ssh.AlgorithmSigner {
	t.Helper()
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s.(ssh.AlgorithmSigner)
}

func keys(t *testing.T) (ed, rs, ec ssh.AlgorithmSigner) {
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer(t, e), signer(t, r), signer(t, c)
}

func TestASignatureIsForOneSessionOneUserAndOneAlgorithm(t *testing.T) {
	ed, rs, ec := keys(t)
	text, err := os.ReadFile("testdata/dsa") // crypto/dsa, which makes keys, is deprecated
	if err != nil {
		t.Fatal(err)
	}
	ds, err := ssh.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	sid := bytes.Repeat([]byte{7}, 32)
	for _, c := range []struct {
		s         ssh.AlgorithmSigner
		alg, name string
	}{
		{ds.(ssh.AlgorithmSigner), sshkey.DSA, "DSA"},
		{ed, ssh.KeyAlgoED25519, "ED25519"}, {rs, ssh.KeyAlgoRSASHA256, "RSA"}, {rs, ssh.KeyAlgoRSASHA512, "RSA"}, {ec, ssh.KeyAlgoECDSA256, "ECDSA"},
	} {
		blob := c.s.PublicKey().Marshal()
		k, err := Parse(c.alg, blob, all)
		if err != nil {
			t.Fatal(err)
		}
		if k.Name() != c.name || k.Type() != c.s.PublicKey().Type() || !bytes.Equal(k.Bare(), blob) || !bytes.Equal(k.Blob(), blob) {
			t.Errorf("%s: %s %s", c.alg, k.Name(), k.Type())
		}
		if d := DetailOf(k, "sha256"); d.Method != "publickey" || d.Key != ": "+c.name+" "+ssh.FingerprintSHA256(c.s.PublicKey()) {
			t.Errorf("%s: %v", c.alg, d)
		}
		sig, err := c.s.SignWithAlgorithm(rand.Reader, signedBytes(sid, "alice", c.alg, blob), c.alg)
		if err != nil {
			t.Fatal(err)
		}
		good := ssh.Marshal(sig)
		if err := k.Verify(sid, "alice", nil, good, Flags{Touch: true, Verify: true}); err != nil {
			t.Errorf("%s: %v", c.alg, err)
		}
		other := *sig
		other.Format = "ssh-xmss@openssh.com"
		long := *sig
		long.Rest = []byte{1}
		for name, err := range map[string]error{
			"another session":  k.Verify(bytes.Repeat([]byte{8}, 32), "alice", nil, good, Flags{}),
			"another user":     k.Verify(sid, "root", nil, good, Flags{}),
			"a bound method":   k.Verify(sid, "alice", blob, good, Flags{}),
			"no session":       k.Verify(nil, "alice", nil, good, Flags{}),
			"half a signature": k.Verify(sid, "alice", nil, good[:len(good)/2], Flags{}),
			"another format":   k.Verify(sid, "alice", nil, ssh.Marshal(&other), Flags{}),
			"bytes after it":   k.Verify(sid, "alice", nil, ssh.Marshal(&long), Flags{}),
		} {
			if err == nil {
				t.Errorf("%s: a signature of %s is good", c.alg, name)
			}
		}
	}
}

func TestAKeyIsAcceptedInOneEncodingAndWithAnAlgorithmOfItsOwn(t *testing.T) {
	ed, rs, _ := keys(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	blob := ed.PublicKey().Marshal()
	// An RSA modulus with a zero byte too many.
	pub := rs.PublicKey().(ssh.CryptoPublicKey).CryptoPublicKey().(*rsa.PublicKey)
	padded := ssh.Marshal(struct {
		Type string
		E    *big.Int
		N    []byte
	}{"ssh-rsa", big.NewInt(int64(pub.E)), append([]byte{0, 0}, pub.N.Bytes()...)})
	for name, c := range map[string]struct {
		alg  string
		blob []byte
		p    Policy
	}{
		"an algorithm that is not accepted": {ssh.KeyAlgoED25519, blob, Policy{Algorithms: []string{ssh.KeyAlgoRSASHA256}}},
		"SHA-1, which is not named":         {ssh.KeyAlgoRSA, rs.PublicKey().Marshal(), all},
		"another key's algorithm":           {ssh.KeyAlgoRSASHA256, blob, all},
		"a certificate's algorithm":         {ssh.CertAlgoED25519v01, blob, all},
		"half a key":                        {ssh.KeyAlgoED25519, blob[:20], all},
		"bytes after it":                    {ssh.KeyAlgoED25519, append(slices.Clone(blob), 0), all},
		"a padded modulus":                  {ssh.KeyAlgoRSASHA256, padded, all},
		"too short":                         {ssh.KeyAlgoRSASHA256, signer(t, small).PublicKey().Marshal(), all},
		"nothing":                           {ssh.KeyAlgoED25519, nil, all},
	} {
		if _, err := Parse(c.alg, c.blob, c.p); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := Parse(ssh.KeyAlgoRSA, rs.PublicKey().Marshal(), Policy{Algorithms: []string{ssh.KeyAlgoRSA}}); err != nil {
		t.Errorf("SHA-1, which is named: %v", err)
	}
}

// A tokenSigner is a security key that is an authority, and that nobody touched.
type tokenSigner struct{ ed ed25519.PrivateKey }

func (s tokenSigner) PublicKey() ssh.PublicKey {
	k, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Type        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, s.ed.Public().(ed25519.PublicKey), "ssh:"}))
	if err != nil {
		panic(err)
	}
	return k
}

func (s tokenSigner) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	app, sum, rest := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data), []byte{0, 0, 0, 0, 1}
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(s.ed, slices.Concat(app[:], rest, sum[:])), Rest: rest}, nil
}

func TestACertificateIsAcceptedOnlyAsItsAuthorityHasSignedIt(t *testing.T) {
	ed, rs, ec := keys(t)
	_, token, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, authority := range map[string]ssh.Signer{"ed25519": ed, "rsa": rs, "ecdsa": ec, "a security key": tokenSigner{token}} {
		cert := &ssh.Certificate{Key: ed.PublicKey(), CertType: ssh.UserCert, KeyId: "k", ValidPrincipals: []string{"alice"}, ValidBefore: ssh.CertTimeInfinity}
		if err := cert.SignCert(rand.Reader, authority); err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(ssh.CertAlgoED25519v01, cert.Marshal(), all); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for what, change := range map[string]func(){
			"another principal": func() { cert.ValidPrincipals = []string{"root"} },
			"another key":       func() { cert.ValidPrincipals, cert.Key = []string{"alice"}, newKey(t) },
			"another authority": func() { cert.Key, cert.SignatureKey = ed.PublicKey(), newKey(t) },
		} {
			before := *cert
			change()
			if _, err := Parse(ssh.CertAlgoED25519v01, cert.Marshal(), all); err == nil {
				t.Errorf("%s: passes with %s", name, what)
			}
			*cert = before
		}
	}
}

func newKey(t *testing.T) ssh.PublicKey {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestACertificateIsItsKeyAndSignsAsIt(t *testing.T) {
	ed, rs, _ := keys(t)
	for _, c := range []struct {
		s              ssh.AlgorithmSigner
		alg, sign, cut string
	}{{ed, ssh.CertAlgoED25519v01, ssh.KeyAlgoED25519, "ED25519-CERT"}, {rs, ssh.CertAlgoRSASHA512v01, ssh.KeyAlgoRSASHA512, "RSA-CERT"}} {
		cert := &ssh.Certificate{Key: c.s.PublicKey(), CertType: ssh.UserCert, KeyId: "k", ValidPrincipals: []string{"alice"}, ValidBefore: ssh.CertTimeInfinity}
		if err := cert.SignCert(rand.Reader, ed); err != nil {
			t.Fatal(err)
		}
		k, err := Parse(c.alg, cert.Marshal(), all)
		if err != nil {
			t.Fatal(err)
		}
		if k.Name() != c.cut || !bytes.Equal(k.Bare(), c.s.PublicKey().Marshal()) || k.Fingerprint("sha256") != ssh.FingerprintSHA256(c.s.PublicKey()) {
			t.Errorf("%s: %s", c.alg, k.Name())
		}
		sid := []byte("0123456789abcdef0123456789abcdef")
		sig, err := c.s.SignWithAlgorithm(rand.Reader, signedBytes(sid, "alice", c.alg, cert.Marshal()), c.sign)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Verify(sid, "alice", nil, ssh.Marshal(sig), Flags{}); err != nil {
			t.Errorf("%s: %v", c.alg, err)
		}
		// What the bare key signed is not for the certificate.
		sig, _ = c.s.SignWithAlgorithm(rand.Reader, signedBytes(sid, "alice", c.sign, c.s.PublicKey().Marshal()), c.sign)
		if err := k.Verify(sid, "alice", nil, ssh.Marshal(sig), Flags{}); err == nil {
			t.Errorf("%s: a signature by the key is good for the certificate", c.alg)
		}
	}
	for alg, want := range map[string]string{
		ssh.CertAlgoRSASHA256v01: ssh.KeyAlgoRSASHA256, ssh.CertAlgoSKED25519v01: ssh.KeyAlgoSKED25519, ssh.CertAlgoSKECDSA256v01: ssh.KeyAlgoSKECDSA256,
	} {
		if got := SignatureFormat(alg); got != want {
			t.Errorf("%s signs as %s", alg, got)
		}
	}
}

// skSignature signs as a security key does (PROTOCOL.u2f of OpenSSH).
func skSignature(t *testing.T, priv crypto.Signer, format, application string, flags byte, signed []byte) []byte {
	t.Helper()
	app, sum := sha256.Sum256([]byte(application)), sha256.Sum256(signed)
	rest := []byte{flags, 0, 0, 0, 9}
	msg := slices.Concat(app[:], rest, sum[:])
	var blob []byte
	switch p := priv.(type) {
	case ed25519.PrivateKey:
		blob = ed25519.Sign(p, msg)
	case *ecdsa.PrivateKey:
		digest := sha256.Sum256(msg)
		r, s, err := ecdsa.Sign(rand.Reader, p, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		blob = ssh.Marshal(struct{ R, S *big.Int }{r, s})
	}
	return ssh.Marshal(&ssh.Signature{Format: format, Blob: blob, Rest: rest})
}

func TestASecurityKeyAttestsTheTouchThatIsRequired(t *testing.T) {
	edPub, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	sid := bytes.Repeat([]byte{7}, 32)
	for _, c := range []struct {
		alg  string
		priv crypto.Signer
		blob []byte
	}{
		{ssh.KeyAlgoSKED25519, ed, ssh.Marshal(struct {
			Type        string
			Key         []byte
			Application string
		}{ssh.KeyAlgoSKED25519, edPub, "ssh:"})},
		{ssh.KeyAlgoSKECDSA256, ec, ssh.Marshal(struct {
			Type, Curve string
			Key         []byte
			Application string
		}{ssh.KeyAlgoSKECDSA256, "nistp256", point, "ssh:"})},
	} {
		k, err := Parse(c.alg, c.blob, all)
		if err != nil {
			t.Fatal(err)
		}
		signed := signedBytes(sid, "alice", c.alg, c.blob)
		for flags := byte(0); flags < 8; flags++ {
			sig := skSignature(t, c.priv, c.alg, "ssh:", flags, signed)
			for _, want := range []Flags{{}, {Touch: true}, {Verify: true}, {Touch: true, Verify: true}} {
				ok := (!want.Touch || flags&1 != 0) && (!want.Verify || flags&4 != 0)
				if err := k.Verify(sid, "alice", nil, sig, want); (err == nil) != ok {
					t.Errorf("%s: flags %b, wanted %+v: %v", c.alg, flags, want, err)
				}
			}
		}
		if err := k.Verify(sid, "alice", nil, skSignature(t, c.priv, c.alg, "other:", 5, signed), Flags{}); err == nil {
			t.Errorf("%s: another application", c.alg)
		}
		if err := k.Verify(sid, "bob", nil, skSignature(t, c.priv, c.alg, "ssh:", 5, signed), Flags{}); err == nil {
			t.Errorf("%s: another user", c.alg)
		}
		plain := ssh.Marshal(&ssh.Signature{Format: c.alg, Blob: make([]byte, 64)})
		if err := k.Verify(sid, "alice", nil, plain, Flags{}); err == nil {
			t.Errorf("%s: without flags", c.alg)
		}
	}
	for _, c := range []struct {
		touch, verify bool
		o             authkeys.Options
		want          Flags
	}{
		{false, false, authkeys.Options{}, Flags{Touch: true}},
		{false, false, authkeys.Options{NoTouchRequired: true}, Flags{}},
		{true, false, authkeys.Options{NoTouchRequired: true}, Flags{Touch: true}},
		{false, true, authkeys.Options{NoTouchRequired: true}, Flags{Verify: true}},
		{false, false, authkeys.Options{VerifyRequired: true}, Flags{Touch: true, Verify: true}},
	} {
		if got := RequiredFlags(c.touch, c.verify, &c.o); got != c.want {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

func TestMethodsComeInTheOrderOfOneAlternative(t *testing.T) {
	enabled := []string{Password, PublicKey, Interactive}
	m := NewMethods(enabled, [][]string{{"publickey", "password"}, {"publickey", "keyboard-interactive:pam"}, {"password"}})
	steps := []struct {
		next, complete string
		done           bool
	}{{"publickey,password", PublicKey, false}, {"password,keyboard-interactive", Interactive, true}}
	for _, s := range steps {
		if got := strings.Join(m.Next(), ","); got != s.next {
			t.Errorf("next are %s, not %s", got, s.next)
		}
		if done := m.Complete(s.complete); done != s.done {
			t.Errorf("after %s: %v", s.complete, done)
		}
	}
	if got := strings.Join(m.Done(), ","); got != "publickey,keyboard-interactive" {
		t.Errorf("done: %s", got)
	}
	any := NewMethods([]string{PublicKey}, nil)
	if any.MayTry(Password) || !any.MayTry(PublicKey) || any.MayTry(None) || !any.Complete(PublicKey) {
		t.Error("any one method does, of those that are enabled")
	}
	none := NewMethods(nil, nil)
	if n := none.Next(); n == nil || len(n) != 0 {
		t.Errorf("%v", n)
	}
	// The lists of the settings are shared: they stay as they are.
	lists := [][]string{{"publickey", "password"}}
	a := NewMethods(enabled, lists)
	a.Complete(PublicKey)
	if len(lists[0]) != 2 {
		t.Error("the settings have changed")
	}
	for in, want := range map[string]string{"password": "password", "publickey": "publickey", "keyboard-interactive": "keyboard-interactive", "none": "none", "\x1b[2J": "none"} {
		if got := Known(in); got != want {
			t.Errorf("%q is %s", in, got)
		}
	}
}

func TestRootMayLogInAsPermitRootLoginSays(t *testing.T) {
	forced := &authkeys.Options{HasCommand: true}
	for _, c := range []struct {
		p      sshdconf.RootLogin
		method string
		o      *authkeys.Options
		want   bool
	}{
		{sshdconf.RootYes, Password, nil, true}, {sshdconf.RootNo, PublicKey, forced, false}, {sshdconf.RootNo, Password, nil, false},
		{sshdconf.RootNoPassword, PublicKey, nil, true}, {sshdconf.RootNoPassword, Password, nil, false}, {sshdconf.RootNoPassword, Interactive, nil, false},
		{sshdconf.RootForcedCommands, PublicKey, forced, true}, {sshdconf.RootForcedCommands, PublicKey, &authkeys.Options{}, false},
		{sshdconf.RootForcedCommands, PublicKey, nil, false}, {sshdconf.RootForcedCommands, Password, forced, false},
	} {
		if got := RootMay(c.p, c.method, c.o); got != c.want {
			t.Errorf("%v %s %v: %v", c.p, c.method, c.o, got)
		}
	}
}
