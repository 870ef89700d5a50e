package daemon

import (
	"encoding/pem"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// skFile is what ssh-keygen -t ed25519-sk writes: an encoded key whose private half is
// the name that a security key has for it.
func skFile(cipher string, cut int) []byte {
	type str = []byte
	pub := ssh.Marshal(struct{ Type, Key, Application string }{ssh.KeyAlgoSKED25519, strings.Repeat("k", 32), "ssh:"})
	private := append(ssh.Marshal(struct {
		Check1, Check2         uint32
		Type, Key, Application string
		Flags                  byte
		Handle, Reserved       string
		Comment                string
	}{7, 7, ssh.KeyAlgoSKED25519, strings.Repeat("k", 32), "ssh:", 0x21, "handle", "", "root@host"}), 1, 2, 3)
	b := ssh.Marshal(struct {
		Cipher, KDF, Options string
		N                    uint32
		Public, Private      str
	}{cipher, "none", "", 1, pub, private[:len(private)-cut]})
	return pem.EncodeToMemory(&pem.Block{Type: skBlockType, Bytes: append([]byte(skKeyMagic), b...)})
}

func TestAKeyOfASecurityKeyIsReadWithoutItsCommentAndAsksForNoTouch(t *testing.T) {
	pub, half, err := parseSK(skFile("none", 0))
	if err != nil {
		t.Fatal(err)
	}
	want := string(ssh.Marshal(struct {
		Type, Key, Application string
		Flags                  byte
		Handle, Reserved       string
	}{ssh.KeyAlgoSKED25519, strings.Repeat("k", 32), "ssh:", 0x20, "handle", ""}))
	if string(half) != want || pub.Type() != ssh.KeyAlgoSKED25519 {
		t.Errorf("%s %q, want %q", pub.Type(), half, want)
	}
	for name, file := range map[string][]byte{
		"with a passphrase": skFile("aes256-ctr", 0), "cut": skFile("none", 30), "no PEM": []byte("x"), "empty": nil,
	} {
		if _, _, err := parseSK(file); err == nil {
			t.Errorf("%s: it is a key", name)
		}
	}
}

// FuzzSKKey reads a private key of a security key.
func FuzzSKKey(f *testing.F) {
	for _, file := range [][]byte{skFile("none", 0), skFile("none", 30)} {
		block, _ := pem.Decode(file)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, half, err := parseSK(pem.EncodeToMemory(&pem.Block{Type: skBlockType, Bytes: b}))
		if err == nil && len(half) > len(b) {
			t.Error("more than there was")
		}
	})
}

// FuzzSKAnswer reads what ssh-sk-helper may answer.
func FuzzSKAnswer(f *testing.F) {
	f.Add([]byte("\x05\x00\x00\x00\x01\x00\x00\x00\x12\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x00"))
	f.Add([]byte("\x05\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sig, err := skSignature(b)
		if err == nil && len(sig.Blob) > len(b) {
			t.Error("more than there was")
		}
	})
}
