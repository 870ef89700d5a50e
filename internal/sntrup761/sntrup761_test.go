package sntrup761

import (
	"bytes"
	"crypto/rand"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"testing"
)

// That a client decapsulates what is made here, tools/sshpatch tries with OpenSSH's.
func TestSizesAreThoseOfTheSpecification(t *testing.T) {
	ciphertext, secret, err := Encapsulate(rand.Reader, make([]byte, PublicKeySize))
	if err != nil || len(ciphertext) != CiphertextSize || len(secret) != SecretSize {
		t.Errorf("%d and %d bytes: %v", len(ciphertext), len(secret), err)
	}
	if _, _, err := Encapsulate(bytes.NewReader(nil), make([]byte, PublicKeySize)); err != io.EOF {
		t.Errorf("without random bytes: %v", err)
	}
}

// Nothing in a string of the right size makes it panic, or leave its ranges.
func FuzzEncapsulate(f *testing.F) {
	f.Add(make([]byte, PublicKeySize))
	f.Add(bytes.Repeat([]byte{0xff}, PublicKeySize))
	f.Fuzz(func(t *testing.T, key []byte) {
		key = append(key, make([]byte, PublicKeySize)...)[:PublicKeySize]
		for i, c := range decodeKey(key) {
			if c < -(q-1)/2 || c > (q-1)/2 {
				t.Fatalf("coefficient %d is %d", i, c)
			}
		}
		if ciphertext, _, err := Encapsulate(rand.Reader, key); err != nil || len(ciphertext) != CiphertextSize {
			t.Fatalf("%d bytes: %v", len(ciphertext), err)
		}
	})
}

func TestAShortPolynomialHasItsWeight(t *testing.T) {
	for range 100 {
		r, err := short(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		count := map[int8]int{}
		for _, c := range r {
			count[c]++
		}
		if count[1]+count[-1] != weight || count[0] != p-weight {
			t.Fatalf("coefficients: %v", count)
		}
	}
}

func TestTheSortSorts(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for round := range 200 {
		var l [p]uint32
		for i := range l {
			switch l[i] = random.Uint32(); round % 4 {
			case 1:
				l[i] %= 3
			case 2:
				l[i] |= 1 << 31
			case 3:
				l[i] = uint32(p - i)
			}
		}
		want := l
		slices.Sort(want[:])
		if sort(&l); l != want {
			t.Fatal("not sorted")
		}
	}
}

// multiply is beside a product by package big, with the largest coefficients too.
func TestTheProductIsThatOfTheRing(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(3, 4))
	for round := range 4 {
		h, r := new([p]int16), new([p]int8)
		for i := range h {
			h[i], r[i] = int16(random.IntN(q)-(q-1)/2), int8(random.IntN(3)-1)
			if round == 0 {
				h[i], r[i] = (q-1)/2, 1
			}
		}
		// Coefficients apart by 2^64, at x = 2^64.
		value := func(c func(int) int64) *big.Int {
			v := new(big.Int)
			for i := p - 1; i >= 0; i-- {
				v.Lsh(v, 64).Add(v, big.NewInt(c(i)))
			}
			return v
		}
		product := new(big.Int).Mul(value(func(i int) int64 { return int64(h[i]) }), value(func(i int) int64 { return int64(r[i]) }))
		x := new(big.Int).Lsh(big.NewInt(1), 64)
		modulus := new(big.Int).Exp(x, big.NewInt(p), nil)
		modulus.Sub(modulus, x).Sub(modulus, big.NewInt(1))
		if product.Mod(product, modulus); product.Cmp(new(big.Int).Rsh(modulus, 1)) > 0 {
			product.Sub(product, modulus) // the highest coefficient is below 0
		}
		got := multiply(h, r)
		for i := range got {
			c := new(big.Int).And(product, new(big.Int).Sub(x, big.NewInt(1)))
			product.Rsh(product, 64)
			if c.BitLen() == 64 { // below 0: one is borrowed of the next
				c.Sub(c, x)
				product.Add(product, big.NewInt(1))
			}
			n := int((c.Int64()%q + q) % q)
			if n > (q-1)/2 {
				n -= q
			}
			if d := n - int(got[i]); d < -1 || d > 1 || got[i]%3 != 0 {
				t.Fatalf("coefficient %d is %d, the nearest multiple of 3 to %d", i, got[i], n)
			}
		}
	}
}

func TestNearestIsExact(t *testing.T) {
	const most = 3 * p * (q - 1) / 2
	for _, n := range []int64{3, q} {
		for x := int64(-most); x <= most; x++ {
			if r := nearest(x, n); r < -(n-1)/2 || r > (n-1)/2 || (x-r)%n != 0 {
				t.Fatalf("%d modulo %d is not %d", x, n, r)
			}
		}
	}
}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(5, 6))
	for _, top := range []uint16{3, 1531, q} {
		for _, n := range []int{1, 2, 3, 5, p} {
			r, m := make([]uint16, n), slices.Repeat([]uint16{top}, n)
			for i := range r {
				r[i] = uint16(random.IntN(int(top)))
			}
			if b := encode(nil, slices.Clone(r), slices.Clone(m)); !slices.Equal(decode(b, m), r) {
				t.Errorf("%d numbers below %d are others after", n, top)
			}
		}
	}
	if n := len(encode(nil, make([]uint16, p), slices.Repeat([]uint16{q}, p))); n != PublicKeySize {
		t.Errorf("a public key has %d bytes", n)
	}
}

// The product is that of the definition, for the greatest coefficients of each sign, too.
func TestTheProductIsThatOfTheDefinition(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(3, 4))
	const edge = (q - 1) / 2
	for round := range 20 {
		var h [p]int16
		var r [p]int8
		for i := range h {
			h[i], r[i] = int16(random.IntN(q)-edge), int8(random.IntN(3)-1)
			switch round { // the sums are greatest where all signs are the same
			case 0:
				h[i], r[i] = edge, 1
			case 1:
				h[i], r[i] = edge, -1
			case 2:
				h[i], r[i] = -edge, 1
			case 3:
				h[i], r[i] = -edge, -1
			}
		}
		var product [2*p - 1]int
		for i := range r {
			for j := range h {
				product[i+j] += int(r[i]) * int(h[j])
			}
		}
		for i := 2*p - 2; i >= p; i-- {
			product[i-p] += product[i]
			product[i-p+1] += product[i]
		}
		for i, got := range multiply(&h, &r) {
			want := ((product[i]+edge)%q+q)%q - edge
			want -= (want+1+3*q)%3 - 1
			if int(got) != want {
				t.Fatalf("round %d: coefficient %d is %d, not %d", round, i, got, want)
			}
		}
	}
}

func BenchmarkEncapsulate(b *testing.B) {
	key := make([]byte, PublicKeySize)
	for b.Loop() {
		Encapsulate(rand.Reader, key)
	}
}
