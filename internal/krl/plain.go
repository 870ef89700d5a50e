package krl

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/words"
)

// plain parses a list of keys, one on each line. A key of a type that is not
// known here is kept as it is: it can never be offered either.
func (l *List) plain(b []byte) error {
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, maxLine)
	n := 0
	for s.Scan() {
		n++
		line := strings.Trim(s.Text(), " \t\r")
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			return fmt.Errorf("line %d: not a public key", n)
		}
		blob, err := base64.StdEncoding.DecodeString(f[1])
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		r := &reader{b: blob}
		if typ := r.str(); r.bad || string(typ) != f[0] {
			return fmt.Errorf("line %d: the key is not of type %q", n, words.Clip(f[0], 64))
		}
		if blob, err = canonical(blob); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		l.keys[string(blob)] = true
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

// knownTypes are those that x/crypto parses, so that a failure to parse one
// means a damaged key and not a strange one.
var knownTypes = []string{
	ssh.KeyAlgoRSA, ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, ssh.CertAlgoRSAv01, ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01,
	ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01, ssh.CertAlgoSKED25519v01, ssh.CertAlgoSKECDSA256v01,
}

// canonical returns a key's plain form: that of the key in it for a
// certificate, and encoded as key.Marshal of an offered key will be.
func canonical(blob []byte) ([]byte, error) {
	k, err := ssh.ParsePublicKey(blob)
	if err != nil {
		r := &reader{b: blob}
		if typ := string(r.str()); r.bad || slices.Contains(knownTypes, typ) {
			return nil, err
		}
		return blob, nil
	}
	return plainKey(k).Marshal(), nil
}

func plainKey(k ssh.PublicKey) ssh.PublicKey {
	if c, ok := k.(*ssh.Certificate); ok {
		return c.Key
	}
	return k
}
