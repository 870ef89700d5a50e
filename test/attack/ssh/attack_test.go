package ssh

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/test/testbed"
)

// patient lets a conversation fail as often as a test wants.
const patient = "MaxAuthTries 100000\n"

// install gives a user an authorized_keys.
func (b *bed) install(t *testing.T, user, lines string) {
	t.Helper()
	b.Write(t, "/home/"+user+"/.ssh/authorized_keys", lines)
}

// wantNothing checks that the conversation has no capability, and no way to
// one.
func (k *talk) wantNothing() {
	k.t.Helper()
	if m := k.ask("attr"); m.Verb != "" && (m.Get("state") != "ssh" || m.Get("user") != "") {
		k.t.Errorf("state %s, user %q", m.Get("state"), m.Get("user"))
	}
	if m := k.ask("authinfo"); m.Verb != "" && (m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeProtocol) {
		k.t.Errorf("authinfo: %s", show(m))
	}
	k.close()
}

func TestAFrontEndThatLies(t *testing.T) {
	b := up(t)
	b.configure(t, patient)
	given := b.Logged("capability given")
	for name, f := range map[string]func(*testing.T){
		"lies about signatures":            b.signatures,
		"has other things signed":          b.exchanges,
		"replays signatures for elsewhere": b.elsewhere,
		"passes a socket that is none":     b.sockets,
		"asks out of turn":                 b.turns,
		"abuses tickets":                   b.tickets,
		"claims without a proof":           b.claims,
		"sends nonsense":                   b.nonsense,
		"forges senders":                   b.senders,
		"asks in 64 conversations at once": b.many,
	} {
		t.Run(name, func(t *testing.T) {
			b.sshfront = b.relay(t, "_sshfront")
			f(t)
		})
	}
	if n := b.Logged("capability given") - given; n != 0 {
		t.Errorf("%d capabilities given", n)
	}
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Errorf("PAM workers are left: %v", b.Pids("factotum-pam"))
	}
}

// signatures offers alice's key with proofs that are none. In the end the true
// proof is given in the same conversation, so that each lie is known to differ
// in nothing else.
func (b *bed) signatures(t *testing.T) {
	ca := newKey(t, "ed25519", 0)
	ed, rsa, ec := newKey(t, "ed25519", 0), newKey(t, "rsa", 0), newKey(t, "ecdsa-256", 0)
	ed2, sk, skec := newKey(t, "ed25519", 0), newKey(t, "sk-ed25519", 1), newKey(t, "sk-ecdsa", 1)
	cert := certify(t, ca, newKey(t, "ed25519", 0), nil)
	bobs, stranger := newKey(t, "ed25519", 0), newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line("")+rsa.line("")+ec.line("")+ed2.line("")+sk.line("")+skec.line("")+ca.line("cert-authority"))
	b.install(t, "bob", bobs.line(""))

	// A signature that was good once.
	old := b.sshfront.connect(t)
	oldSig := ssh.Marshal(ed.sign(ssh.Marshal(old.claim("alice", ed))))
	if m := old.prove("alice", ed, oldSig); m.Verb != capproto.VerbDone {
		t.Fatalf("the true proof: %s", show(m))
	}

	for _, honest := range []key{ed, rsa, rsa.as(t, ssh.KeyAlgoRSASHA512), ec, sk, skec, cert} {
		k := b.sshfront.connect(t)
		type lie struct {
			what string
			sig  []byte
		}
		var lies []lie
		about := func(what string, change func(*claim)) {
			c := k.claim("alice", honest)
			change(&c)
			lies = append(lies, lie{what, ssh.Marshal(honest.sign(ssh.Marshal(c)))})
		}
		about("another session", func(c *claim) { c.Session = random(32) })
		about("the session of another conversation", func(c *claim) { c.Session = old.sid })
		about("an empty session", func(c *claim) { c.Session = nil })
		about("a longer session", func(c *claim) { c.Session = append(slices.Clone(c.Session), 0) })
		about("another message", func(c *claim) { c.Type = 51 })
		about("another user", func(c *claim) { c.User = "bob" })
		about("no user", func(c *claim) { c.User = "" })
		about("another service", func(c *claim) { c.Service = "ssh-userauth" })
		about("another method", func(c *claim) { c.Method = "hostbased" })
		about("the method of publickey-hostbound-v00@openssh.com", func(c *claim) { c.Method = "publickey-hostbound-v00@openssh.com" })
		about("a query", func(c *claim) { c.Signed = false })
		about("another algorithm", func(c *claim) { c.Alg = ssh.KeyAlgoECDSA384 })
		about("another key", func(c *claim) { c.Blob = ed2.blob() })
		about("bytes after the key", func(c *claim) { c.Blob = append(slices.Clone(c.Blob), 0) })
		true_ := ssh.Marshal(k.claim("alice", honest))
		lies = append(lies, lie{"bytes after the claim", ssh.Marshal(honest.sign(append(slices.Clone(true_), 0)))})
		lies = append(lies, lie{"another key's signature", ssh.Marshal(ed2.sign(true_))})
		lies = append(lies, lie{"a stranger's signature", ssh.Marshal(stranger.sign(true_))})
		lies = append(lies, lie{"a signature that was good once", oldSig})
		lies = append(lies, lie{"no bytes", nil})
		lies = append(lies, lie{"the claim itself", true_})
		lies = append(lies, lie{"zeros", make([]byte, 83)})
		sig := honest.sign(true_)
		good := ssh.Marshal(sig)
		for i := range good {
			flipped := slices.Clone(good)
			flipped[i] ^= 1 << (i % 8)
			lies = append(lies, lie{fmt.Sprintf("byte %d flipped", i), flipped})
		}
		for _, n := range []int{1, 3, 4, 5, len(good) / 2, len(good) - 2, len(good) - 1} {
			lies = append(lies, lie{fmt.Sprintf("truncated to %d", n), good[:n]})
		}
		lies = append(lies, lie{"a byte more", append(slices.Clone(good), 0)})
		lies = append(lies, lie{"five bytes more", append(slices.Clone(good), 1, 0, 0, 0, 42)})
		for _, format := range []string{ssh.KeyAlgoRSA, ssh.KeyAlgoED25519, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512, honest.alg + "x", "", ssh.CertAlgoED25519v01} {
			if format != sig.Format {
				lies = append(lies, lie{"the format " + format, ssh.Marshal(&ssh.Signature{Format: format, Blob: sig.Blob, Rest: sig.Rest})})
			}
		}
		if len(sig.Rest) > 0 {
			for what, rest := range map[string][]byte{
				"no flags": nil, "no counter": {1}, "other flags": {5, 0, 0, 0, 42}, "no touch": {0, 0, 0, 0, 42},
				"another counter": {1, 0, 0, 0, 43}, "a counter and more": {1, 0, 0, 0, 42, 0},
			} {
				lies = append(lies, lie{what, ssh.Marshal(&ssh.Signature{Format: sig.Format, Blob: sig.Blob, Rest: rest})})
			}
		}
		b.wantLogged(t, "signature refused", len(lies), func() {
			for _, l := range lies {
				if m := k.prove("alice", honest, l.sig); m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
					t.Fatalf("%s: %s: %s", honest.alg, l.what, show(m))
				}
			}
		})
		if m := k.login("alice", honest); m.Verb != capproto.VerbDone {
			t.Errorf("%s: the true proof: %s", honest.alg, show(m))
		}
		k.close()
	}

	// SHA-1 is nobody's algorithm unless it is named.
	sha1 := rsa.as(t, ssh.KeyAlgoRSA)
	k := b.sshfront.connect(t)
	b.wantLogged(t, "public key refused", 1, func() {
		if m := k.login("alice", sha1); m.Get("code") != capproto.CodeDenied {
			t.Errorf("ssh-rsa: %s", show(m))
		}
	})
	k.wantNothing()

	// Keys that are not alice's, or none.
	certOf := func(change func(*ssh.Certificate)) key { return certify(t, ca, newKey(t, "ed25519", 0), change) }
	renamed := cert
	renamed.alg = ssh.KeyAlgoED25519
	plain := ed
	plain.alg = ssh.CertAlgoED25519v01
	for what, c := range map[string]struct {
		user   string
		key    key
		logged string
	}{
		"a stranger's key":                  {"alice", stranger, "Failed publickey for alice"},
		"another user's key":                {"alice", bobs, "Failed publickey for alice"},
		"alice's key for bob":               {"bob", ed, "Failed publickey for bob"},
		"alice's key for root":              {"root", ed, "Failed publickey for root"},
		"a key for nobody known":            {"mallory", ed, "Failed publickey for invalid user mallory"},
		"a certificate for another":         {"alice", certOf(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"bob"} }), "listed principal"},
		"a certificate of the past":         {"alice", certOf(func(c *ssh.Certificate) { c.ValidBefore = c.ValidAfter + 1 }), "expired"},
		"a certificate of the future":       {"alice", certOf(func(c *ssh.Certificate) { c.ValidAfter = c.ValidBefore - 1 }), "not yet valid"},
		"a host's certificate":              {"alice", certOf(func(c *ssh.Certificate) { c.CertType = ssh.HostCert }), "not for users"},
		"a certificate with a demand":       {"alice", certOf(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"surprise": ""} }), "critical option"},
		"a certificate from elsewhere":      {"alice", certOf(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "10.0.0.0/8"} }), "Refusing certificate"},
		"a stranger's certificate":          {"alice", certify(t, stranger, newKey(t, "ed25519", 0), nil), "Failed publickey for alice"},
		"a key's certificate of itself":     {"alice", certify(t, ed, ed, nil), "Failed publickey for alice"},
		"a certificate called a key":        {"alice", renamed, "public key refused"},
		"a key called a certificate":        {"alice", plain, "public key refused"},
		"an authority that signs in itself": {"alice", ca, "Failed publickey for alice"},
	} {
		k := b.sshfront.connect(t)
		b.wantLogged(t, c.logged, -1, func() {
			for _, m := range []capproto.Msg{k.query(c.user, c.key), k.login(c.user, c.key)} {
				if m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
					t.Errorf("%s: %s", what, show(m))
				}
			}
		})
		k.wantNothing()
	}

	// A certificate that was altered after the authority had signed it.
	k = b.sshfront.connect(t)
	blob := cert.blob()
	refused := b.Logged("public key refused") + b.Logged("Refusing certificate") + b.Logged("Failed publickey")
	for i := range blob {
		altered := slices.Clone(blob)
		altered[i] ^= 0x10
		m := k.ask("auth", "user", "alice", "method", "publickey", "alg", cert.alg, "key", capproto.B64(altered))
		if m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
			t.Errorf("byte %d of a certificate flipped: %s", i, show(m))
		}
	}
	if n := b.Logged("public key refused") + b.Logged("Refusing certificate") + b.Logged("Failed publickey") - refused; n < len(blob) {
		t.Errorf("%d altered certificates, %d lines in the log", len(blob), n)
	}
	k.wantNothing()
}

// exchanges asks for signatures with the host keys that are not to be had. Each
// lie differs from the truth in one thing.
func (b *bed) exchanges(t *testing.T) {
	refuse := func(what string, f func(k *talk) capproto.Msg) {
		t.Helper()
		b.wantLogged(t, "protocol violation", 1, func() {
			k := b.sshfront.start(t, "127.0.0.1")
			k.t = t
			k.wantEnd(what, f(k), capproto.CodeProtocol)
		})
	}
	// What is not a transcript.
	sshsig := ssh.Marshal(struct {
		Magic                          [6]byte
		Namespace, Reserved, Hash, Sum string
	}{[6]byte([]byte("SSHSIG")), "file", "", "sha256", string(random(32))})
	for what, b := range map[string][]byte{
		"nothing": nil, "a byte": random(1), "a hash by SHA-1": random(20), "a hash by SHA-256": random(32), "a hash by SHA-384": random(48),
		"64 bytes": random(64), "an SSHSIG": sshsig, "20000 bytes": random(20000),
	} {
		for _, hash := range []string{"sha256", "sha512"} {
			refuse(what, func(k *talk) capproto.Msg {
				return k.ask("sign", "key", capproto.B64(k.hostKey(ssh.KeyAlgoED25519)), "alg", ssh.KeyAlgoED25519, "hash", hash, "transcript", capproto.B64(b))
			})
		}
		refuse(what+" as a hash", func(k *talk) capproto.Msg {
			return k.ask("sign", "key", capproto.B64(k.hostKey(ssh.KeyAlgoED25519)), "alg", ssh.KeyAlgoED25519, "data", capproto.B64(b))
		})
	}
	// by has both sides agree on another method.
	by := func(x *exchange, method string) {
		x.IC, x.IS = kexInit(random(16), method), kexInit(x.IS[1:17], method)
	}
	// Transcripts of other exchanges than this one.
	other := b.sshfront.start(t, "127.0.0.1")
	second := b.relay(t, "_second").start(t, "127.0.0.1")
	for what, lie := range map[string]func(x *exchange){
		"a nonce of one's own":                     func(x *exchange) { x.IS = kexInit(random(16)) },
		"no nonce":                                 func(x *exchange) { x.IS = kexInit(make([]byte, 16)) },
		"a nonce with a bit flipped":               func(x *exchange) { x.IS[16] ^= 1 },
		"the nonce of another conversation":        func(x *exchange) { x.IS = kexInit(other.nonce) },
		"the nonce of another front end":           func(x *exchange) { x.IS = kexInit(second.nonce) },
		"the nonce as the client's cookie":         func(x *exchange) { x.IC, x.IS = x.IS, x.IC },
		"a byte after I_S":                         func(x *exchange) { x.IS = append(x.IS, 0) },
		"much after I_S":                           func(x *exchange) { x.IS = append(x.IS, sshsig...) },
		"half of I_S":                              func(x *exchange) { x.IS = x.IS[:17] },
		"I_S of another type":                      func(x *exchange) { x.IS[0] = 30 },
		"a byte after I_C":                         func(x *exchange) { x.IC = append(x.IC, 0) },
		"no I_C":                                   func(x *exchange) { x.IC = nil },
		"another V_S":                              func(x *exchange) { x.VS = "SSH-2.0-OpenSSH_10.0" },
		"a longer V_S":                             func(x *exchange) { x.VS += " " },
		"no V_S":                                   func(x *exchange) { x.VS = "" },
		"a V_C that is not SSH's":                  func(x *exchange) { x.VC = "SSHSIG" },
		"the key of another server":                func(x *exchange) { x.KS = newKey(t, "ed25519", 0).blob() },
		"another host key of this server":          func(x *exchange) { x.KS = other.hostKey(ssh.KeyAlgoRSA) },
		"a byte after the host key":                func(x *exchange) { x.KS = append(slices.Clone(x.KS), 0) },
		"a certificate that this host has not got": func(x *exchange) { x.KS = certify(t, newKey(t, "ed25519", 0), newKey(t, "ed25519", 0), nil).blob() },
		"no shared secret":                         func(x *exchange) { x.Secret = nil },
		"a method of the client alone":             func(x *exchange) { x.IC = kexInit(random(16), "ecdh-sha2-nistp256") },
		"another method than its values":           func(x *exchange) { by(x, "ecdh-sha2-nistp256") },
		"a method by SHA-1":                        func(x *exchange) { by(x, "diffie-hellman-group14-sha1") },
		"a method that is not offered":             func(x *exchange) { by(x, "diffie-hellman-group14-sha256"); x.Theirs, x.Ours = []byte{5}, []byte{6} },
		"a method that nobody knows":               func(x *exchange) { by(x, "sshsig@example.com") },
		"a signed text as a public value":          func(x *exchange) { x.Theirs = sshsig },
	} {
		refuse(what, func(k *talk) capproto.Msg {
			host := k.hostKey(ssh.KeyAlgoED25519)
			x := k.exchange(host)
			lie(&x)
			return k.sign(host, ssh.KeyAlgoED25519, x)
		})
	}
	refuse("bytes after the transcript", func(k *talk) capproto.Msg {
		host := k.hostKey(ssh.KeyAlgoED25519)
		return k.ask("sign", "key", capproto.B64(host), "alg", ssh.KeyAlgoED25519, "hash", "sha256", "transcript", capproto.B64(append(ssh.Marshal(k.exchange(host)), 0)))
	})
	// The method's hash is another one.
	for _, hash := range []string{"", "sha1", "md5", "none", "SHA256", "sha384", "sha512"} {
		refuse("the hash "+hash, func(k *talk) capproto.Msg {
			host := k.hostKey(ssh.KeyAlgoED25519)
			return k.ask("sign", "key", capproto.B64(host), "alg", ssh.KeyAlgoED25519, "hash", hash, "transcript", capproto.B64(ssh.Marshal(k.exchange(host))))
		})
	}
	for alg, keyType := range map[string]string{
		ssh.KeyAlgoRSA: ssh.KeyAlgoRSA, ssh.KeyAlgoRSASHA512: ssh.KeyAlgoED25519, ssh.KeyAlgoED25519: ssh.KeyAlgoRSA, "": ssh.KeyAlgoED25519,
		ssh.CertAlgoED25519v01: ssh.KeyAlgoED25519, "ssh-dss": ssh.KeyAlgoRSA, ssh.KeyAlgoSKED25519: ssh.KeyAlgoED25519, "sshsig": ssh.KeyAlgoED25519,
	} {
		refuse("algorithm "+alg+" of "+keyType, func(k *talk) capproto.Msg {
			host := k.hostKey(keyType)
			return k.sign(host, alg, k.exchange(host))
		})
	}
	for what, blob := range map[string][]byte{
		"no key": nil, "a stranger's key": newKey(t, "ed25519", 0).blob(), "half a key": {0, 0, 0, 11},
	} {
		refuse(what, func(k *talk) capproto.Msg { return k.sign(blob, ssh.KeyAlgoED25519, k.exchange(blob)) })
	}
	other.close()
	second.close()
	b.unsafeGroups(t)

	// A second key exchange before authentication, with the nonce that was used
	// or with a new one.
	ed := newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line(""))
	for what, ask := range map[string]func(k *talk) capproto.Msg{
		"a second key exchange": func(k *talk) capproto.Msg {
			host := k.hostKey(ssh.KeyAlgoRSA)
			return k.sign(host, ssh.KeyAlgoRSASHA256, k.exchange(host))
		},
		"the same one again": func(k *talk) capproto.Msg { return k.sign(k.hostKey(ssh.KeyAlgoED25519), ssh.KeyAlgoED25519, k.done) },
		"a new nonce":        func(k *talk) capproto.Msg { return k.ask("nonce") },
	} {
		for _, before := range []string{"", "a failure", "a key that would do", "questions"} {
			b.wantLogged(t, "protocol violation", 1, func() {
				k := b.sshfront.connect(t)
				switch before {
				case "a failure":
					k.password("alice", "wrong")
				case "a key that would do":
					k.query("alice", ed)
				case "questions":
					k.want("ok", "auth", "user", "alice", "method", "keyboard-interactive")
				}
				k.wantEnd(what+" after "+before, ask(k), capproto.CodeProtocol)
			})
		}
	}
	// After authentication later key exchanges are signed, each with a nonce of
	// its own, and the session id stays: here another would let a second key be
	// proven.
	b.configure(t, patient+"AuthenticationMethods publickey,publickey\n")
	defer b.configure(t, patient)
	ed2 := newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line("")+ed2.line(""))
	k := b.sshfront.connect(t)
	if m := k.login("alice", ed); m.Verb != capproto.VerbMore {
		t.Fatalf("the first key: %s", show(m))
	}
	b.wantLogged(t, "protocol violation", 1, func() {
		host := k.hostKey(ssh.KeyAlgoED25519)
		k.wantEnd("a second key exchange after the first of two proofs", k.sign(host, ssh.KeyAlgoED25519, k.exchange(host)), capproto.CodeProtocol)
	})
	for what, ask := range map[string]func(k *talk, host []byte) capproto.Msg{
		"a key exchange without a new nonce": func(k *talk, host []byte) capproto.Msg { return k.sign(host, ssh.KeyAlgoED25519, k.exchange(host)) },
		"the first nonce in a later key exchange": func(k *talk, host []byte) capproto.Msg {
			x := k.exchange(host)
			k.want("ok", "nonce")
			return k.sign(host, ssh.KeyAlgoED25519, x)
		},
		"a later nonce for the second time": func(k *talk, host []byte) capproto.Msg {
			k.want("ok", "nonce")
			if m := k.sign(host, ssh.KeyAlgoED25519, k.exchange(host)); m.Verb != capproto.VerbOK {
				t.Errorf("a later key exchange: %s", show(m))
			}
			return k.sign(host, ssh.KeyAlgoED25519, k.exchange(host))
		},
		"two nonces at once": func(k *talk, host []byte) capproto.Msg {
			k.want("ok", "nonce")
			return k.ask("nonce")
		},
		"an SSHSIG with a new nonce": func(k *talk, host []byte) capproto.Msg {
			k.want("ok", "nonce")
			return k.ask("sign", "key", capproto.B64(host), "alg", ssh.KeyAlgoED25519, "hash", "sha512", "transcript", capproto.B64(sshsig))
		},
	} {
		b.wantLogged(t, "protocol violation", 1, func() {
			k := b.sshfront.connect(t)
			k.t = t
			k.login("alice", ed)
			if m := k.login("alice", ed2); m.Verb != capproto.VerbDone {
				t.Fatalf("the second key: %s", show(m))
			}
			k.wantEnd(what, ask(k, k.hostKey(ssh.KeyAlgoED25519)), capproto.CodeProtocol)
		})
	}
}

// elsewhere has alice log in to another server, which the attacker owns too, and
// tries to log in here with her signature.
func (b *bed) elsewhere(t *testing.T) {
	ed, theirs := newKey(t, "ed25519", 0), newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line(""))
	over := func(k *talk, x exchange) []byte {
		c := k.claim("alice", ed)
		c.Session = x.hash()
		return ssh.Marshal(ed.sign(ssh.Marshal(c)))
	}
	for what, shown := range map[string]func(k *talk) exchange{
		"the other server": func(*talk) exchange {
			return exchange{"SSH-2.0-client", "SSH-2.0-other", kexInit(random(16)), kexInit(random(16)), theirs.blob(), random(32), random(32), random(32)}
		},
		// It does what it can to look like this host: all but the key.
		"the other server with the nonce of here": func(k *talk) exchange { return k.exchange(theirs.blob()) },
		// alice logged in here, in another conversation.
		"another conversation": func(*talk) exchange {
			other := b.sshfront.start(t, "127.0.0.1")
			return other.exchange(other.hostKey(ssh.KeyAlgoED25519))
		},
	} {
		// Her signature's session id is not to be had here.
		b.wantLogged(t, "protocol violation", 1, func() {
			k := b.sshfront.start(t, "127.0.0.1")
			k.t = t
			k.wantEnd("the exchange of "+what, k.sign(k.hostKey(ssh.KeyAlgoED25519), ssh.KeyAlgoED25519, shown(k)), capproto.CodeProtocol)
		})
		// And it fits no session of here.
		b.wantLogged(t, "signature refused", 1, func() {
			k := b.sshfront.start(t, "127.0.0.1")
			k.t = t
			x := shown(k)
			host := k.hostKey(ssh.KeyAlgoED25519)
			here := k.exchange(host)
			if m := k.sign(host, ssh.KeyAlgoED25519, here); m.Verb != capproto.VerbOK {
				t.Fatalf("sign: %s", show(m))
			}
			k.sid = here.hash()
			if m := k.prove("alice", ed, over(k, x)); m.Get("code") != capproto.CodeDenied {
				t.Errorf("the signature for %s: %s", what, show(m))
			}
			k.wantNothing()
		})
	}
}

// sockets starts with a descriptor that is no TCP connection.
func (b *bed) sockets(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	defer listener.Close()
	udp, err := net.Dial("udp", "127.0.0.1:9")
	must(err)
	defer udp.Close()
	u, theirs := pair(t)
	defer u.Close()
	r, w, err := os.Pipe()
	must(err)
	defer r.Close()
	defer w.Close()
	null, err := os.Open("/dev/null")
	must(err)
	defer null.Close()
	fd := func(f *os.File, err error) *os.File { must(err); return f }
	lf, uf := fd(listener.(*net.TCPListener).File()), fd(udp.(*net.UDPConn).File())
	defer lf.Close()
	defer uf.Close()
	good := tcp(t, "127.0.0.1")
	defer good.Close()
	start := capproto.NewMsg("start", "version", version, "proto", "ssh")
	for what, files := range map[string][]*os.File{
		"nothing": {}, "a listening socket": {lf}, "a UDP socket": {uf}, "a unix socket": {theirs}, "a pipe": {r}, "/dev/null": {null},
		"two connections": {good, good},
	} {
		b.wantLogged(t, "protocol violation", 1, func() {
			k := b.sshfront.dial(t)
			k.t = t
			k.wantEnd(what, k.say(start, files...), capproto.CodeProtocol)
		})
	}
	for what, m := range map[string]capproto.Msg{
		"a user with it":    capproto.NewMsg("start", "version", version, "proto", "ssh", "user", "alice"),
		"a host with it":    capproto.NewMsg("start", "version", version, "proto", "ssh", "host", "10.0.0.1"),
		"preauth with it":   capproto.NewMsg("start", "version", version, "proto", "ssh", "preauth", "yes"),
		"another protocol":  capproto.NewMsg("start", "version", version, "proto", "pam", "user", "alice"),
		"no protocol":       capproto.NewMsg("start"),
		"an unknown one":    capproto.NewMsg("start", "version", version, "proto", "p9sk1"),
		"two at once":       capproto.NewMsg("start", "version", version, "proto", "ssh", "proto", "pam"),
		"the address named": capproto.NewMsg("start", "version", version, "proto", "ssh", "addr", "10.0.0.1"),
	} {
		b.wantLogged(t, "protocol violation", 1, func() {
			k := b.sshfront.dial(t)
			k.t = t
			k.wantEnd(what, k.say(m, good), capproto.CodeProtocol)
		})
	}
	b.wantLogged(t, "protocol violation", 1, func() {
		k := b.relay(t, "_login").dial(t)
		k.wantEnd("ssh from a front end for pam", k.say(start, good), capproto.CodeProtocol)
	})
}

// to leads a conversation to a state, rightly.
func (b *bed) to(t *testing.T, state string, ed key) *talk {
	t.Helper()
	switch state {
	case "idle":
		return b.sshfront.dial(t)
	case "ssh":
		return b.sshfront.start(t, "127.0.0.1")
	case "exchanged":
		return b.sshfront.connect(t)
	case "proven", "opening", "open":
		first := b.to(t, "admitted", ed)
		k := b.sshfront.dial(t)
		k.want("ok", "attach", "ticket", first.want("ok", "ticket").Get("ticket"))
		if state == "proven" {
			return k
		}
		k.want("ok", "session")
		if state == "open" {
			for k.want2("read").Verb != capproto.VerbDone {
			}
		}
		return k
	}
	k := b.sshfront.connect(t)
	switch state {
	case "talking":
		k.want("ok", "auth", "user", "alice", "method", "keyboard-interactive")
	case "asked":
		k.want("ok", "auth", "user", "alice", "method", "keyboard-interactive")
		if m := k.want("ok", "read"); m.Get("style") != "echo-off" {
			t.Fatalf("no question: %s", show(m))
		}
	default:
		if m := k.login("alice", ed); m.Verb != capproto.VerbDone {
			t.Fatalf("the true proof: %s", show(m))
		}
		switch state {
		case "spent":
			k.want("ok", "ticket")
		case "rekeying":
			k.want("ok", "nonce")
		}
	}
	return k
}

// want2 asks and fails the test on an error.
func (k *talk) want2(verb string) capproto.Msg {
	k.t.Helper()
	m := k.ask(verb)
	if m.Verb != capproto.VerbOK && m.Verb != capproto.VerbDone {
		k.t.Fatalf("%s: %s", verb, show(m))
	}
	return m
}

// turns sends every verb in every state that it is not allowed in.
func (b *bed) turns(t *testing.T) {
	ed := newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line(""))
	allowed := map[string][]string{
		"idle":      {"start", "attach", "attr"},
		"ssh":       {"sign", "attr"},         // no auth before the key exchange
		"exchanged": {"auth", "user", "attr"}, // no second sign
		"talking":   {"auth", "read", "attr"},
		"asked":     {"auth", "write", "attr"},
		"admitted":  {"nonce", "prove", "ticket", "attr"}, // no sign without a new nonce
		"rekeying":  {"sign", "prove", "ticket", "attr"},
		"spent":     {"nonce", "prove", "attr"},
		"proven":    {"session", "attr"},
		"opening":   {"read", "attr"},
		"open":      {"authinfo", "attr"},
	}
	verbs := map[string]func(k *talk) capproto.Msg{
		"start": func(k *talk) capproto.Msg {
			conn := tcp(t, "127.0.0.1")
			defer conn.Close()
			return k.say(capproto.NewMsg("start", "version", version, "proto", "ssh"), conn)
		},
		"sign": func(k *talk) capproto.Msg {
			host := newKey(t, "ed25519", 0).blob()
			if len(k.keys) > 0 {
				host = k.hostKey(ssh.KeyAlgoED25519)
			}
			return k.sign(host, ssh.KeyAlgoED25519, k.exchange(host))
		},
		"nonce": func(k *talk) capproto.Msg { return k.ask("nonce") },
		"prove": func(k *talk) capproto.Msg {
			host := newKey(t, "ed25519", 0).blob()
			if len(k.keys) > 0 {
				host = k.hostKey(ssh.KeyAlgoED25519)
			}
			return k.ask("prove", "key", capproto.B64(host))
		},
		"auth":     func(k *talk) capproto.Msg { return k.login("alice", ed) },
		"user":     func(k *talk) capproto.Msg { return k.ask("user", "name", "alice") },
		"read":     func(k *talk) capproto.Msg { return k.ask("read") },
		"write":    func(k *talk) capproto.Msg { return k.ask("write", "data", password) },
		"session":  func(k *talk) capproto.Msg { return k.ask("session") },
		"authinfo": func(k *talk) capproto.Msg { return k.ask("authinfo") },
		"ticket":   func(k *talk) capproto.Msg { return k.ask("ticket") },
		"attach": func(k *talk) capproto.Msg {
			other := b.to(t, "admitted", ed)
			return k.ask("attach", "ticket", other.want("ok", "ticket").Get("ticket"))
		},
		// What is not in the table at all: replies, words of the worker, others.
		"done":         func(k *talk) capproto.Msg { return k.ask("done") },
		"ok":           func(k *talk) capproto.Msg { return k.ask("ok", "user", "alice") },
		"proven":       func(k *talk) capproto.Msg { return k.ask("proven", "user", "alice") },
		"opened":       func(k *talk) capproto.Msg { return k.ask("opened", "user", "alice", "uid", "0", "groups", "0") },
		"key":          func(k *talk) capproto.Msg { return k.ask("key", "key", "", "settings", "{}") },
		"authenticate": func(k *talk) capproto.Msg { return k.ask("authenticate") },
		"account":      func(k *talk) capproto.Msg { return k.ask("account") },
	}
	for state, may := range allowed {
		for verb, f := range verbs {
			if slices.Contains(may, verb) {
				continue
			}
			b.wantLogged(t, "protocol violation", 1, func() {
				k := b.to(t, state, ed)
				k.t = t
				k.wantEnd(verb+" in "+state, f(k), capproto.CodeProtocol)
			})
		}
	}
	// A change of mind about who logs in.
	for _, method := range []string{"none", "password", "publickey", "keyboard-interactive"} {
		b.wantLogged(t, "Change of username is not allowed", 1, func() {
			k := b.sshfront.connect(t)
			k.query("alice", ed)
			k.wantEnd("another user by "+method, k.ask("auth", "user", "root", "method", method, "data", password), capproto.CodeProtocol)
		})
	}
}

// tickets uses tickets as they must not be used.
func (b *bed) tickets(t *testing.T) {
	ed := newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line(""))
	second, login, other := b.relay(t, "_second"), b.relay(t, "_login"), b.relay(t, "_sshfront")
	refuse := func(what string, p *relay, ticket string) {
		t.Helper()
		b.wantLogged(t, "protocol violation", 1, func() {
			k := p.dial(t)
			k.t = t
			k.wantEnd(what, k.ask("attach", "ticket", ticket), capproto.CodeProtocol)
		})
	}
	k := b.to(t, "admitted", ed)
	ticket := k.want("ok", "ticket").Get("ticket")
	refuse("a ticket of another front end for ssh", second, ticket)
	refuse("a ticket of a front end for pam", login, ticket)
	for what, text := range map[string]string{
		"no ticket": "", "half a ticket": ticket[:len(ticket)/2], "a longer ticket": ticket + "A", "another ticket": strings.Repeat("A", len(ticket)),
		"a ticket in capitals": strings.ToUpper(ticket), "a ticket padded": ticket + "=",
	} {
		refuse(what, b.sshfront, text)
	}
	// None of these has spent it. Another process of the same uid may have it.
	a := other.dial(t)
	a.want("ok", "attach", "ticket", ticket)
	if m := a.ask("attr"); m.Get("user") != "alice" || m.Get("state") != "proven" {
		t.Errorf("attached: state %s, user %q", m.Get("state"), m.Get("user"))
	}
	refuse("a ticket that was used", b.sshfront, ticket)
	refuse("a ticket that was used, in another process", other, ticket)
	a.close()
	refuse("a ticket that was used by a process that gave it up", b.sshfront, ticket)
	b.wantLogged(t, "protocol violation", 1, func() {
		k.wantEnd("a second ticket", k.ask("ticket"), capproto.CodeProtocol)
	})

	k = b.to(t, "admitted", ed)
	ticket = k.want("ok", "ticket").Get("ticket")
	k.close()
	// The end of the conversation comes to factotum by way of the relay.
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Error("the worker of a ticket that nobody took is left")
	}
	refuse("a ticket of a conversation that is over", b.sshfront, ticket)

	// Many that want one ticket: one of them gets it.
	k = b.to(t, "admitted", ed)
	ticket = k.want("ok", "ticket").Get("ticket")
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := 0
	for _, p := range []*relay{b.sshfront, other, b.sshfront, other, b.sshfront, other, b.sshfront, other} {
		d := p.dial(t)
		wg.Go(func() {
			if m := d.ask("attach", "ticket", ticket); m.Verb == capproto.VerbOK {
				mu.Lock()
				got++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got != 1 {
		t.Errorf("%d processes attached by one ticket", got)
	}
	k.close()
}

// claims tries what does not come with a proof.
func (b *bed) claims(t *testing.T) {
	ed := newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line(""))
	for what, c := range map[string]struct {
		logged string
		f      func(k *talk) capproto.Msg
	}{
		"a wrong password":         {"Failed password for alice", func(k *talk) capproto.Msg { return k.password("alice", "wrong") }},
		"no password":              {"Failed password for alice", func(k *talk) capproto.Msg { return k.password("alice", "") }},
		"a long password":          {"Failed password for alice", func(k *talk) capproto.Msg { return k.password("alice", strings.Repeat("x", 20000)) }},
		"the junk password":        {"Failed password for alice", func(k *talk) capproto.Msg { return k.password("alice", "\b\n\r\x7fINCORRECT") }},
		"nobody's password":        {"Failed password for invalid user mallory", func(k *talk) capproto.Msg { return k.password("mallory", password) }},
		"a system user's password": {"Failed password for", func(k *talk) capproto.Msg { return k.password("_sshfront", "") }},
		"root's right password":    {"Failed password for root", func(k *talk) capproto.Msg { return k.password("root", password) }},
		"none": {"Failed none for alice", func(k *talk) capproto.Msg {
			k.ask("auth", "user", "alice", "method", "none")
			return k.ask("auth", "user", "alice", "method", "none")
		}},
		"hostbased": {"Failed none for alice", func(k *talk) capproto.Msg {
			return k.ask("auth", "user", "alice", "method", "hostbased", "key", capproto.B64(ed.blob()))
		}},
		"gssapi":              {"Failed gssapi-with-mic for alice", func(k *talk) capproto.Msg { return k.ask("auth", "user", "alice", "method", "gssapi-with-mic") }},
		"a method of no name": {"Failed none for alice", func(k *talk) capproto.Msg { return k.ask("auth", "user", "alice", "method", "") }},
		"a name with escapes": {`Invalid user \\033[2Jalice`, func(k *talk) capproto.Msg { return k.password("\x1b[2Jalice", password) }},
	} {
		k := b.sshfront.connect(t)
		b.wantLogged(t, c.logged, -1, func() {
			if m := c.f(k); m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
				t.Errorf("%s: %s", what, show(m))
			}
		})
		k.wantNothing()
	}
	// A client can choose such names: they are nobody's, and one line of the log.
	for what, c := range map[string]struct{ user, logged string }{
		"no name": {"", "Invalid user  from"}, "a long name": {strings.Repeat("a", 257), "Invalid user " + strings.Repeat("a", 100) + " from"},
		"a name of two lines": {"alice\nFailed password for root", `Invalid user alice\\nFailed password for root from`},
		"a style":             {":alice", "Invalid user  from"}, "root's, behind a style": {":root", "Invalid user  from"},
	} {
		b.wantLogged(t, c.logged, 1, func() {
			k := b.sshfront.connect(t)
			if m := k.ask("user", "name", c.user); m.Get("invalid") != "yes" {
				t.Errorf("%s: %s", what, show(m))
			}
			if m := k.password(c.user, password); m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
				t.Errorf("%s: %s", what, show(m))
			}
			k.wantNothing()
		})
	}
	// Questions that are answered wrongly, or given up before the verdict.
	k := b.sshfront.connect(t)
	for range 3 {
		k.want("ok", "auth", "user", "alice", "method", "keyboard-interactive")
		k.want("ok", "read")
		k.want("ok", "write", "data", "wrong")
		if m := k.ask("read"); m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
			t.Errorf("a wrong answer: %s", show(m))
		}
	}
	for range 3 {
		k.want("ok", "auth", "user", "alice", "method", "keyboard-interactive")
		k.want("ok", "read")
		k.want("ok", "write", "data", password)
		if m := k.ask("auth", "user", "alice", "method", "none"); m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
			t.Errorf("a right answer given up: %s", show(m))
		}
	}
	k.wantNothing()

	// Not even giving up is free.
	b.configure(t, "MaxAuthTries 3\n")
	defer b.configure(t, patient)
	k = b.sshfront.connect(t)
	b.wantLogged(t, "maximum authentication attempts exceeded for alice", 1, func() {
		for i := range 20 {
			if m := k.ask("auth", "user", "alice", "method", "keyboard-interactive"); m.Verb != capproto.VerbOK {
				if m.Get("code") != capproto.CodeLimit {
					t.Errorf("after %d: %s", i, show(m))
				}
				return
			}
		}
		t.Error("twenty times questions were asked for and given up")
	})
	k.wantNothing()
}

// nonsense sends packets that are none.
func (b *bed) nonsense(t *testing.T) {
	ed := newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line(""))
	junk := make([]byte, 2000)
	rand.Read(junk)
	auth := "auth user=alice method=publickey alg=ssh-ed25519 key="
	for what, packet := range map[string]string{
		"a NUL": "\x00", "random bytes": string(junk), "capitals": "AUTH user=alice", "two spaces": "auth  user=alice",
		"no value": "auth user", "an open quote": "auth user='alice", "a quote and more": "auth user='alice'x method=none",
		"a tab": "auth\tuser=alice", "an end of line": "attr\n", "a newline in a value": "auth user=al\nice method=none",
		"a NUL in a value": "auth user=alice\x00 method=none", "twice a user": "auth user=alice user=root method=none",
		"an attribute of another verb": "auth user=alice method=none ticket=x", "many attributes": "auth" + strings.Repeat(" a=b", 5000),
		"a packet too large": "auth user=alice method=password data=" + strings.Repeat("x", 33<<10), "a packet far too large": auth + strings.Repeat("A", 150<<10),
		"a key that is not base64": auth + "!!!", "base64 with padding cut off": auth + "AA", "base64 of two forms": auth + "AB==",
	} {
		b.wantLogged(t, "protocol violation", 1, func() {
			k := b.sshfront.connect(t)
			k.t = t
			if _, err := k.c.Socket().Write([]byte(packet)); err != nil {
				t.Fatal(err)
			}
			k.wantEnd(what, k.hear(), capproto.CodeProtocol)
		})
	}
	k := b.sshfront.connect(t)
	for what, blob := range map[string][]byte{
		"no key": nil, "a length alone": {0, 0, 0, 11}, "a length of 4 GB": {255, 255, 255, 255}, "a type alone": ssh.Marshal(struct{ A string }{ssh.KeyAlgoED25519}),
		"a short key":     ssh.Marshal(struct{ A, B string }{ssh.KeyAlgoED25519, "short"}),
		"a key and more":  append(ed.blob(), 0),
		"20000 bytes":     make([]byte, 20000),
		"a nested length": ssh.Marshal(struct{ A, B, C string }{ssh.CertAlgoED25519v01, "\xff\xff\xff\xff", "\xff\xff\xff\xff"}),
	} {
		b.wantLogged(t, "public key refused", 1, func() {
			m := k.ask("auth", "user", "alice", "method", "publickey", "alg", ssh.KeyAlgoED25519, "key", capproto.B64(blob), "sig", "AAAA")
			if m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
				t.Errorf("%s: %s", what, show(m))
			}
		})
	}
	k.wantNothing()
}

// senders has packets come from processes that the conversation is not of.
func (b *bed) senders(t *testing.T) {
	ed := newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line(""))
	other, second, login := b.relay(t, "_sshfront"), b.relay(t, "_second"), b.relay(t, "_login")

	// The first packet comes from another than made the connection: the same
	// uid is as good, another is not.
	for what, p := range map[string]*relay{"another front end for ssh": second, "a front end for pam": login} {
		b.wantLogged(t, "connection made by uid", 1, func() {
			k := p.talk(t, b.sshfront.fetch(t))
			conn := tcp(t, "127.0.0.1")
			defer conn.Close()
			k.wantEnd(what, k.say(capproto.NewMsg("start", "version", version, "proto", "ssh"), conn), capproto.CodeProtocol)
		})
	}
	// A later packet comes from another.
	for what, p := range map[string]*relay{"another process": other, "another uid": second} {
		conn := b.sshfront.fetch(t)
		dup, err := net.FileConn(conn)
		if err != nil {
			t.Fatal(err)
		}
		again, err := dup.(*net.UnixConn).File()
		dup.Close()
		if err != nil {
			t.Fatal(err)
		}
		k := b.sshfront.talk(t, conn)
		socket := tcp(t, "127.0.0.1")
		if m := k.say(capproto.NewMsg("start", "version", version, "proto", "ssh"), socket); m.Verb != capproto.VerbOK {
			t.Fatalf("start: %s", show(m))
		}
		socket.Close()
		b.wantLogged(t, "in the conversation of pid", 1, func() {
			// Both read from the connection, so that either may get the answer.
			thief := p.talk(t, again)
			if err := thief.c.Send(capproto.NewMsg("attr")); err != nil {
				t.Fatal(err)
			}
			if !testbed.Eventually(func() bool { return strings.Contains(b.Log(), "in the conversation of pid") }) {
				t.Errorf("%s is not noticed", what)
			}
			thief.close()
		})
		if m := k.ask("attr"); m.Verb == capproto.VerbOK {
			t.Errorf("%s: the conversation goes on", what)
		}
	}
}

// many begins 64 conversations at once, of which every other one lies.
func (b *bed) many(t *testing.T) {
	ed, stranger := newKey(t, "ed25519", 0), newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line(""))
	var wg sync.WaitGroup
	talks := make([]*talk, 64)
	for i := range talks {
		talks[i] = b.sshfront.connect(t)
	}
	for i, k := range talks {
		wg.Go(func() {
			if i%2 == 0 {
				if m := k.login("alice", ed); m.Verb != capproto.VerbDone {
					t.Errorf("conversation %d, which is honest: %s", i, show(m))
				}
				return
			}
			next := talks[(i+2)%64]
			for what, m := range map[string]capproto.Msg{
				"a stranger's key":                         k.login("alice", stranger),
				"the signature for the conversation after": k.prove("alice", ed, ssh.Marshal(ed.sign(ssh.Marshal(next.claim("alice", ed))))),
			} {
				if m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
					t.Errorf("conversation %d: %s: %s", i, what, show(m))
				}
			}
		})
	}
	wg.Wait()
	for i, k := range talks {
		if i%2 != 0 {
			k.wantNothing()
		} else if m := k.ask("attr"); m.Get("state") != "admitted" || m.Get("user") != "alice" {
			t.Errorf("conversation %d, which is honest: %s", i, m.Get("state"))
		}
		k.close()
	}
}
