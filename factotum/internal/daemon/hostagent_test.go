package daemon

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A hostile agent answers with what a test wants.
func TestNothingThatAnAgentAnswersIsASignatureUnlessItVerifies(t *testing.T) {
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, 32)))
	must(err)
	other, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{4}, 32)))
	must(err)
	data := []byte("an exchange hash")
	signed := func(s ssh.Signer, data []byte) []byte {
		sig, err := s.Sign(nil, data)
		must(err)
		return append([]byte{agentSignResponse}, ssh.Marshal(struct{ S []byte }{ssh.Marshal(sig)})...)
	}
	framed := func(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }
	good := signed(signer, data)
	for name, c := range map[string]struct {
		answer []byte
		want   string // part of the error; "" is none
	}{
		"a signature":              {framed(good), ""},
		"another key's":            {framed(signed(other, data)), "does not verify"},
		"of other data":            {framed(signed(signer, []byte("other"))), "does not verify"},
		"another format":           {framed(bytes.Replace(good, []byte("ssh-ed25519"), []byte("ssh-ed25518"), 1)), "signs in format"},
		"a refusal":                {framed([]byte{5}), "does not sign with this key"},
		"an empty answer":          {framed(nil), "does not sign with this key"},
		"an answer that is cut":    {framed(good)[:20], "EOF"},
		"no answer":                {nil, "EOF"},
		"an answer without end":    {[]byte{0xff, 0xff, 0xff, 0xff}, "an answer of 4294967295 bytes"},
		"a signature that is none": {framed([]byte{agentSignResponse, 0, 0, 0, 1, 0}), "unmarshal error"},
		"bytes after it":           {framed(append(bytes.Clone(good), 0)), "ssh: "},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "agent")
			l, err := net.Listen("unix", socket)
			must(err)
			defer l.Close()
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				readFramed(conn)
				conn.Write(c.answer)
			}()
			k := agentKey(socket, signer.PublicKey())
			_, err = k.SignWithAlgorithm(nil, data, "ssh-ed25519")
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v", err)
			}
		})
	}
}

// FuzzAgentAnswer reads what an agent may answer.
func FuzzAgentAnswer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 5})
	f.Add([]byte("\x00\x00\x00\x17\x0e\x00\x00\x00\x12\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		answer, err := readFramed(bytes.NewReader(b))
		if len(answer) > maxAnswer {
			t.Errorf("%d bytes were read", len(answer))
		}
		if err == nil {
			agentSignature(answer)
		}
	})
}
