package krl

import (
	"slices"

	"golang.org/x/crypto/ssh"
)

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
