package umac

import (
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// The vectors of RFC 4418, appendix, for UMAC-64 and UMAC-96. A tag of UMAC-128 begins
// with that of UMAC-96: keys and pad are the same, but for their length. That of 2^25
// times "a" is longer than what SSH has.
func TestTheTagsAreThoseOfRFC4418(t *testing.T) {
	for _, v := range []struct {
		text           string
		n              int
		tag64, part128 string
	}{
		{"", 0, "6E155FAD26900BE1", "32FEDB100C79AD58F07FF764"},
		{"a", 3, "44B5CB542F220104", "185E4FE905CBA7BD85E4C2DC"},
		{"a", 1 << 10, "26BF2F5D60118BD9", "7A54ABE04AF82D60FB298C3C"},
		{"a", 1 << 15, "27F8EF643B0D118D", "7B136BD911E4B734286EF2BE"},
		{"a", 1 << 20, "A4477E87E9F55853", "F8ACFA3AC31CFEEA047F7B11"},
		{"abc", 1, "D4D7B9F6BD4FBFCF", "883C3D4B97A61976FFCF2323"},
		{"abc", 500, "D4CF26DDEFD5C01A", "8824A260C53C66A36C9260A6"},
	} {
		message := strings.Repeat(v.text, v.n)
		for want, h := range map[string]hash.Hash{v.tag64: New64([]byte("abcdefghijklmnop")), v.part128: New128([]byte("abcdefghijklmnop"))} {
			copy(h.(*mac).nonce[:], "bcde") // SSH has zeros there
			got := strings.ToUpper(hex.EncodeToString(tag(h, "fghi"+message, len(message)+4)))
			if !strings.HasPrefix(got, want) || len(got) != 2*h.Size() {
				t.Errorf("%d times %q: %s, not %s", v.n, v.text, got, want)
			}
		}
	}
}

// tag is that of a text, a sequence number and a message, which is written in pieces.
func tag(h hash.Hash, text string, piece int) []byte {
	h.Reset()
	for len(text) > 0 {
		n := min(piece, len(text))
		h.Write([]byte(text[:n]))
		text = text[n:]
	}
	return h.Sum(nil)
}

func TestATagDoesNotDependOnHowTheMessageIsWritten(t *testing.T) {
	text := make([]byte, 5000)
	rand.NewChaCha8([32]byte{}).Read(text)
	for _, h := range []hash.Hash{New64(make([]byte, KeySize)), New128(make([]byte, KeySize))} {
		for _, size := range []int{4, 5, 36, 1027, 1028, 1029, 2052, 2053, 5000} {
			want := string(tag(h, string(text[:size]), size))
			if again := string(h.Sum(nil)); again != want {
				t.Errorf("%d bytes: %x, then %x", size, want, again)
			}
			for _, piece := range []int{1, 3, 5, 1024, 1025} {
				if got := string(tag(h, string(text[:size]), piece)); got != want {
					t.Errorf("%d bytes by %d: %x, not %x", size, piece, got, want)
				}
			}
		}
	}
}

func TestTwoSequenceNumbersGiveTwoTags(t *testing.T) {
	seen := map[string]bool{}
	h := New64(make([]byte, KeySize))
	for i := range uint32(1000) {
		seen[string(tag(h, string(binary.BigEndian.AppendUint32(nil, i))+"message", 100))] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d tags of 1000 sequence numbers", len(seen))
	}
}

// The arithmetic modulo p64 is that of package big, at the ends of its range too.
func TestMultiplyAddIsThatOfPackageBig(t *testing.T) {
	p := new(big.Int).SetUint64(p64)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 100000 {
		x, k, a := r.Uint64()%p64, r.Uint64()&0x01ffffff01ffffff, r.Uint64()%p64
		if i%3 == 0 {
			x = p64 - 1 - x%4
		}
		if i%5 == 0 {
			k = 0x01ffffff01ffffff
		}
		if i%7 == 0 {
			a = p64 - 1 - a%4
		}
		want := new(big.Int).Mul(new(big.Int).SetUint64(x), new(big.Int).SetUint64(k))
		want.Add(want, new(big.Int).SetUint64(a)).Mod(want, p)
		if got := multiplyAdd(x, k, a); got != want.Uint64() {
			t.Fatalf("%d * %d + %d = %d, not %d", x, k, a, got, want)
		}
	}
}

func BenchmarkPacket(b *testing.B) {
	h, packet := New64(make([]byte, KeySize)), make([]byte, 32<<10)
	b.SetBytes(int64(len(packet)))
	for b.Loop() {
		h.Reset()
		h.Write(packet)
		h.Sum(nil)
	}
}
