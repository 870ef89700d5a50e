package sshkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"maps"
	"slices"
	"testing"

	"golang.org/x/crypto/ssh"
)

// keys are one of each type, and a certificate for each.
func keys(t testing.TB) []ssh.PublicKey {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private := []crypto.Signer{ed, rs}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		private = append(private, k)
	}
	var all []ssh.PublicKey
	for _, k := range private {
		p, err := ssh.NewPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	k, _, _, _, err := ssh.ParseAuthorizedKey([]byte("sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIKFyz3WSBxBgLYVU0pNm0/lPyM6hZHFPNJuQ1bnUpxW7AAAABHNzaDo="))
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, k)
	k, _, _, _, err = ssh.ParseAuthorizedKey([]byte("ssh-dss AAAAB3NzaC1kc3MAAACBAIXUcYKNSjnps7ulP5Kvnck+W2Ao0/D8ke3qcA6MniiTrzGXu+cx6FUp8i4D3L69cUUQGLPra8LqC9L4wLg0YWZn9QQ61BK0lpQDtJVDCblDCvQKmkpYZXhE3QFFjRl2zg/uTCBSu8ugcb5bvHa0X6xcgvt3PblcOK3sBsdDNX17AAAAFQCyNQFdTBj4iMxGiVigLLOq65kpWwAAAIAnJzHHJDuB+ajidHQ90npKkFVMuvQGz3jqQhE6hNtOUq0EXTZAJ0lkTAIFz+xyL94hupymg5jC20bUWsvazCxOfYL/0SAUbLVovSrKZ5lKFXxrI9mnxgOM0fHsYhO6pYgYMvzPXckf47o4pckJ2uiZihTIRs/kPaC08yzmqwRexwAAAIAJtT8JlZ1vcQELL3EYBis9xwvGeTdYLx5Ie1/fHbvOWE+q1PMcP5aAw8RQJDGLr0YLqpzINkCZ8/QB9egnOuVoruuSX7hmfLdIkt79rcaF/yyQF0MkhVo6b4q/KnOTBdHv/pp649otmsmCn0SLWkvBfJZOQTIt78AdwQLZeXVL6g=="))
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, k)
	sk := ssh.Marshal(struct {
		Type, Curve string
		Point       []byte
		Application string
	}{SKECDSA, "nistp256", must(private[2].Public().(*ecdsa.PublicKey).Bytes()), "ssh:"})
	k, err = ssh.ParsePublicKey(sk)
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, k)
	for i, k := range slices.Clone(all) {
		authority, err := ssh.NewSignerFromSigner(private[i%len(private)])
		if err != nil {
			t.Fatal(err)
		}
		c := &ssh.Certificate{Key: k, Serial: uint64(i) << 60, CertType: uint32(1 + i%2), KeyId: "id", ValidAfter: 7, ValidBefore: ssh.CertTimeInfinity - uint64(i)}
		if i > 0 {
			c.ValidPrincipals = []string{"alice", "", "bob"}
			c.CriticalOptions = map[string]string{"force-command": "a b", "verify-required": ""}
			c.Extensions = map[string]string{"permit-pty": "", "x@y": "z"}
		}
		if err := c.SignCert(rand.Reader, authority); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// same compares with what the library reads.
func same(t *testing.T, k Key, l ssh.PublicKey) {
	t.Helper()
	if k.Type != l.Type() || !bytes.Equal(k.Blob, l.Marshal()) {
		t.Errorf("%s %x; the library reads %s %x", k.Type, k.Blob, l.Type(), l.Marshal())
	}
	if k.Fingerprint("sha256") != ssh.FingerprintSHA256(l) || k.Fingerprint("md5") != "MD5:"+ssh.FingerprintLegacyMD5(l) {
		t.Errorf("%s: fingerprints %s, %s", k.Type, k.Fingerprint("sha256"), k.Fingerprint("md5"))
	}
	c, isCert := l.(*ssh.Certificate)
	if isCert != (k.Cert != nil) {
		t.Fatalf("%s: certificate %v; the library says %v", k.Type, k.Cert != nil, isCert)
	}
	if !isCert {
		return
	}
	same(t, k.Plain(), c.Key)
	same(t, k.Cert.Authority, c.SignatureKey)
	if k := k.Cert; k.Serial != c.Serial || k.Type != c.CertType || k.ID != c.KeyId || !slices.Equal(k.Principals, c.ValidPrincipals) ||
		k.ValidAfter != c.ValidAfter || k.ValidBefore != c.ValidBefore || !maps.Equal(k.CriticalOptions, c.CriticalOptions) ||
		!maps.Equal(k.Extensions, c.Extensions) || k.SignatureFormat != c.Signature.Format {
		t.Errorf("%+v; the library reads %+v", k, c)
	}
}

func TestKeysAreReadAsTheLibraryReadsThem(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range keys(t) {
		k, err := Parse(l.Marshal())
		if err != nil {
			t.Errorf("%s: %v", l.Type(), err)
			continue
		}
		same(t, k, l)
		seen[k.Type] = true
	}
	if len(seen) != len(types)+len(certificates) {
		t.Errorf("seen were %d types of %d", len(seen), len(types)+len(certificates))
	}
}

func TestWhatIsCutOrLongerIsDamaged(t *testing.T) {
	for _, l := range keys(t) {
		b := l.Marshal()
		for n := range len(b) {
			if k, err := Parse(b[:n]); err == nil {
				t.Errorf("%s: the first %d of %d bytes are %+v", l.Type(), n, len(b), k)
			}
		}
		if _, err := Parse(append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("%s with a byte more", l.Type())
		}
	}
}

func TestAKeyOfAnotherTypeIsSaidToBe(t *testing.T) {
	for _, typ := range []string{"ssh-xmss@openssh.com", "future@example.org", ""} {
		if _, err := Parse(appendString(nil, []byte(typ))); err != ErrUnknownType {
			t.Errorf("%q: %v", typ, err)
		}
	}
}

// What the library reads is read alike, but for what is newer; what it does not
// read may be read here, as a point that is on no curve.
func FuzzParse(f *testing.F) {
	for _, k := range keys(f) {
		f.Add(k.Marshal())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := Parse(b)
		l, libraryErr := ssh.ParsePublicKey(b)
		switch {
		case libraryErr != nil:
			return
		case err == nil:
			if bytes.Equal(l.Marshal(), b) {
				same(t, k, l)
			}
		default:
			if _, known := types[l.Type()]; known && bytes.Equal(l.Marshal(), b) {
				t.Errorf("%s: %v", l.Type(), err)
			}
		}
	})
}
