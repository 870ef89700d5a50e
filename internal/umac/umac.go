// Package umac is UMAC (RFC 4418) as SSH has it: umac-64@openssh.com and
// umac-128@openssh.com, whose nonce is the packet's sequence number.
package umac

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"hash"
	"math/bits"
)

const (
	// KeySize is the length of a key, in bytes.
	KeySize = 16

	nonceSize  = 8    // bytes
	blockSize  = 1024 // of the first layer, bytes
	strideSize = 32   // what NH takes at a time, bytes
	most       = 4    // iterations, of a tag of 16 bytes
)

// The primes of the second and the third layer (RFC 4418, sections 5.2 and 5.3).
const (
	p64 = 1<<64 - 59
	p36 = 1<<36 - 5
)

// A mac is a message in the making. Each four bytes of a tag are hashed by an
// iteration of its own (section 5.1).
type mac struct {
	size int // of a tag, bytes: 8 or 16

	pad       cipher.Block
	nh        [(blockSize + 16*(most-1)) / 4]uint32
	poly      [most]uint64
	inner     [most][4]uint64 // of the third layer's keys those whose words are not 0
	translate [most]uint32

	nonce  [nonceSize]byte // the sequence number; the first half is 0
	began  int             // bytes of nonce that are there
	block  [blockSize]byte
	filled int  // bytes of block that are there
	long   bool // there were blocks before this one, which hashed has
	hashed [most]uint64
}

// New64 makes umac-64@openssh.com of a key of [KeySize] bytes. What is written after a
// Reset is a sequence number of four bytes, in network order, and then the message,
// of at most 16 MiB. A number must not come twice with a key.
func New64(key []byte) hash.Hash { return newMAC(key, 8) }

// New128 makes umac-128@openssh.com, as New64 does.
func New128(key []byte) hash.Hash { return newMAC(key, 16) }

func newMAC(key []byte, size int) hash.Hash {
	if len(key) != KeySize {
		panic("umac: a key of another length")
	}
	c, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the length is right
	}
	m := &mac{size: size}
	m.pad, _ = aes.NewCipher(derive(c, 0, KeySize))
	n := m.iterations()
	for i, b := 0, derive(c, 1, blockSize+16*(n-1)); len(b) > 0; i, b = i+1, b[4:] {
		m.nh[i] = binary.BigEndian.Uint32(b)
	}
	poly, inner, translate := derive(c, 2, 24*n), derive(c, 3, 64*n), derive(c, 4, 4*n)
	for i := range n {
		m.poly[i] = binary.BigEndian.Uint64(poly[24*i:]) & 0x01ffffff01ffffff
		for j := range m.inner[i] {
			m.inner[i][j] = binary.BigEndian.Uint64(inner[64*i+8*(4+j):]) % p36
		}
		m.translate[i] = binary.BigEndian.Uint32(translate[4*i:])
	}
	m.Reset()
	return m
}

// derive is KDF of section 3.2.1: size bytes for a purpose.
func derive(c cipher.Block, purpose byte, size int) []byte {
	var out []byte
	var in [aes.BlockSize]byte
	in[7] = purpose
	for i := uint64(1); len(out) < size; i++ {
		binary.BigEndian.PutUint64(in[8:], i)
		out = append(out, make([]byte, aes.BlockSize)...)
		c.Encrypt(out[len(out)-aes.BlockSize:], in[:])
	}
	return out[:size]
}

func (m *mac) iterations() int { return m.size / 4 }

func (m *mac) Size() int      { return m.size }
func (m *mac) BlockSize() int { return blockSize }

func (m *mac) Reset() {
	m.began, m.filled, m.long = nonceSize/2, 0, false
	m.hashed = [most]uint64{1, 1, 1, 1}
}

func (m *mac) Write(p []byte) (int, error) {
	written := len(p)
	n := copy(m.nonce[m.began:], p)
	m.began += n
	for p = p[n:]; len(p) > 0; p = p[n:] {
		if m.filled == blockSize { // and it is not the last one
			m.layer2(&m.hashed, m.layer1(m.block[:], blockSize))
			m.long, m.filled = true, 0
		}
		n = copy(m.block[m.filled:], p)
		m.filled += n
	}
	return written, nil
}

// Sum appends the tag: the hash, and the pad that is the nonce's.
func (m *mac) Sum(in []byte) []byte {
	padded := max(strideSize, (m.filled+strideSize-1)/strideSize*strideSize)
	clear(m.block[m.filled:padded])
	hashed := m.layer1(m.block[:padded], m.filled)
	if m.long {
		last := hashed
		hashed = m.hashed
		m.layer2(&hashed, last)
	}
	// A block of pad serves two tags of eight bytes (section 3.3.1).
	var pad [aes.BlockSize]byte
	copy(pad[:], m.nonce[:])
	half := 0
	if m.size == 8 {
		half = int(pad[nonceSize-1] & 1)
		pad[nonceSize-1] &^= 1
	}
	m.pad.Encrypt(pad[:], pad[:])
	tag := pad[8*half:]
	for i := range m.iterations() {
		in = binary.BigEndian.AppendUint32(in, m.layer3(i, hashed[i])^binary.BigEndian.Uint32(tag[4*i:]))
	}
	return in
}

// layer1 hashes a block, of which size bytes are the message's and the rest zeros to a
// multiple of strideSize, by NH (section 5.2.2). An iteration's key begins 16 bytes after
// that of the one before.
func (m *mac) layer1(block []byte, size int) (sums [most]uint64) {
	n := m.iterations()
	for at := 0; at < len(block)/4; at += 8 {
		b := (*[strideSize]byte)(block[4*at:])
		var w [8]uint32
		for i := range w {
			w[i] = binary.LittleEndian.Uint32(b[4*i:])
		}
		for i := range n {
			k := (*[8]uint32)(m.nh[at+4*i:])
			sums[i] += uint64(w[0]+k[0])*uint64(w[4]+k[4]) + uint64(w[1]+k[1])*uint64(w[5]+k[5]) +
				uint64(w[2]+k[2])*uint64(w[6]+k[6]) + uint64(w[3]+k[3])*uint64(w[7]+k[7])
		}
	}
	for i := range n {
		sums[i] += uint64(size) * 8
	}
	return sums
}

// layer2 adds the hash of a block to those of the blocks before by POLY (section 5.3.2),
// which at most 2^17 bytes of such hashes may go to.
func (m *mac) layer2(hashed *[most]uint64, block [most]uint64) {
	for i := range m.iterations() {
		if block[i] >= 1<<64-1<<32 {
			hashed[i] = multiplyAdd(hashed[i], m.poly[i], p64-1)
			block[i] -= 59
		}
		hashed[i] = multiplyAdd(hashed[i], m.poly[i], block[i])
	}
}

// multiplyAdd is (x*k + a) modulo p64, of an x and an a below it, and a k below 2^57.
func multiplyAdd(x, k, a uint64) uint64 {
	hi, lo := bits.Mul64(x, k)
	lo, carry := bits.Add64(lo, a, 0)
	// 2^64 is 59 modulo p64, and hi below 2^57, so that hi*59 is below 2^63.
	lo, carry = bits.Add64(lo, (hi+carry)*59, 0)
	lo, carry = bits.Add64(lo, carry*59, 0)
	lo += carry * 59
	r, below := bits.Sub64(lo, p64, 0)
	return r + p64&-below
}

// layer3 makes four bytes of a tag (section 5.4.2).
func (m *mac) layer3(i int, hashed uint64) uint32 {
	var y uint64
	for j, k := range m.inner[i] {
		y += hashed >> (48 - 16*j) & 0xffff * k // below 2^52 each
	}
	return uint32(y%p36) ^ m.translate[i]
}
