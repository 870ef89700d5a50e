// Package krl reads OpenSSH key revocation lists (PROTOCOL.krl of OpenSSH) and
// the plain lists of public keys that RevokedKeys of sshd_config(5) takes in
// their place.
//
// A list that cannot be understood to the last byte is an error, and the caller
// must then treat every key as revoked: that includes critical extensions,
// signatures (which OpenSSH does not support either) and unknown sections.
package krl

import (
	"crypto/sha1"
	"crypto/sha256"
	"math/bits"
	"slices"
	"time"

	"p9auth/internal/sshkey"
)

// List is a set of revoked keys and certificates. The zero value revokes nothing. A
// List does not change once it is made.
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

// IsRevoked reports whether the key is revoked: a key that is listed itself or
// by its hash, and a certificate also by its serial number, its key ID, or its
// CA's key. Serial number zero means that the CA gave none, so it is not looked
// up.
func (l *List) IsRevoked(key sshkey.Key) bool {
	if l.plainRevoked(key.Plain()) {
		return true
	}
	c := key.Cert
	if c == nil {
		return false
	}
	return l.plainRevoked(c.Authority) || l.certs[string(c.Authority.Blob)].has(c) || l.certs[""].has(c)
}

func (l *List) plainRevoked(k sshkey.Key) bool {
	h1, h256 := sha1.Sum(k.Blob), sha256.Sum256(k.Blob)
	return l.keys[string(k.Blob)] || l.hashes[string(h1[:])] || l.hashes[string(h256[:])]
}

func (c *certs) has(cert *sshkey.Certificate) bool {
	if c == nil {
		return false
	}
	if c.ids[cert.ID] {
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
