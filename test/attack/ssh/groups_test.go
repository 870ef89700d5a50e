package ssh

import (
	"math/big"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
)

// unsafeGroups has exchanges signed that are by a group of the attacker's choice (RFC
// 4419), or with public values at a group's ends. The true one, by a prime of RFC 3526,
// is signed.
func (b *bed) unsafeGroups(t *testing.T) {
	const method = "diffie-hellman-group-exchange-sha256"
	b.configure(t, patient+"KexAlgorithms +"+method+"\n")
	defer b.configure(t, patient)
	// RFC 3526, section 3.
	p, _ := new(big.Int).SetString(strings.Join(strings.Fields(`
		FFFFFFFF FFFFFFFF C90FDAA2 2168C234 C4C6628B 80DC1CD1 29024E08 8A67CC74 020BBEA6 3B139B22 514A0879 8E3404DD
		EF9519B3 CD3A431B 302B0A6D F25F1437 4FE1356D 6D51C245 E485B576 625E7EC6 F44C42E9 A637ED6B 0BFF5CB6 F406B7ED
		EE386BFB 5A899FA5 AE9F2411 7C4B1FE6 49286651 ECE45B3D C2007CB8 A163BF05 98DA4836 1C55D39A 69163FA8 FD24CF5F
		83655D23 DCA3AD96 1C62F356 208552BB 9ED52907 7096966D 670C354E 4ABC9804 F1746C08 CA18217C 32905E46 2E36CE3B
		E39E772C 180E8603 9B2783A2 EC07A28F B5C55DF0 6F4C52C9 DE2BCBF6 95581718 3995497C EA956AE5 15D22618 98FA0510
		15728E5A 8AACAA68 FFFFFFFF FFFFFFFF`), ""), 16)
	add := func(n int64) *big.Int { return new(big.Int).Add(p, big.NewInt(n)) }
	num := big.NewInt
	for _, c := range []struct {
		what           string
		least, n, most uint32
		p, g, e, f     *big.Int
		signed         bool
	}{
		{"the true one", 2048, 2048, 8192, p, num(2), num(4711), num(4712), true},
		{"another number", 2048, 2048, 8192, add(2), num(2), num(4711), num(4712), false},
		{"a small prime", 2048, 2048, 8192, num(23), num(2), num(5), num(6), false},
		{"another generator", 2048, 2048, 8192, p, num(4), num(4711), num(4712), false},
		{"the generator 1", 2048, 2048, 8192, p, num(1), num(4711), num(4712), false},
		{"e is 0", 2048, 2048, 8192, p, num(2), num(0), num(4712), false},
		{"e is 1", 2048, 2048, 8192, p, num(2), num(1), num(4712), false},
		{"f is p-1", 2048, 2048, 8192, p, num(2), num(4711), add(-1), false},
		{"f is p", 2048, 2048, 8192, p, num(2), num(4711), p, false},
		{"f is negative", 2048, 2048, 8192, p, num(2), num(4711), num(-4712), false},
		{"smaller than the client asks for", 3072, 3072, 8192, p, num(2), num(4711), num(4712), false},
		{"larger than the client asks for", 1024, 1024, 1024, p, num(2), num(4711), num(4712), false},
		{"sizes without an order", 2048, 1024, 8192, p, num(2), num(4711), num(4712), false},
	} {
		ask := func(k *talk) capproto.Msg {
			host := k.hostKey(ssh.KeyAlgoED25519)
			x := k.exchange(host)
			transcript := ssh.Marshal(struct {
				VC, VS        string
				IC, IS, KS    []byte
				Min, N, Max   uint32
				P, G, E, F, K *big.Int
			}{x.VC, x.VS, kexInit(random(16), method), kexInit(k.nonce, method), host, c.least, c.n, c.most, c.p, c.g, c.e, c.f, num(99)})
			return k.ask("sign", "key", capproto.B64(host), "alg", ssh.KeyAlgoED25519, "hash", "sha256", "transcript", capproto.B64(transcript))
		}
		if c.signed {
			if m := ask(b.sshfront.start(t, "127.0.0.1")); m.Verb != capproto.VerbOK {
				t.Errorf("%s: %s", c.what, show(m))
			}
			continue
		}
		b.wantLogged(t, "protocol violation", 1, func() {
			k := b.sshfront.start(t, "127.0.0.1")
			k.t = t
			k.wantEnd(c.what, ask(k), capproto.CodeProtocol)
		})
	}
}
