// Package sntrup761 is what a server needs of Streamlined NTRU Prime with the parameters
// of sntrup761: it encapsulates a secret for a client's public key. The algorithm is that
// of the submission to NIST's third round, https://ntruprime.cr.yp.to, and of
// draft-josefsson-ntruprime-streamlined.
//
// Time and memory accesses do not depend on what is secret. SSH hashes the secret
// together with one of X25519 (draft-ietf-sshm-ntruprime-ssh), so that who breaks this package alone has
// nothing.
package sntrup761

import (
	"crypto/sha512"
	"encoding/binary"
	"io"
)

// Sizes, in bytes.
const (
	PublicKeySize  = 1158
	CiphertextSize = roundedSize + confirmSize
	SecretSize     = 32

	roundedSize = 1007
	confirmSize = 32
)

// The ring is that of the polynomials with coefficients modulo q, modulo x^p - x - 1.
const (
	p      = 761
	q      = 4591
	weight = 286 // coefficients of a short polynomial that are not 0
)

// Encapsulate makes a secret of [SecretSize] bytes, with random bytes of rand, and its
// encapsulation for a public key. Every string of [PublicKeySize] bytes is taken for a
// public key, as in the specification.
func Encapsulate(rand io.Reader, publicKey []byte) (ciphertext, secret []byte, err error) {
	r, err := short(rand)
	if err != nil {
		return nil, nil, err
	}
	ciphertext, secret = hide(r, publicKey)
	return ciphertext, secret, nil
}

// hide is Encap of the specification for a short polynomial.
func hide(r *[p]int8, publicKey []byte) (ciphertext, secret []byte) {
	inner := prefixed(3, encodeSmall(r))
	confirm := prefixed(2, inner, prefixed(4, publicKey))
	ciphertext = append(encodeRounded(multiply(decodeKey(publicKey), r)), confirm...)
	return ciphertext, prefixed(1, inner, ciphertext)
}

// prefixed is the hash of the specification: half of a SHA-512.
func prefixed(prefix byte, parts ...[]byte) []byte {
	h := sha512.New()
	h.Write([]byte{prefix})
	for _, b := range parts {
		h.Write(b)
	}
	return h.Sum(nil)[:32]
}

// short makes a random polynomial of which weight coefficients are 1 or -1: they are
// sorted together with random numbers.
func short(rand io.Reader) (*[p]int8, error) {
	var b [4 * p]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return nil, err
	}
	var l [p]uint32
	for i := range l {
		l[i] = binary.LittleEndian.Uint32(b[4*i:])
		if i < weight {
			l[i] &^= 1
		} else {
			l[i] = l[i]&^3 | 1
		}
	}
	sort(&l)
	out := new([p]int8)
	for i, n := range l {
		out[i] = int8(n&3) - 1
	}
	return out, nil
}

// sort is Batcher's merge exchange (Knuth, The Art of Computer Programming, volume 3,
// algorithm 5.2.2M), which compares the same places whatever is there.
func sort(l *[p]uint32) {
	const top = 512 // the largest power of 2 below p
	for step := top; step > 0; step >>= 1 {
		for far, r, d := top, 0, step; ; far >>= 1 {
			for i := range p - d {
				if i&step == r {
					exchange(&l[i], &l[i+d])
				}
			}
			if far == step {
				break
			}
			r, d = step, far-step
		}
	}
}

// exchange puts the smaller of two numbers first.
func exchange(a, b *uint32) {
	swap := (*a ^ *b) & uint32((uint64(*b)-uint64(*a))>>32)
	*a ^= swap
	*b ^= swap
}

// multiply is the product of h and r in the ring, each coefficient rounded to the nearest
// multiple of 3. h has coefficients of -(q-1)/2 to (q-1)/2.
//
// Two coefficients of the product are in a word each, so that one multiplication serves
// both: what is summed is (r+1)*(h+bias), which is not negative and at most 2*q*p in all,
// below 2^32.
func multiply(h *[p]int16, r *[p]int8) *[p]int16 {
	const bias = (q - 1) / 2
	var words [p]uint64          // of the product's coefficients 2k and 2k+1
	var pairs [2][p/2 + 1]uint64 // of h's, from an even index and from an odd one on
	for j, hj := range h {
		c := uint64(int64(hj) + bias)
		pairs[0][j/2] |= c << (32 * (j % 2))
		pairs[1][(j+1)/2] |= c << (32 * ((j + 1) % 2))
	}
	for i, ri := range r {
		c, from := uint64(ri+1), &pairs[i%2]
		to := words[i/2:][:len(from)]
		for k, pair := range from {
			to[k] += c * pair
		}
	}
	// What is too much of coefficient n: the sum of h + bias*r + bias over all i+j = n.
	var product [2*p - 1]int32
	var excess int32
	for n := range product {
		if n < p {
			excess += int32(h[n]) + bias*int32(r[n]) + bias
		} else {
			excess -= int32(h[n-p]) + bias*int32(r[n-p]) + bias
		}
		product[n] = int32(uint32(words[n/2]>>(32*(n%2)))) - excess
	}
	for i := 2*p - 2; i >= p; i-- { // x^p is x + 1
		product[i-p] += product[i]
		product[i-p+1] += product[i]
	}
	out := new([p]int16)
	for i := range out {
		c := nearest(int64(product[i]), q)
		out[i] = int16(c - nearest(c, 3))
	}
	return out
}

// nearest is the number from -(n-1)/2 to (n-1)/2 that is x modulo n, which is odd, for an x
// of at most 3*p*(q-1)/2, which is below 2^23. No division takes part, whose time would
// depend on x.
func nearest(x, n int64) int64 {
	const shift = 36
	inverse := (int64(1)<<shift + n/2) / n // n is no secret
	return x - n*((x*inverse+1<<(shift-1))>>shift)
}

// encodeSmall packs coefficients of -1 to 1, four to a byte.
func encodeSmall(f *[p]int8) []byte {
	out := make([]byte, (p+3)/4)
	for i, c := range f {
		out[i/4] |= byte(c+1) << (2 * (i % 4))
	}
	return out
}

// encodeRounded packs coefficients that are multiples of 3.
func encodeRounded(f *[p]int16) []byte {
	r, m := make([]uint16, p), make([]uint16, p)
	for i, c := range f {
		r[i] = uint16((uint32(c+(q-1)/2) * 10923) >> 15) // a third
		m[i] = (q + 2) / 3
	}
	return encode(make([]byte, 0, CiphertextSize), r, m)
}

// decodeKey reads a public key: coefficients from -(q-1)/2 to (q-1)/2.
func decodeKey(b []byte) *[p]int16 {
	m := make([]uint16, p)
	for i := range m {
		m[i] = q
	}
	out := new([p]int16)
	for i, r := range decode(b, m) {
		out[i] = int16(r) - (q-1)/2
	}
	return out
}

// limit is where encode and decode move a byte of a number out.
const limit = 16384

// encode appends the encoding of r to out. m[i] is above r[i], and is no secret; both are
// overwritten. Numbers are joined by twos, and bytes moved out of what is too large,
// until one is left.
func encode(out []byte, r, m []uint16) []byte {
	for len(r) > 1 {
		for i := 0; i+1 < len(r); i += 2 {
			n, top := uint32(r[i])+uint32(r[i+1])*uint32(m[i]), uint32(m[i])*uint32(m[i+1])
			for ; top >= limit; top = (top + 255) >> 8 {
				out = append(out, byte(n))
				n >>= 8
			}
			r[i/2], m[i/2] = uint16(n), uint16(top)
		}
		half := (len(r) + 1) / 2
		if len(r)%2 == 1 {
			r[half-1], m[half-1] = r[len(r)-1], m[len(m)-1]
		}
		r, m = r[:half], m[:half]
	}
	for n, top := r[0], m[0]; top > 1; top = (top + 255) >> 8 {
		out = append(out, byte(n))
		n >>= 8
	}
	return out
}

// decode is the inverse of encode, for b that are no secret. b has the length that encode
// makes.
func decode(b []byte, m []uint16) []uint16 {
	if len(m) == 1 {
		var n uint32
		for i, top := 0, uint32(m[0]); top > 1; i, top = i+1, (top+255)>>8 {
			n |= uint32(b[i]) << (8 * i)
		}
		return []uint16{uint16(n % uint32(m[0]))}
	}
	var low, unit []uint32 // of each two: the bytes that were moved out, and their range
	var tops []uint16
	for i := 0; i+1 < len(m); i += 2 {
		l, u, top := uint32(0), uint32(1), uint32(m[i])*uint32(m[i+1])
		for ; top >= limit; top = (top + 255) >> 8 {
			l |= uint32(b[0]) * u
			u <<= 8
			b = b[1:]
		}
		low, unit, tops = append(low, l), append(unit, u), append(tops, uint16(top))
	}
	if len(m)%2 == 1 {
		tops = append(tops, m[len(m)-1])
	}
	joined := decode(b, tops)
	out := make([]uint16, 0, len(m))
	for i := range low {
		n := low[i] + unit[i]*uint32(joined[i])
		out = append(out, uint16(n%uint32(m[2*i])), uint16(n/uint32(m[2*i])%uint32(m[2*i+1])))
	}
	if len(m)%2 == 1 {
		out = append(out, joined[len(joined)-1])
	}
	return out
}
