package ssh

import (
	"bytes"
	"encoding/hex"
	"math"
	"testing"

	"golang.org/x/sys/cpu"
)

// The packet that a description of its own makes of 100 times "x" with key 0, 1, ... 63,
// sequence number 7, and padding of zeros: OpenSSH's PROTOCOL.chacha20poly1305, with the
// ChaCha20 and the Poly1305 of OpenSSL.
const packet = "a39afcda233e6d3b36fb52261415c388aff7ab544cca484e069b45fb381263a7f82b7b2cdc2f89dd6d1a8cc1d4aa1e566b4a730f0fd4e8a7e75b308b029c5ec2abd62f897dba9d42593a2c9e5c90f79b1e3d858810b56bc4854d8c8abeec45831e43094ed8ed28202d4925374a5aa11bdb4ef4b77360e80265474855fc9b3aee0c5418a6"

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// pair makes the cipher as it is, and one that uses package chacha20 in any case.
func pair(t testing.TB, key []byte) (fast, stock *chacha20Poly1305Cipher) {
	t.Helper()
	var both [2]*chacha20Poly1305Cipher
	for i := range both {
		c, err := newChaCha20Cipher(key, nil, nil, DirectionAlgorithms{})
		if err != nil {
			t.Fatal(err)
		}
		both[i] = c.(*chacha20Poly1305Cipher)
	}
	if has := both[0].aead != nil; has != (cpu.X86.HasAVX2 && cpu.X86.HasBMI2) {
		t.Errorf("the cipher has the assembly: %v", has)
	}
	both[1].aead = nil
	return both[0], both[1]
}

// compare writes and reads a packet with both, and one that is not whole.
func compare(t testing.TB, key []byte, seq uint32, payload []byte) {
	t.Helper()
	fast, stock := pair(t, key)
	var a, b bytes.Buffer
	if err := fast.writeCipherPacket(seq, &a, zeros{}, payload); err != nil {
		t.Fatal(err)
	}
	if err := stock.writeCipherPacket(seq, &b, zeros{}, payload); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Fatalf("%d bytes, number %d: the packets differ", len(payload), seq)
	}
	for _, c := range []*chacha20Poly1305Cipher{fast, stock} {
		for range 2 { // the second time in a buffer that has been used
			got, err := c.readCipherPacket(seq, bytes.NewReader(a.Bytes()))
			if err != nil || !bytes.Equal(got, payload) {
				t.Fatalf("%d bytes, number %d: %v, or another payload", len(payload), seq, err)
			}
		}
		for _, at := range []int{4, a.Len() / 2, a.Len() - 1} {
			forged := bytes.Clone(a.Bytes())
			forged[at] ^= 1
			if _, err := c.readCipherPacket(seq, bytes.NewReader(forged)); err == nil || err.Error() != "ssh: MAC failure" {
				t.Fatalf("%d bytes, number %d, byte %d changed: %v", len(payload), seq, at, err)
			}
		}
		if _, err := c.readCipherPacket(seq+1, bytes.NewReader(a.Bytes())); err == nil {
			t.Fatalf("%d bytes: a packet is taken at another number", len(payload))
		}
	}
}

func key(seed byte) []byte {
	k := make([]byte, 64)
	for i := range k {
		k[i] = byte(i)*seed + byte(i)
	}
	return k
}

func TestTheDescription(t *testing.T) {
	fast, stock := pair(t, key(0))
	for _, c := range []*chacha20Poly1305Cipher{fast, stock} {
		var b bytes.Buffer
		if err := c.writeCipherPacket(7, &b, zeros{}, bytes.Repeat([]byte("x"), 100)); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b.Bytes()); got != packet {
			t.Errorf("packet %s", got)
		}
	}
}

func TestAsThePackageChacha20(t *testing.T) {
	for size := 1; size < 600; size++ {
		compare(t, key(byte(size)), uint32(size), bytes.Repeat([]byte{byte(size)}, size))
	}
	for _, size := range []int{4095, 4096, 32<<10 + 9, 256<<10 - 100} {
		for _, seq := range []uint32{0, 1, math.MaxInt32, math.MaxUint32} {
			compare(t, key(3), seq, bytes.Repeat([]byte("p9"), size/2))
		}
	}
}

func FuzzChaCha20Poly1305(f *testing.F) {
	f.Add(byte(1), uint32(0), []byte("x"))
	f.Add(byte(2), uint32(math.MaxUint32), bytes.Repeat([]byte{0}, 255))
	f.Fuzz(func(t *testing.T, seed byte, seq uint32, payload []byte) {
		if len(payload) > 0 {
			compare(t, key(seed), seq, payload)
		}
	})
}

func BenchmarkChaCha20Poly1305(b *testing.B) {
	fast, stock := pair(b, key(1))
	payload := make([]byte, 32<<10)
	for name, c := range map[string]*chacha20Poly1305Cipher{"here": fast, "package chacha20": stock} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(payload)))
			var w bytes.Buffer
			for b.Loop() {
				w.Reset()
				if err := c.writeCipherPacket(1, &w, zeros{}, payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
