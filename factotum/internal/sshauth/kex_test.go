package sshauth

import (
	"crypto"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sshdconf"
)

// ofMethod is an exchange by a method, with values that could be its own.
func ofMethod(method string) (transcript, string) {
	sizes := map[string][2]int{
		"curve25519-sha256": {32, 32}, "curve25519-sha256@libssh.org": {32, 32}, "ecdh-sha2-nistp256": {65, 65}, "ecdh-sha2-nistp384": {97, 97},
		"ecdh-sha2-nistp521": {133, 133}, "mlkem768x25519-sha256": {1216, 1120},
		"sntrup761x25519-sha512": {1190, 1071}, "sntrup761x25519-sha512@openssh.com": {1190, 1071},
	}
	x := honest()
	x.IC, x.IS = kexInitOf(Nonce{9}, "another@example.com", method, "ext-info-c"), kexInitOf(nonce, "kex-strict-s-v00@openssh.com", method)
	x.KS = ssh.Marshal(struct{ Type, Key string }{ssh.KeyAlgoED25519, strings.Repeat("k", 32)})
	number := func(n int64) []byte { return ssh.Marshal(struct{ N *big.Int }{big.NewInt(n)})[4:] }
	three := func(a, b []byte) []byte {
		return ssh.Marshal(struct{ A, B, K []byte }{a, b, []byte("secret")})
	}
	switch s, ok := sizes[method]; {
	case ok:
		x.Values = three(make([]byte, s[0]), make([]byte, s[1]))
	case strings.Contains(method, "exchange"):
		x.Values = exchanged(2048, 3072, 8192, group15, 2, 4711, 4712)
	default:
		x.Values = three(number(4711), number(4712))
	}
	return x, map[crypto.Hash]string{crypto.SHA1: "sha1", crypto.SHA256: "sha256", crypto.SHA384: "sha384", crypto.SHA512: "sha512"}[kexMethods[method].hash]
}

// exchanged are the values of RFC 4419.
func exchanged(least, n, most uint32, p *big.Int, g, e, f int64) []byte {
	return ssh.Marshal(struct {
		Min, N, Max   uint32
		P, G, E, F, K *big.Int
	}{least, n, most, p, big.NewInt(g), big.NewInt(e), big.NewInt(f), big.NewInt(99)})
}

func checkMethod(x transcript, hash string, offered []string, alg string) error {
	e, err := ParseExchange(ssh.Marshal(x), hash)
	if err != nil {
		return err
	}
	return e.CheckMethod(offered, alg)
}

// Each method that the configuration may name is one that factotum signs for, with its
// own hash and values and with no other's.
func TestAnExchangeIsOneOfTheMethodThatWasNegotiated(t *testing.T) {
	conf, err := sshdconf.Parse("/dev/null", nil)
	if err != nil {
		t.Fatal(err)
	}
	everything, err := sshdconf.Parse("/dev/null", []string{"KexAlgorithms *"})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range slices.Concat(conf.Global().KexAlgorithms, everything.Global().KexAlgorithms, ssh.SupportedAlgorithms().KeyExchanges) {
		if _, ok := kexMethods[m]; !ok {
			t.Errorf("%s is offered, and factotum signs for none", m)
		}
	}
	all := slices.Sorted(maps.Keys(kexMethods))
	for _, m := range all {
		x, hash := ofMethod(m)
		if err := checkMethod(x, hash, all, ssh.KeyAlgoED25519); err != nil {
			t.Errorf("%s: %v", m, err)
		}
		if checkMethod(x, hash, slices.DeleteFunc(slices.Clone(all), func(s string) bool { return strings.HasPrefix(m, s) }), ssh.KeyAlgoED25519) == nil {
			t.Errorf("%s is signed for and not offered", m)
		}
		for _, h := range []string{"sha1", "sha256", "sha384", "sha512"} {
			if h != hash && checkMethod(x, h, all, ssh.KeyAlgoED25519) == nil {
				t.Errorf("%s with %s is signed for", m, h)
			}
		}
		for _, other := range all {
			y, _ := ofMethod(other)
			same := len(x.Values) == len(y.Values) || strings.Contains(m, "-group1") && !strings.Contains(other, "exchange")
			x2 := x
			x2.Values = y.Values
			if err := checkMethod(x2, hash, all, ssh.KeyAlgoED25519); err == nil && !same {
				t.Errorf("%s with the values of %s is signed for", m, other)
			}
		}
	}
}

func TestWhatTheTwoSidesHaveNotNegotiatedIsRefused(t *testing.T) {
	const curve = "curve25519-sha256"
	all := slices.Sorted(maps.Keys(kexMethods))
	for what, change := range map[string]func(x *transcript, alg *string){
		"a method of the client alone": func(x *transcript, _ *string) { x.IC = kexInitOf(Nonce{9}, "ecdh-sha2-nistp256") },
		"no method of the client":      func(x *transcript, _ *string) { x.IC = kexInitOf(Nonce{9}) },
		"no method of the server":      func(x *transcript, _ *string) { x.IS = kexInitOf(nonce) },
		"another method first": func(x *transcript, _ *string) {
			x.IC = kexInitOf(Nonce{9}, "ext-info-c", curve)
			x.IS = kexInitOf(nonce, "ext-info-c", curve)
		},
		"another method by SHA-1": func(x *transcript, _ *string) {
			x.IC = kexInitOf(Nonce{9}, "diffie-hellman-group14-sha1")
			x.IS = kexInitOf(nonce, "diffie-hellman-group14-sha1")
		},
		"a method that nobody knows":  func(x *transcript, _ *string) { x.IC = kexInitOf(Nonce{9}, "x"); x.IS = kexInitOf(nonce, "x") },
		"an algorithm of another key": func(_ *transcript, alg *string) { *alg = ssh.KeyAlgoRSASHA512 },
		"the name of a certificate":   func(_ *transcript, alg *string) { *alg = ssh.CertAlgoED25519v01 },
		"a host key of another type": func(x *transcript, _ *string) {
			x.KS = ssh.Marshal(struct{ Type, Key string }{ssh.KeyAlgoECDSA256, "k"})
		},
		"a certificate": func(x *transcript, _ *string) {
			x.KS = ssh.Marshal(struct{ Type, Key string }{ssh.CertAlgoED25519v01, "k"})
		},
		"a host key that is not one": func(x *transcript, _ *string) { x.KS = []byte("k") },
		"a shorter public value": func(x *transcript, _ *string) {
			x.Values = ssh.Marshal(struct{ A, B, K []byte }{make([]byte, 31), make([]byte, 32), []byte("k")})
		},
		"the hash of a file as a value": func(x *transcript, _ *string) {
			x.Values = ssh.Marshal(struct{ A, B, K []byte }{sshsig, make([]byte, 32), []byte("k")})
		},
	} {
		x, hash := ofMethod(curve)
		alg := ssh.KeyAlgoED25519
		change(&x, &alg)
		if checkMethod(x, hash, all, alg) == nil {
			t.Errorf("%s is signed for", what)
		}
	}
}

// Somebody can make two transcripts with one hash by SHA-1: no server signs one that has
// not been told to.
func TestNoExchangeBySHA1IsSignedUnlessItIsNamed(t *testing.T) {
	conf, err := sshdconf.Parse("/dev/null", nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range slices.Sorted(maps.Keys(kexMethods)) {
		if kexMethods[m].hash != crypto.SHA1 {
			continue
		}
		n++
		x, hash := ofMethod(m)
		if err := checkMethod(x, hash, conf.Global().KexAlgorithms, ssh.KeyAlgoED25519); err == nil {
			t.Errorf("%s is signed for", m)
		}
		if err := checkMethod(x, hash, []string{m}, ssh.KeyAlgoED25519); err != nil {
			t.Errorf("%s is named: %v", m, err)
		}
	}
	if n != 3 {
		t.Errorf("%d methods by SHA-1", n)
	}
}

// A group that somebody chose may have no secrets (RFC 4419, section 7), and so may
// the values at a group's ends.
func TestAnUnsafeGroupIsRefused(t *testing.T) {
	all := slices.Sorted(maps.Keys(kexMethods))
	composite := new(big.Int).Add(group14, big.NewInt(2))
	negative := new(big.Int).Neg(group14)
	last := new(big.Int).Sub(group14, big.NewInt(1))
	const gex = "diffie-hellman-group-exchange-sha256"
	for what, values := range map[string][]byte{
		"another number":         exchanged(2048, 2048, 8192, composite, 2, 4711, 4712),
		"a small number":         exchanged(2048, 2048, 8192, big.NewInt(23), 2, 5, 6),
		"a negative one":         exchanged(2048, 2048, 8192, negative, 2, 4711, 4712),
		"another generator":      exchanged(2048, 2048, 8192, group14, 1, 4711, 4712),
		"e is 1":                 exchanged(2048, 2048, 8192, group14, 2, 1, 4712),
		"f is 0":                 exchanged(2048, 2048, 8192, group14, 2, 4711, 0),
		"e is negative":          exchanged(2048, 2048, 8192, group14, 2, -5, 4712),
		"smaller than asked for": exchanged(3072, 3072, 8192, group14, 2, 4711, 4712),
		"larger than asked for":  exchanged(2048, 2048, 2048, group16, 2, 4711, 4712),
		"sizes without an order": exchanged(4096, 2048, 8192, group16, 2, 4711, 4712),
	} {
		x, hash := ofMethod(gex)
		x.Values = values
		if checkMethod(x, hash, all, ssh.KeyAlgoED25519) == nil {
			t.Errorf("%s is signed for", what)
		}
	}
	for what, f := range map[string]*big.Int{"p-1": last, "p": group14, "0": new(big.Int), "1": big.NewInt(1), "-1": big.NewInt(-1)} {
		x, hash := ofMethod("diffie-hellman-group14-sha256")
		x.Values = ssh.Marshal(struct{ E, F, K *big.Int }{big.NewInt(4711), f, big.NewInt(99)})
		if checkMethod(x, hash, all, ssh.KeyAlgoED25519) == nil {
			t.Errorf("f is %s, and it is signed for", what)
		}
	}
	for _, p := range []*big.Int{group2, group14, group15, group16, group18} {
		if !p.ProbablyPrime(1) || !new(big.Int).Rsh(p, 1).ProbablyPrime(1) {
			t.Errorf("%d bits: not a safe prime", p.BitLen())
		}
	}
}

// FuzzCheckMethod: nothing makes it panic, and what passes has a method's values.
func FuzzCheckMethod(f *testing.F) {
	all := slices.Sorted(maps.Keys(kexMethods))
	for _, m := range all {
		x, hash := ofMethod(m)
		f.Add(ssh.Marshal(x), hash)
	}
	f.Fuzz(func(t *testing.T, b []byte, hash string) {
		e, err := ParseExchange(b, hash)
		if err != nil || e.CheckMethod(all, ssh.KeyAlgoED25519) != nil {
			return
		}
		m := negotiated(e.clientLists[0], e.serverLists[0])
		if kexMethods[m].hash != e.hash || kexMethods[m].values(e.values) != nil {
			t.Fatalf("%q passes as %s", b, m)
		}
	})
}
