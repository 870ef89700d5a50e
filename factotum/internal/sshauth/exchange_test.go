package sshauth

import (
	"bytes"
	"crypto"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// kexInitOf is a SSH_MSG_KEXINIT (RFC 4253, section 7.1).
func kexInitOf(cookie Nonce, kex ...string) []byte {
	return ssh.Marshal(struct {
		Type                         byte
		Cookie                       [16]byte
		A, B, C, D, E, F, G, H, I, J []string
		Follows                      bool
		Reserved                     uint32
	}{Type: 20, Cookie: cookie, A: kex, B: []string{"ssh-ed25519"}, C: []string{"aes128-ctr"}, D: []string{"aes128-ctr"}})
}

// A transcript is what all methods have in common, and the values of one.
type transcript struct {
	VC, VS     string
	IC, IS, KS []byte
	Values     []byte `ssh:"rest"`
}

const version = "SSH-2.0-p9auth"

var (
	nonce   = Nonce{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	hostKey = []byte("the host key")
	// Two public values and the shared secret, and the same after a group.
	ecdh  = ssh.Marshal(struct{ Theirs, Ours, Secret string }{"Q_C", "Q_S", "K"})
	group = ssh.Marshal(struct {
		Min, N, Max     uint32
		P, G, E, F, Key string
	}{2048, 3072, 8192, "p", "g", "e", "f", "K"})
)

func honest() transcript {
	return transcript{"SSH-2.0-OpenSSH_10.0 Debian", version, kexInitOf(Nonce{9}, "curve25519-sha256", "ext-info-c"), kexInitOf(nonce, "curve25519-sha256"), hostKey, ecdh}
}

func TestAnExchangeOfThisServerIsHashedWhole(t *testing.T) {
	for name, h := range map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512} {
		for _, values := range [][]byte{ecdh, group} {
			x := honest()
			x.Values = values
			b := ssh.Marshal(x)
			e, err := ParseExchange(b, name)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Check(version, nonce, hostKey); err != nil {
				t.Error(err)
			}
			want := h.New()
			want.Write(b)
			if !bytes.Equal(e.Hash(), want.Sum(nil)) {
				t.Errorf("%s: another hash", name)
			}
		}
	}
}

// sshsig is what ssh-keygen -Y signs (PROTOCOL.sshsig of OpenSSH).
var sshsig = ssh.Marshal(struct {
	Magic                          [6]byte
	Namespace, Reserved, Hash, Sum string
}{[6]byte([]byte("SSHSIG")), "file", "", "sha256", strings.Repeat("x", 32)})

func TestWhatIsNotAnExchangeOfThisServerIsRefused(t *testing.T) {
	whole := ssh.Marshal(honest())
	lies := map[string][]byte{
		"nothing": nil, "a hash": make([]byte, 32), "a longer hash": make([]byte, 64), "an SSHSIG": sshsig,
		"too much": append(slices.Clone(whole), make([]byte, MaxTranscript)...), "bytes after it": append(slices.Clone(whole), 0),
		"a string after it": append(slices.Clone(whole), 0, 0, 0, 1, 1),
	}
	for n := range whole {
		lies[fmt.Sprintf("the first %d bytes", n)] = whole[:n]
	}
	about := func(what string, change func(x *transcript)) {
		x := honest()
		change(&x)
		lies[what] = ssh.Marshal(x)
	}
	about("no version of the client", func(x *transcript) { x.VC = "" })
	about("a client that is not one of SSH", func(x *transcript) { x.VC = "SSHSIG" })
	about("a client's version of two lines", func(x *transcript) { x.VC += "\r\n" })
	about("a long version of the client", func(x *transcript) { x.VC += strings.Repeat("x", 256) })
	about("another version", func(x *transcript) { x.VS = "SSH-2.0-p9auth x" })
	about("no KEXINIT of the client", func(x *transcript) { x.IC = nil })
	about("another packet of the client", func(x *transcript) { x.IC[0] = 30 })
	about("no KEXINIT of the server", func(x *transcript) { x.IS = nil })
	about("another packet of the server", func(x *transcript) { x.IS[0] = 21 })
	about("bytes after I_S", func(x *transcript) { x.IS = append(x.IS, 0) })
	about("I_S cut short", func(x *transcript) { x.IS = x.IS[:len(x.IS)-1] })
	about("bytes after I_C", func(x *transcript) { x.IC = append(x.IC, 0) })
	about("names that are not ASCII", func(x *transcript) { x.IS[1+16+4] = 0x80 })
	about("a name with a NUL", func(x *transcript) { x.IS[1+16+4] = 0 })
	about("another cookie", func(x *transcript) { x.IS[1+15]++ })
	about("the nonce as the client's cookie", func(x *transcript) { x.IC, x.IS = x.IS, x.IC })
	about("another host key", func(x *transcript) { x.KS = []byte("another key!") })
	about("no host key", func(x *transcript) { x.KS = nil })
	about("no shared secret", func(x *transcript) { x.Values = x.Values[:len(x.Values)-5] })
	about("an empty shared secret", func(x *transcript) { x.Values = append(x.Values[:len(x.Values)-5:len(x.Values)-5], 0, 0, 0, 0) })
	about("no group", func(x *transcript) { x.Values = group[12:] })
	about("half a group", func(x *transcript) { x.Values = group[:len(group)-1] })
	for what, b := range lies {
		e, err := ParseExchange(b, "sha256")
		if err == nil && e.Check(version, nonce, hostKey) == nil {
			t.Errorf("%s is signed", what)
		}
	}
	for _, hash := range []string{"", "SHA1", "md5", "SHA256", "sha224"} {
		if _, err := ParseExchange(whole, hash); err == nil {
			t.Errorf("the hash %q is taken", hash)
		}
	}
}

// FuzzParseExchange: nothing makes the parser panic, and what is signed has a
// transcript's form: built again from its parts it is the same.
func FuzzParseExchange(f *testing.F) {
	f.Add(ssh.Marshal(honest()), "sha256")
	x := honest()
	x.Values = group
	f.Add(ssh.Marshal(x), "sha512")
	f.Add(sshsig, "sha384")
	f.Add([]byte{0, 0, 0, 4, 'S', 'S', 'H', '-', 0xff, 0xff, 0xff, 0xff}, "sha256")
	f.Fuzz(func(t *testing.T, b []byte, hash string) {
		e, err := ParseExchange(b, hash)
		if err != nil || e.Check(version, nonce, hostKey) != nil {
			return
		}
		var x struct {
			VC, VS     string
			IC, IS, KS []byte
			Values     []byte `ssh:"rest"`
		}
		if err := ssh.Unmarshal(b, &x); err != nil || !bytes.Equal(ssh.Marshal(x), b) {
			t.Fatalf("%x is signed: %v", b, err)
		}
		var init struct {
			Cookie                       [16]byte `sshtype:"20"`
			A, B, C, D, E, F, G, H, I, J []string
			Follows                      bool
			Reserved                     uint32
		}
		if err := ssh.Unmarshal(x.IS, &init); err != nil || init.Cookie != nonce || x.VS != version || !bytes.Equal(x.KS, hostKey) {
			t.Fatalf("%x is signed: %v", b, err)
		}
	})
}

func TestAHostKeySignsForItsOwnAlgorithmsThatAreOffered(t *testing.T) {
	for _, c := range []struct {
		keyType, alg, offered string
		want                  bool
	}{
		{ssh.KeyAlgoED25519, ssh.KeyAlgoED25519, ssh.KeyAlgoED25519, true},
		{ssh.KeyAlgoRSA, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA256, true},
		{ssh.KeyAlgoRSA, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512, false},
		{ssh.KeyAlgoRSA, ssh.KeyAlgoRSA, ssh.KeyAlgoRSASHA256, false},
		{ssh.KeyAlgoRSA, ssh.KeyAlgoRSA, ssh.KeyAlgoRSA, true},
		{ssh.CertAlgoRSAv01, ssh.KeyAlgoRSA, ssh.KeyAlgoRSA, false},
		{ssh.CertAlgoRSAv01, ssh.KeyAlgoRSASHA512, ssh.CertAlgoRSASHA512v01, true},
		{ssh.CertAlgoRSAv01, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA512, false},
		{ssh.CertAlgoED25519v01, ssh.KeyAlgoED25519, ssh.CertAlgoED25519v01, true},
		{ssh.CertAlgoED25519v01, ssh.CertAlgoED25519v01, ssh.CertAlgoED25519v01, false},
		{ssh.KeyAlgoED25519, ssh.KeyAlgoED25519, ssh.CertAlgoED25519v01, false},
	} {
		if got := SignsFor(c.keyType, c.alg, []string{"x", c.offered}); got != c.want {
			t.Errorf("%s for %s of %s: %v", c.alg, c.offered, c.keyType, got)
		}
	}
}

func TestKeyExchangesWithoutAPauseAreSlowedDown(t *testing.T) {
	var p Pace
	now := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	for i := range ExchangesAtOnce {
		if w := p.Next(now); w != 0 {
			t.Fatalf("exchange %d waits %v", i, w)
		}
	}
	for i := range 100 {
		w := p.Next(now)
		if w != ExchangeEvery {
			t.Fatalf("exchange %d after those waits %v", i, w)
		}
		now = now.Add(w)
	}
	if w := p.Next(now.Add(time.Hour)); w != 0 {
		t.Errorf("an hour later one waits %v", w)
	}
}
