package krl

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sshkey"
)

// keygen runs the real ssh-keygen in dir.
func keygen(t testing.TB, dir string, args ...string) ([]byte, error) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command("ssh-keygen", args...)
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

func mustKeygen(t testing.TB, dir string, args ...string) {
	t.Helper()
	if out, err := keygen(t, dir, args...); err != nil {
		t.Fatalf("ssh-keygen %v: %v: %s", args, err, out)
	}
}

// parsed is a key as the worker has it.
func parsed(t testing.TB, k ssh.PublicKey) sshkey.Key {
	t.Helper()
	p, err := sshkey.Parse(k.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func readKey(t testing.TB, file string) ssh.PublicKey {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	k, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestEveryKeyIsRevokedHereThatSshKeygenSaysIsRevoked(t *testing.T) {
	if testing.Short() {
		t.Skip("asks ssh-keygen several hundred times")
	}
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, typ := range map[string]string{"ca": "ed25519", "ca2": "ecdsa", "a": "ed25519", "b": "ecdsa", "c": "rsa"} {
		mustKeygen(t, dir, "-q", "-t", typ, "-N", "", "-C", name, "-f", name)
	}
	pubs := []string{"a.pub", "b.pub", "c.pub", "ca.pub"}
	// Certificates of both CAs: serials and key IDs.
	for _, n := range []int{0, 1, 2, 3, 9, 10, 11, 40, 42, 43, 1000, 2000} {
		for _, ca := range []string{"ca", "ca2"} {
			name := fmt.Sprintf("%s-%d", ca, n)
			b, err := os.ReadFile(filepath.Join(dir, "a.pub"))
			if err != nil {
				t.Fatal(err)
			}
			if n%2 == 0 {
				b, _ = os.ReadFile(filepath.Join(dir, "b.pub"))
			}
			write(name+".pub", string(b))
			mustKeygen(t, dir, "-q", "-s", ca, "-I", "id"+fmt.Sprint(n), "-n", "alice", "-z", fmt.Sprint(n), name+".pub")
			pubs = append(pubs, name+"-cert.pub")
		}
	}
	fp := func(name string) string {
		return ssh.FingerprintSHA256(readKey(t, filepath.Join(dir, name)))
	}
	b64 := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(dir, name))
		return strings.TrimSpace(string(b))
	}
	for name, c := range map[string]struct {
		spec string
		args []string
	}{
		"nothing":              {"# empty\n", nil},
		"keys":                 {b64("c.pub") + "\n", nil},
		"explicit keys":        {"key: " + b64("a.pub") + "\n", nil},
		"sha1":                 {"sha1: " + b64("b.pub") + "\n", nil},
		"sha256":               {"sha256: " + b64("b.pub") + "\n", nil},
		"hash":                 {"hash: " + fp("c.pub") + "\n", nil},
		"serials":              {"serial: 1\nserial: 40\n", []string{"-s", "ca.pub"}},
		"a range":              {"serial: 2-41\n", []string{"-s", "ca.pub"}},
		"a bitmap":             {"serial: 1\nserial: 3\nserial: 9\nserial: 10\nserial: 42\nserial: 43\nserial: 45\nserial: 47\n", []string{"-s", "ca.pub"}},
		"much at once":         {"serial: 1-10\nserial: 11\nserial: 1000-3000\nserial: 18446744073709551615\nid: id43\n", []string{"-s", "ca2.pub"}},
		"key IDs":              {"id: id3\nid: id40\n", []string{"-s", "ca.pub"}},
		"key IDs of every CA":  {"id: id3\nid: id40\nserial: 2\n", []string{"-s", "none"}},
		"the CA":               {b64("ca.pub") + "\n", nil},
		"a certificate's self": {b64("ca-9-cert.pub") + "\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			write("spec", c.spec)
			mustKeygen(t, dir, append(append([]string{"-q", "-k", "-f", "krl", "-z", "7"}, c.args...), "spec")...)
			f, err := os.Open(filepath.Join(dir, "krl"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			l, err := Read(f)
			if err != nil {
				t.Fatal(err)
			}
			if l.Version != 7 || l.Generated.Year() < 2020 {
				t.Errorf("version %d, generated %v", l.Version, l.Generated)
			}
			revoked := 0
			for _, p := range pubs {
				// ssh-keygen -Q exits 1 if the key is revoked.
				out, err := keygen(t, dir, "-Q", "-f", "krl", p)
				want := err != nil
				if want != strings.Contains(string(out), "REVOKED") {
					t.Fatalf("ssh-keygen -Q: %v: %s", err, out)
				}
				if got := l.IsRevoked(parsed(t, readKey(t, filepath.Join(dir, p)))); got != want {
					t.Errorf("%s: revoked %v, ssh-keygen says %v", p, got, want)
				}
				if want {
					revoked++
				}
			}
			if (revoked > 0) != (name != "nothing") || revoked == len(pubs) {
				t.Errorf("%d of %d revoked: the test shows nothing", revoked, len(pubs))
			}
		})
	}
}

func newKey(t testing.TB) (ssh.PublicKey, ssh.Signer) {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return s.PublicKey(), s
}

func TestAPlainListRevokesKeysTheirCertificatesAndThoseOfAListedCA(t *testing.T) {
	listed, signer := newKey(t)
	other, otherSigner := newKey(t)
	text := "# gone\n\n  " + string(ssh.MarshalAuthorizedKey(listed)) + "future@example.org " +
		"AAAAEmZ1dHVyZUBleGFtcGxlLm9yZwAAAAFh comment\n"
	l, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	cert := func(k ssh.PublicKey, by ssh.Signer) ssh.PublicKey {
		c := &ssh.Certificate{Key: k, CertType: ssh.UserCert, Serial: 1}
		if err := c.SignCert(rand.Reader, by); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for name, c := range map[string]struct {
		k    ssh.PublicKey
		want bool
	}{
		"the key":                        {listed, true},
		"another":                        {other, false},
		"a certificate for the key":      {cert(listed, otherSigner), true},
		"a certificate by the key":       {cert(other, signer), true},
		"a certificate of other parties": {cert(other, otherSigner), false},
	} {
		if got := l.IsRevoked(parsed(t, c.k)); got != c.want {
			t.Errorf("%s: revoked %v", name, got)
		}
	}
}

func str(s string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func u64(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

func header() string {
	return magic + "\x00\x00\x00\x01" + u64(1) + u64(2) + u64(0) + str("") + str("note")
}

func certSection(body string) string { return header() + "\x01" + str(str("")+str("")+body) }

func TestAListThatIsNotUnderstoodIsAnError(t *testing.T) {
	whole := certSection("\x20" + str(u64(1)))
	if _, err := Parse([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for n := len(magic); n < len(whole); n++ {
		if n != len(header()) && parses(whole[:n]) {
			t.Errorf("the first %d of %d bytes passed", n, len(whole))
		}
	}
	for name, s := range map[string]string{
		"another version":              magic + "\x00\x00\x00\x02" + header()[12:],
		"a signature":                  header() + "\x04" + str("k") + str("s"),
		"an unknown section":           header() + "\x09" + str("x"),
		"a critical extension":         header() + "\xff" + str(str("x@y")+"\x01"+str("")),
		"a short extension":            header() + "\xff" + str(str("x@y")),
		"an empty key section":         header() + "\x02" + str(""),
		"a short hash":                 header() + "\x05" + str(str("abc")),
		"data after a section":         certSection("\x21" + str(u64(1)+u64(2)+"x")),
		"an unknown cert section":      certSection("\x30" + str("x")),
		"a critical cert extension":    certSection("\x39" + str(str("x@y")+"\x01"+str(""))),
		"a backward range":             certSection("\x21" + str(u64(2)+u64(1))),
		"a short serial":               certSection("\x20" + str("abc")),
		"a negative bitmap":            certSection("\x22" + str(u64(1)+str("\x80"))),
		"a bitmap beyond 2^64":         certSection("\x22" + str(u64(1<<64-2)+str("\x04"))),
		"an empty key ID section":      certSection("\x23" + str("")),
		"a bad CA key":                 header() + "\x01" + str(str("ssh-ed25519")+str("")),
		"a plain line that is no key":  "hello\n",
		"a plain line of another type": "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==\n",
		"a damaged plain key":          "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==\n",
		"a line without end":           strings.Repeat("#", maxLine+1),
	} {
		if parses(s) {
			t.Errorf("%s passed", name)
		}
	}
	for name, s := range map[string]string{
		"an extension that is not critical": header() + "\xff" + str(str("x@y")+"\x00"+str("z")),
		"a bitmap up to 2^64-1":             certSection("\x22" + str(u64(1<<64-2)+str("\x02"))),
		"an empty bitmap":                   certSection("\x22" + str(u64(5)+str(""))),
	} {
		if !parses(s) {
			t.Errorf("%s is refused", name)
		}
	}
}

func parses(s string) bool {
	_, err := Parse([]byte(s))
	return err == nil
}

func FuzzParse(f *testing.F) {
	k, s := newKey(f)
	c := &ssh.Certificate{Key: k, Serial: 5, KeyId: "id"}
	if err := c.SignCert(rand.Reader, s); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(certSection("\x20" + str(u64(1)) + "\x21" + str(u64(1)+u64(9)) + "\x22" + str(u64(4)+str("\x02")) + "\x23" + str(str("id")))))
	f.Add([]byte(header() + "\x05" + str(str(strings.Repeat("h", 32))) + "\xff" + str(str("x")+"\x00"+str(""))))
	f.Add(ssh.MarshalAuthorizedKey(k))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse(b)
		if err != nil {
			return
		}
		l.IsRevoked(parsed(t, k))
		l.IsRevoked(parsed(t, c))
	})
}
