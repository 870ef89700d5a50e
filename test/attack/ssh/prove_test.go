package ssh

import (
	"bytes"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
)

// TestAHostKeyProvesItselfForThisSessionOnly asks for proofs of host keys (OpenSSH's
// PROTOCOL, section 2.5) of what is not a host key. What is signed for a true one is
// the session id of this very conversation.
func TestAHostKeyProvesItselfForThisSessionOnly(t *testing.T) {
	b := up(t)
	ed := newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line(""))
	admitted := func() *talk {
		k := b.sshfront.connect(t)
		if m := k.login("alice", ed); m.Verb != capproto.VerbDone {
			t.Fatalf("the true proof: %s", show(m))
		}
		return k
	}
	host := admitted().hostKey(ssh.KeyAlgoED25519)
	for what, blob := range map[string][]byte{
		"nothing": nil, "a stranger's key": newKey(t, "ed25519", 0).blob(), "the user's key": ed.blob(), "half a key": host[:len(host)/2],
		"a byte after the key": append(bytes.Clone(host), 0), "the session id": random(32), "64 bytes": random(64),
		"two keys":      append(bytes.Clone(host), host...),
		"a certificate": certify(t, newKey(t, "ed25519", 0), newKey(t, "ed25519", 0), nil).blob(),
		"an SSHSIG": ssh.Marshal(struct {
			Magic                          [6]byte
			Namespace, Reserved, Hash, Sum string
		}{[6]byte([]byte("SSHSIG")), "file", "", "sha256", string(random(32))}),
	} {
		b.wantLogged(t, "protocol violation", 1, func() {
			k := admitted()
			k.wantEnd(what, k.ask("prove", "key", capproto.B64(blob)), capproto.CodeProtocol)
		})
	}
	for what, other := range map[string][]string{
		"a session id": {"sid", capproto.B64(random(32))}, "an algorithm": {"alg", ssh.KeyAlgoRSA}, "data": {"data", capproto.B64(random(32))},
	} {
		b.wantLogged(t, "protocol violation", 1, func() {
			k := admitted()
			k.wantEnd(what, k.ask("prove", append([]string{"key", capproto.B64(host)}, other...)...), capproto.CodeProtocol)
		})
	}
	// The true ones, also after later key exchanges, and again.
	k := admitted()
	seen := map[string]string{}
	for round := range 3 {
		for _, blob := range k.keys {
			m := k.ask("prove", "key", capproto.B64(blob))
			sig, err := capproto.UnB64(m.Get("sig"))
			if m.Verb != capproto.VerbOK || err != nil {
				t.Fatalf("a true host key: %s", show(m))
			}
			if was, ok := seen[string(blob)]; ok && was != string(sig) {
				t.Error("a host key signed twice")
			}
			seen[string(blob)] = string(sig)
			var s ssh.Signature
			if err := ssh.Unmarshal(sig, &s); err != nil {
				t.Fatal(err)
			}
			data := ssh.Marshal(struct {
				Name     string
				SID, Key []byte
			}{"hostkeys-prove-00@openssh.com", k.sid, blob})
			if err := parsed(t, blob).Verify(data, &s); err != nil {
				t.Errorf("round %d: %s: %v", round, parsed(t, blob).Type(), err)
			}
		}
		k.want("ok", "nonce")
		if m := k.sign(host, ssh.KeyAlgoED25519, k.exchange(host)); m.Verb != capproto.VerbOK {
			t.Fatalf("a later key exchange: %s", show(m))
		}
		if round == 1 {
			k.want("ok", "ticket")
		}
	}
}
