package sshauth

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// A kexMethod is a key exchange method: its hash, and what its values look like.
type kexMethod struct {
	hash   crypto.Hash
	values func(rest []byte) error // after K_S
}

// kexMethods are those that sshfront has. Who may use those by SHA-1, of which two
// transcripts with one hash can be made, KexAlgorithms says: no default has them.
var kexMethods = map[string]kexMethod{
	"curve25519-sha256":                    {crypto.SHA256, points(32, 32)},     // RFC 8731
	"curve25519-sha256@libssh.org":         {crypto.SHA256, points(32, 32)},     // its older name
	"ecdh-sha2-nistp256":                   {crypto.SHA256, points(65, 65)},     // RFC 5656
	"ecdh-sha2-nistp384":                   {crypto.SHA384, points(97, 97)},     //
	"ecdh-sha2-nistp521":                   {crypto.SHA512, points(133, 133)},   //
	"mlkem768x25519-sha256":                {crypto.SHA256, points(1216, 1120)}, // draft-ietf-sshm-mlkem-hybrid-kex
	"sntrup761x25519-sha512":               {crypto.SHA512, points(1190, 1071)}, // draft-ietf-sshm-ntruprime-ssh
	"sntrup761x25519-sha512@openssh.com":   {crypto.SHA512, points(1190, 1071)}, // its older name
	"diffie-hellman-group14-sha256":        {crypto.SHA256, numbers(group14)},   // RFC 8268
	"diffie-hellman-group16-sha512":        {crypto.SHA512, numbers(group16)},   //
	"diffie-hellman-group18-sha512":        {crypto.SHA512, numbers(group18)},   //
	"diffie-hellman-group-exchange-sha256": {crypto.SHA256, exchangedGroup},     // RFC 4419
	"diffie-hellman-group1-sha1":           {crypto.SHA1, numbers(group2)},      // RFC 4253
	"diffie-hellman-group14-sha1":          {crypto.SHA1, numbers(group14)},     //
	"diffie-hellman-group-exchange-sha1":   {crypto.SHA1, exchangedGroup},       // RFC 4419
}

// CheckMethod says what is wrong with the exchange as one of the method and the host
// key algorithm that the two sides have negotiated (RFC 4253, section 7.1): the method
// must be offered, and have that hash and those values; the algorithm must be the host
// key's, and sign in format alg.
func (e *Exchange) CheckMethod(offered []string, alg string) error {
	name := negotiated(e.clientLists[0], e.serverLists[0])
	m, ok := kexMethods[name]
	if !ok || !offers(offered, name) {
		return fmt.Errorf("the key exchange method that was negotiated, %.60q, is not offered", name)
	}
	if e.hash != m.hash {
		return fmt.Errorf("the hash is not that of %s", name)
	}
	if err := m.values(e.values); err != nil {
		return fmt.Errorf("the values are not those of %s: %w", name, err)
	}
	keyType, _, ok := cutStrings(e.hostKey, 1)
	hostKeyAlg := negotiated(e.clientLists[1], e.serverLists[1])
	if !ok || !slices.Contains(AlgorithmsOf(string(keyType[0])), hostKeyAlg) || SignatureFormat(hostKeyAlg) != alg {
		return fmt.Errorf("the host key algorithm that was negotiated, %.60q, is not %.60q of K_S", hostKeyAlg, alg)
	}
	return nil
}

// negotiated is the first name of the client's list that the server's has too.
func negotiated(client, server []byte) string {
	ours := bytes.Split(server, []byte{','})
	for name := range bytes.SplitSeq(client, []byte{','}) {
		if len(name) > 0 && slices.ContainsFunc(ours, func(s []byte) bool { return bytes.Equal(s, name) }) {
			return string(name)
		}
	}
	return ""
}

// offers reports whether a method is among those that are offered. The library offers
// curve25519-sha256 by both its names.
func offers(offered []string, name string) bool {
	return slices.Contains(offered, name) || name == "curve25519-sha256@libssh.org" && slices.Contains(offered, "curve25519-sha256")
}

// points are two public values of that many bytes, and the shared secret.
func points(client, server int) func([]byte) error {
	return func(rest []byte) error {
		v, ok := valuesOf(rest, 3)
		switch {
		case !ok:
			return errors.New("not two public values and a secret")
		case len(v[0]) != client || len(v[1]) != server:
			return fmt.Errorf("public values of %d and %d bytes", len(v[0]), len(v[1]))
		}
		return nil
	}
}

// numbers are e, f and K of a group.
func numbers(p *big.Int) func([]byte) error {
	return func(rest []byte) error {
		v, ok := valuesOf(rest, 3)
		if !ok {
			return errors.New("not two public values and a secret")
		}
		return inGroup(p, v[0], v[1])
	}
}

// inGroup says what is wrong with two public values of a group (RFC 4253, section 8):
// those at its ends make the secret known to all.
func inGroup(p *big.Int, values ...[]byte) error {
	last := new(big.Int).Sub(p, big.NewInt(1))
	for _, v := range values {
		n := new(big.Int).SetBytes(v)
		if v[0]&0x80 != 0 || n.Cmp(big.NewInt(1)) <= 0 || n.Cmp(last) >= 0 {
			return errors.New("a public value that is not one of the group")
		}
	}
	return nil
}

// exchangeGroups are those that a group exchange gives.
var exchangeGroups = []*big.Int{group14, group15, group16, group18}

// exchangedGroup are min, n and max, the group, which must be one of RFC 3526, and e,
// f and K.
func exchangedGroup(rest []byte) error {
	if len(rest) < 12 {
		return errors.New("no sizes")
	}
	least, n, most := binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:]), binary.BigEndian.Uint32(rest[8:])
	v, ok := valuesOf(rest[12:], 5)
	if !ok {
		return errors.New("not a group, two public values and a secret")
	}
	p, g := new(big.Int).SetBytes(v[0]), new(big.Int).SetBytes(v[1])
	bits := uint32(p.BitLen())
	switch {
	case v[0][0]&0x80 != 0, !slices.ContainsFunc(exchangeGroups, func(known *big.Int) bool { return p.Cmp(known) == 0 }), g.Cmp(big.NewInt(2)) != 0:
		return errors.New("a group that is not one of RFC 3526")
	case least > n || n > most || bits < least || bits > most:
		return fmt.Errorf("a group of %d bits for min=%d, n=%d, max=%d", bits, least, n, most)
	}
	return inGroup(p, v[2], v[3])
}
