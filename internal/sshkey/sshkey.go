// Package sshkey reads public keys and certificates of SSH as far as it takes to
// compare them and to say what a certificate says. It verifies no signature and
// does no arithmetic: that is factotum's, which parses every key that a client
// offers with golang.org/x/crypto/ssh before anybody else sees it. The PAM worker
// and the user program, of which there is one for each session, do not link that
// library.
package sshkey

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The types of keys (RFC 4253 section 6.6, RFC 5656, RFC 8709, OpenSSH's PROTOCOL.u2f).
const (
	RSA       = "ssh-rsa"
	DSA       = "ssh-dss"
	ED25519   = "ssh-ed25519"
	ECDSA256  = "ecdsa-sha2-nistp256"
	ECDSA384  = "ecdsa-sha2-nistp384"
	ECDSA521  = "ecdsa-sha2-nistp521"
	SKED25519 = "sk-ssh-ed25519@openssh.com"
	SKECDSA   = "sk-ecdsa-sha2-nistp256@openssh.com"
)

// A Key is a public key or a certificate.
type Key struct {
	Type string       // such as "ssh-ed25519" or "ssh-ed25519-cert-v01@openssh.com"
	Blob []byte       // its encoding (RFC 4253 section 6.6), in which it has no other
	Cert *Certificate // nil for a plain key
}

// A Certificate is what one says (OpenSSH's PROTOCOL.certkeys).
type Certificate struct {
	Key         Key // plain
	Serial      uint64
	Type        uint32
	ID          string
	Principals  []string
	ValidAfter  uint64 // seconds since 1970, the first that is valid
	ValidBefore uint64 // seconds since 1970, the first that is not; Forever is none

	CriticalOptions map[string]string
	Extensions      map[string]string

	Authority       Key    // who has signed it; no certificate
	SignatureFormat string // such as "rsa-sha2-512"
}

const (
	UserCert = 1 // Certificate.Type of a certificate for users
	HostCert = 2 // and for hosts

	Forever = 1<<64 - 1 // Certificate.ValidBefore of one that does not expire
)

// ErrUnknownType is the error of a key of a type that is not among those above.
var ErrUnknownType = errors.New("a key of an unknown type")

var errDamaged = errors.New("the key is damaged")

// A field is a part of a key after its type.
type field func([]byte) ([]byte, error)

// types has the fields of each type of key.
var types = map[string][]field{
	RSA:       {number, number},
	DSA:       {number, number, number, number},
	ED25519:   {sized(32)},
	ECDSA256:  {exactly("nistp256"), point(32)},
	ECDSA384:  {exactly("nistp384"), point(48)},
	ECDSA521:  {exactly("nistp521"), point(66)},
	SKED25519: {sized(32), anything},
	SKECDSA:   {exactly("nistp256"), point(32), anything},
}

// certificates has the type of the key in each type of certificate.
var certificates = map[string]string{
	"ssh-rsa-cert-v01@openssh.com":                RSA,
	"ssh-dss-cert-v01@openssh.com":                DSA,
	"ssh-ed25519-cert-v01@openssh.com":            ED25519,
	"ecdsa-sha2-nistp256-cert-v01@openssh.com":    ECDSA256,
	"ecdsa-sha2-nistp384-cert-v01@openssh.com":    ECDSA384,
	"ecdsa-sha2-nistp521-cert-v01@openssh.com":    ECDSA521,
	"sk-ssh-ed25519-cert-v01@openssh.com":         SKED25519,
	"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com": SKECDSA,
}

// Parse reads a key or a certificate in its encoding. The error is ErrUnknownType,
// or says that the key is damaged.
func Parse(blob []byte) (Key, error) {
	r := Reader{Rest: blob}
	typ := string(r.Str())
	if plain, ok := certificates[typ]; ok && !r.Bad {
		c, err := r.certificate(plain)
		return Key{Type: typ, Blob: blob, Cert: c}, err
	}
	if r.Bad {
		return Key{}, errDamaged
	}
	k, err := r.key(typ)
	if err == nil && len(r.Rest) > 0 {
		err = errDamaged
	}
	if err != nil {
		return Key{}, err
	}
	return k, nil
}

// Plain is the key itself: that of a certificate.
func (k Key) Plain() Key {
	if k.Cert != nil {
		return k.Cert.Key
	}
	return k
}

// Fingerprint is a key's fingerprint as sshd logs it, by a hash that
// FingerprintHash in sshd_config(5) may name: "sha256" or "md5".
func (k Key) Fingerprint(hash string) string {
	if hash != "md5" {
		sum := sha256.Sum256(k.Blob)
		return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
	}
	var b strings.Builder
	b.WriteString("MD5")
	for _, x := range md5.Sum(k.Blob) {
		fmt.Fprintf(&b, ":%02x", x)
	}
	return b.String()
}

// key reads a plain key that follows its type.
func (r *Reader) key(typ string) (Key, error) {
	fields, ok := types[typ]
	if !ok {
		return Key{}, ErrUnknownType
	}
	blob := appendString(nil, []byte(typ))
	for _, f := range fields {
		b, err := f(r.Str())
		if r.Bad || err != nil {
			return Key{}, errDamaged
		}
		blob = appendString(blob, b)
	}
	return Key{Type: typ, Blob: blob}, nil
}

// certificate reads what follows the type of a certificate for a type of keys.
func (r *Reader) certificate(plain string) (*Certificate, error) {
	r.Str() // nonce
	key, err := r.key(plain)
	if err != nil {
		return nil, err
	}
	c := &Certificate{Key: key, Serial: r.U64(), Type: r.U32(), ID: string(r.Str())}
	principals := Reader{Rest: r.Str()}
	c.ValidAfter, c.ValidBefore = r.U64(), r.U64()
	critical, extensions := Reader{Rest: r.Str()}, Reader{Rest: r.Str()}
	r.Str() // reserved
	authority, signature := r.Str(), Reader{Rest: r.Str()}
	if r.Bad || len(r.Rest) > 0 {
		return nil, errDamaged
	}
	for len(principals.Rest) > 0 {
		c.Principals = append(c.Principals, string(principals.Str()))
	}
	if c.CriticalOptions, err = critical.options(); err != nil {
		return nil, err
	}
	if c.Extensions, err = extensions.options(); err != nil {
		return nil, err
	}
	c.SignatureFormat = string(signature.Str())
	signature.Str()
	if principals.Bad || signature.Bad {
		return nil, errDamaged
	}
	// Only a plain key may follow: certificates are not signed by certificates.
	a := Reader{Rest: authority}
	if c.Authority, err = a.key(string(a.Str())); err == nil && len(a.Rest) > 0 {
		err = errDamaged
	}
	return c, err
}

// options reads critical options or extensions: names in order, each with a value in
// a string of its own, if it has one.
func (r *Reader) options() (map[string]string, error) {
	m := map[string]string{}
	last := ""
	for len(r.Rest) > 0 {
		name, value := string(r.Str()), Reader{Rest: r.Str()}
		if r.Bad || len(m) > 0 && name <= last {
			return nil, errDamaged
		}
		last, m[name] = name, ""
		if len(value.Rest) > 0 {
			m[name] = string(value.Str())
			if value.Bad || len(value.Rest) > 0 {
				return nil, errDamaged
			}
		}
	}
	return m, nil
}

func anything(b []byte) ([]byte, error) { return b, nil }

func sized(n int) field {
	return func(b []byte) ([]byte, error) {
		if len(b) != n {
			return nil, errDamaged
		}
		return b, nil
	}
}

func exactly(s string) field {
	return func(b []byte) ([]byte, error) {
		if string(b) != s {
			return nil, errDamaged
		}
		return b, nil
	}
}

// point is an elliptic curve's, not compressed (RFC 5656 section 3.1), whose
// coordinates have so many bytes.
func point(n int) field {
	return func(b []byte) ([]byte, error) {
		if len(b) != 1+2*n || b[0] != 4 {
			return nil, errDamaged
		}
		return b, nil
	}
}

// number is an mpint (RFC 4251 section 5) above zero, in its shortest form.
func number(b []byte) ([]byte, error) {
	if len(b) == 0 || b[0]&0x80 != 0 {
		return nil, errDamaged
	}
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	if len(b) == 0 {
		return nil, errDamaged
	}
	if b[0]&0x80 != 0 {
		b = append([]byte{0}, b...)
	}
	return b, nil
}

func appendString(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// A Reader reads the encodings of RFC 4251 section 5 off Rest. After a short read Bad is
// set, and all that it reads is zero.
type Reader struct {
	Rest []byte
	Bad  bool
}

func (r *Reader) take(n uint64) []byte {
	if r.Bad || n > uint64(len(r.Rest)) {
		r.Bad, r.Rest = true, nil
		return nil
	}
	v := r.Rest[:n]
	r.Rest = r.Rest[n:]
	return v
}

// U8 reads a byte.
func (r *Reader) U8() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

// U32 reads a uint32.
func (r *Reader) U32() uint32 {
	if v := r.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// U64 reads a uint64.
func (r *Reader) U64() uint64 {
	if v := r.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// Str reads a string, which shares its bytes with Rest.
func (r *Reader) Str() []byte { return r.take(uint64(r.U32())) }
