// Package krl reads OpenSSH key revocation lists (PROTOCOL.krl of OpenSSH) and
// the plain lists of public keys that RevokedKeys of sshd_config(5) takes in
// their place.
//
// A list that cannot be understood to the last byte is an error, and the caller
// must then treat every key as revoked: that includes critical extensions,
// signatures (which OpenSSH does not support either) and unknown sections.
package krl

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// MaxSize is the longest list that Read takes, in bytes.
	MaxSize = 16 << 20

	maxLine = 64 << 10
	magic   = "SSHKRL\n\x00"
)

// Section types of PROTOCOL.krl.
const (
	secCertificates = 1
	secExplicitKey  = 2
	secSHA1         = 3
	secSignature    = 4
	secSHA256       = 5
	secExtension    = 255

	certSerialList   = 0x20
	certSerialRange  = 0x21
	certSerialBitmap = 0x22
	certKeyID        = 0x23
	certExtension    = 0x39
)

// List is a set of revoked keys and certificates. The zero value revokes
// nothing. It does not change once made.
type List struct {
	Version   uint64    // of a KRL, as its maker counts
	Generated time.Time // of a KRL; zero for a plain list
	Comment   string    // of a KRL

	keys   map[string]bool   // plain public keys in wire form
	hashes map[string]bool   // SHA-1 and SHA-256 of such keys
	certs  map[string]*certs // by the CA's key in wire form; "" is every CA
}

// certs are the revoked certificates of one CA.
type certs struct {
	ranges  []serials // sorted by lo once parsed, disjoint
	bitmaps []bitmap
	ids     map[string]bool
}

type serials struct{ lo, hi uint64 }

type bitmap struct {
	offset uint64
	big    []byte // big-endian
}

// Read reads a list of at most MaxSize bytes.
func Read(r io.Reader) (*List, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, err
	}
	return Parse(b)
}

// Parse parses a KRL, or a list of public keys with one on each line, "#"
// comments and empty lines. It keeps no reference to b.
func Parse(b []byte) (*List, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("revocation list is longer than %d bytes", MaxSize)
	}
	l := &List{
		keys:   map[string]bool{},
		hashes: map[string]bool{},
		certs:  map[string]*certs{},
	}
	if !bytes.HasPrefix(b, []byte(magic)) {
		return l, l.plain(b)
	}
	r := &reader{b: bytes.Clone(b[len(magic):])}
	if err := l.binary(r); err != nil {
		return nil, fmt.Errorf("KRL: %w", err)
	}
	for _, c := range l.certs {
		c.merge()
	}
	return l, nil
}

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
			return fmt.Errorf("line %d: the key is not of type %q", n, f[0][:min(len(f[0]), 64)])
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

func (l *List) binary(r *reader) error {
	if v := r.u32(); r.bad || v != 1 {
		return fmt.Errorf("unsupported format version %d", v)
	}
	l.Version = r.u64()
	generated := r.u64()
	r.u64() // flags, of which there are none
	r.str() // reserved
	l.Comment = string(r.str())
	if r.bad {
		return errShort
	}
	l.Generated = time.Unix(int64(min(generated, 1<<40)), 0)
	for len(r.b) > 0 {
		typ := r.u8()
		s := &reader{b: r.str()}
		if r.bad {
			return errShort
		}
		var err error
		switch typ {
		case secCertificates:
			err = l.certificates(s)
		case secExplicitKey:
			err = s.each(func(v []byte) error {
				v, err := canonical(v)
				l.keys[string(v)] = true
				return err
			})
		case secSHA1:
			err = l.addHashes(s, sha1.Size)
		case secSHA256:
			err = l.addHashes(s, sha256.Size)
		case secExtension:
			err = s.extension()
		case secSignature:
			err = errors.New("signatures are not supported")
		default:
			err = errors.New("unknown section")
		}
		if err == nil && len(s.b) > 0 {
			err = errors.New("data left over")
		}
		if err != nil {
			return fmt.Errorf("section %d: %w", typ, err)
		}
	}
	return nil
}

func (l *List) addHashes(r *reader, size int) error {
	return r.each(func(v []byte) error {
		if len(v) != size {
			return errors.New("hash of the wrong length")
		}
		l.hashes[string(v)] = true
		return nil
	})
}

func (l *List) certificates(r *reader) error {
	ca := r.str()
	r.str() // reserved
	if r.bad {
		return errShort
	}
	if len(ca) > 0 {
		k, err := ssh.ParsePublicKey(ca)
		if err != nil {
			return fmt.Errorf("CA key: %w", err)
		}
		ca = k.Marshal()
	}
	c := l.certs[string(ca)]
	if c == nil {
		c = &certs{ids: map[string]bool{}}
		l.certs[string(ca)] = c
	}
	for len(r.b) > 0 {
		typ := r.u8()
		s := &reader{b: r.str()}
		if r.bad {
			return errShort
		}
		var err error
		switch typ {
		case certSerialList:
			for len(s.b) > 0 && !s.bad {
				n := s.u64()
				c.ranges = append(c.ranges, serials{n, n})
			}
		case certSerialRange:
			x := serials{s.u64(), s.u64()}
			if x.lo > x.hi {
				err = errors.New("range ends before it begins")
			}
			c.ranges = append(c.ranges, x)
		case certSerialBitmap:
			m := bitmap{s.u64(), s.str()}
			if len(m.big) > 0 && m.big[0]&0x80 != 0 {
				err = errors.New("bitmap is negative")
			}
			m.big = bytes.TrimLeft(m.big, "\x00")
			if n := m.len(); n > 0 && m.offset+(n-1) < m.offset {
				err = errors.New("bitmap runs over the last serial number")
			}
			c.bitmaps = append(c.bitmaps, m)
		case certKeyID:
			err = s.each(func(v []byte) error {
				if bytes.IndexByte(v, 0) >= 0 {
					return errors.New("key ID with a NUL byte")
				}
				c.ids[string(v)] = true
				return nil
			})
		case certExtension:
			err = s.extension()
		default:
			err = errors.New("unknown section")
		}
		if err == nil && s.bad {
			err = errShort
		}
		if err == nil && len(s.b) > 0 {
			err = errors.New("data left over")
		}
		if err != nil {
			return fmt.Errorf("certificate section %#x: %w", typ, err)
		}
	}
	return nil
}

// IsRevoked reports whether the key is revoked: a key that is listed itself or
// by its hash, and a certificate also by its serial number, its key ID, or its
// CA's key. Serial number zero means that the CA gave none, so it is not looked
// up.
func (l *List) IsRevoked(key ssh.PublicKey) bool {
	if l.plainRevoked(plainKey(key)) {
		return true
	}
	c, ok := key.(*ssh.Certificate)
	if !ok {
		return false
	}
	ca := plainKey(c.SignatureKey)
	return l.plainRevoked(ca) || l.certs[string(ca.Marshal())].has(c) || l.certs[""].has(c)
}

func (l *List) plainRevoked(k ssh.PublicKey) bool {
	b := k.Marshal()
	h1, h256 := sha1.Sum(b), sha256.Sum256(b)
	return l.keys[string(b)] || l.hashes[string(h1[:])] || l.hashes[string(h256[:])]
}

func (c *certs) has(cert *ssh.Certificate) bool {
	if c == nil {
		return false
	}
	if c.ids[cert.KeyId] {
		return true
	}
	n := cert.Serial
	if n == 0 {
		return false
	}
	i, _ := slices.BinarySearchFunc(c.ranges, n, func(s serials, n uint64) int {
		if s.hi < n {
			return -1
		}
		return 1
	})
	if i < len(c.ranges) && c.ranges[i].lo <= n {
		return true
	}
	return slices.ContainsFunc(c.bitmaps, func(m bitmap) bool { return m.has(n) })
}

// merge sorts the ranges and joins those that overlap.
func (c *certs) merge() {
	slices.SortFunc(c.ranges, func(a, b serials) int {
		if a.lo < b.lo {
			return -1
		}
		if a.lo > b.lo {
			return 1
		}
		return 0
	})
	var out []serials
	for _, s := range c.ranges {
		if n := len(out); n > 0 && s.lo <= out[n-1].hi {
			out[n-1].hi = max(out[n-1].hi, s.hi)
			continue
		}
		out = append(out, s)
	}
	c.ranges = out
}

// len is the number of bits up to the highest that is set.
func (m bitmap) len() uint64 {
	if len(m.big) == 0 {
		return 0
	}
	return uint64(len(m.big)-1)*8 + uint64(bits.Len8(m.big[0]))
}

func (m bitmap) has(n uint64) bool {
	if n < m.offset || n-m.offset >= m.len() {
		return false
	}
	i := n - m.offset
	return m.big[uint64(len(m.big))-1-i/8]>>(i%8)&1 != 0
}

var errShort = errors.New("truncated")

// reader takes the data types of RFC 4251, section 5, off a byte slice. After a
// short read bad is set and every value is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u32() uint32 {
	if v := r.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if v := r.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (r *reader) str() []byte { return r.take(uint64(r.u32())) }

// each calls f for the strings that make up the rest, of which there must be
// one.
func (r *reader) each(f func([]byte) error) error {
	if len(r.b) == 0 {
		return errors.New("empty section")
	}
	for len(r.b) > 0 {
		v := r.str()
		if r.bad {
			return errShort
		}
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

// extension reads an extension; none is known, so a critical one is an error.
func (r *reader) extension() error {
	name := r.str()
	critical := r.u8()
	r.str()
	switch {
	case r.bad:
		return errShort
	case critical != 0:
		return fmt.Errorf("unsupported critical extension %.64q", name)
	}
	return nil
}
