package sshdconf

import (
	"fmt"
	"slices"
	"strings"

	"p9auth/internal/match"
)

// algos is what a list keyword chooses from: the names that are offered here, those
// that OpenSSH has and that are not, and those taken when the keyword is absent or
// begins with +, - or ^.
type algos struct {
	known, missing, defaults []string
	dispensable              bool // a list with '-' may leave none
}

const curve25519LibSSH = "curve25519-sha256@libssh.org" // RFC 8731: the older name

var (
	// What the SSH library offers, in its order. A program that only reads settings
	// does not link it, so the lists are here; a test holds them to the library's.
	supported = struct{ Ciphers, MACs, KeyExchanges []string }{
		Ciphers: []string{"aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr"},
		MACs:    []string{"hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha1-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512", "hmac-sha1"},
		KeyExchanges: []string{"mlkem768x25519-sha256", "curve25519-sha256", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
			"diffie-hellman-group14-sha256", "diffie-hellman-group16-sha512", "diffie-hellman-group18-sha512", "diffie-hellman-group-exchange-sha256"},
	}
	// What it has and calls insecure.
	insecure = struct{ Ciphers, MACs, KeyExchanges []string }{
		Ciphers:      []string{"aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc", "arcfour256", "arcfour128", "arcfour"},
		MACs:         []string{"hmac-sha1-96", "hmac-sha1-96-etm@openssh.com", "hmac-md5", "hmac-md5-etm@openssh.com", "hmac-md5-96", "hmac-md5-96-etm@openssh.com"},
		KeyExchanges: []string{"diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1", "diffie-hellman-group-exchange-sha1"},
	}
	// What sshfront brings along for it.
	brought = struct{ MACs, KeyExchanges []string }{
		MACs:         []string{"umac-64-etm@openssh.com", "umac-128-etm@openssh.com", "umac-64@openssh.com", "umac-128@openssh.com"},
		KeyExchanges: []string{"sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com"},
	}

	plainKeys = []string{"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
		"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com", "rsa-sha2-512", "rsa-sha2-256"}
	certKeys = []string{"ssh-ed25519-cert-v01@openssh.com", "ecdsa-sha2-nistp256-cert-v01@openssh.com", "ecdsa-sha2-nistp384-cert-v01@openssh.com", "ecdsa-sha2-nistp521-cert-v01@openssh.com",
		"sk-ssh-ed25519-cert-v01@openssh.com", "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", "rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com"}
	gssKex = []string{"gss-group14-sha256-", "gss-group16-sha512-", "gss-nistp256-sha256-", "gss-curve25519-sha256-", "gss-group14-sha1-", "gss-gex-sha1-"}
	// RSA's signatures with SHA-1, which are no default, and those with DSA, which OpenSSH
	// 10 has not got.
	rsaSHA1 = []string{"ssh-rsa", "ssh-rsa-cert-v01@openssh.com"}
	dsa     = []string{"ssh-dss", "ssh-dss-cert-v01@openssh.com"}
)

// isDSA reports whether a name is one of dsa, or a pattern means these: "ssh-*" does not.
func isDSA(name string) bool { return strings.HasPrefix(name, "ssh-dss") }

const webauthn = "webauthn-sk-ecdsa-sha2-nistp256@openssh.com"

// What each keyword chooses from. These are functions, as most processes only read
// settings and need none of it.

func cipherAlgos() algos {
	return algos{
		known: slices.Concat(supported.Ciphers, insecure.Ciphers),
		defaults: only(supported.Ciphers, "chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com",
			"aes128-ctr", "aes192-ctr", "aes256-ctr"),
	}
}

func macAlgos() algos {
	return algos{
		dispensable: true, // for the ciphers that have their own

		known: slices.Concat(brought.MACs, supported.MACs, insecure.MACs),
		defaults: []string{"umac-64-etm@openssh.com", "umac-128-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha1-etm@openssh.com",
			"umac-64@openssh.com", "umac-128@openssh.com", "hmac-sha2-256", "hmac-sha2-512", "hmac-sha1"},
	}
}

// Finite-field Diffie-Hellman and what hashes by SHA-1 is known and no default, as
// in OpenSSH 10.
func kexAlgos() algos {
	return algos{
		known: slices.Concat(supported.KeyExchanges, []string{curve25519LibSSH}, brought.KeyExchanges, insecure.KeyExchanges),
		defaults: slices.Concat([]string{"mlkem768x25519-sha256"}, brought.KeyExchanges,
			[]string{"curve25519-sha256", curve25519LibSSH, "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521"}),
	}
}

func hostKeyAlgos() algos {
	return algos{known: inOrder(slices.Concat(certKeys, plainKeys, rsaSHA1)), missing: slices.Concat(dsa, []string{webauthn}), defaults: slices.Concat(certKeys, plainKeys)}
}

// Of users' keys: those of DSA are there for who names them, as with OpenSSH up to 9.9.
func pubkeyAlgos() algos {
	a := hostKeyAlgos()
	a.known, a.missing = inOrder(slices.Concat(certKeys, plainKeys, rsaSHA1, dsa)), []string{webauthn}
	return a
}

func caAlgos() algos {
	return algos{known: inOrder(slices.Concat(plainKeys, rsaSHA1[:1])), missing: slices.Concat(dsa, []string{webauthn}), defaults: slices.Clone(plainKeys)}
}

// Of methods that are off, for Dump.
func hostbasedAlgos() algos {
	return algos{known: inOrder(slices.Concat(certKeys, plainKeys, rsaSHA1, dsa, []string{webauthn})), defaults: slices.Concat(certKeys, plainKeys)}
}

func gssKexAlgos() algos {
	return algos{known: append([]string{"gss-group1-sha1-"}, gssKex...), defaults: gssKex}
}

// resolve expands a list as KexAlgorithms describes it: names and wildcards,
// or with a leading '+' the defaults and these, '-' the defaults without
// these, '^' these before the defaults. A name that nobody knows is an error. One that
// only OpenSSH knows is left out: absent has those, for a list that silently loses an
// entry is not the list that was asked for.
func (a algos) resolve(arg string) (list, absent []string, err error) {
	list, absent, err = a.expand(arg)
	if err == nil && len(list) == 0 && !(a.dispensable && arg[0] == '-') {
		err = fmt.Errorf("%q leaves no algorithm", clip(arg))
	}
	return list, absent, err
}

func (a algos) expand(arg string) (out, absent []string, err error) {
	op, list := byte(0), arg
	if strings.ContainsRune("+-^", rune(arg[0])) {
		op, list = arg[0], arg[1:]
	}
	if list == "" && op != '-' {
		return nil, nil, fmt.Errorf("empty list %q", arg)
	}
	var named []string
	if op != '-' {
		for e := range strings.SplitSeq(strings.Trim(list, ","), ",") {
			hits, others := only(a.known, e), only(a.missing, e)
			if strings.ContainsAny(e, "*?") {
				other := func(k string) bool { return !match.Pattern(k, e) || isDSA(k) && !isDSA(e) }
				hits, others = slices.DeleteFunc(slices.Clone(a.known), other), slices.DeleteFunc(slices.Clone(a.missing), other)
			}
			if len(hits)+len(others) == 0 {
				return nil, nil, fmt.Errorf("%q is not among the algorithms offered: %s", clip(e), strings.Join(a.known, ","))
			}
			if len(hits) == 0 {
				absent = append(absent, e)
			}
			named = slices.Concat(named, hits)
		}
	}
	switch op {
	case 0:
		out = named
	case '+':
		out = slices.Concat(a.defaults, named)
	case '^':
		out = slices.Concat(named, a.defaults)
	case '-':
		out = slices.DeleteFunc(slices.Clone(a.defaults), func(k string) bool { return match.List(k, list) == match.Matched })
	}
	return unique(out), absent, nil
}

// inOrder sorts the algorithms of keys as OpenSSH has them, which is the order in which
// a wildcard stands for them.
func inOrder(algos []string) []string {
	order := []string{"ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
		"sk-ecdsa-sha2-nistp256@openssh.com", webauthn, "ssh-dss", "ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"}
	place := func(a string) int {
		name, cert := strings.CutSuffix(a, "-cert-v01@openssh.com")
		i := 2 * slices.IndexFunc(order, func(o string) bool {
			return strings.TrimSuffix(o, "@openssh.com") == strings.TrimSuffix(name, "@openssh.com")
		})
		if cert {
			i++
		}
		return i
	}
	return slices.SortedStableFunc(slices.Values(algos), func(a, b string) int { return place(a) - place(b) })
}

// SignatureAlgorithms are the algorithms in which keys and certificates sign that
// PubkeyAcceptedAlgorithms accepts: what a server announces (RFC 8308, section 3.1), and
// what the SSH library compares with. factotum compares the full name.
func SignatureAlgorithms(accepted []string) []string {
	return slices.DeleteFunc(slices.Concat(plainKeys, rsaSHA1[:1], dsa[:1]), func(plain string) bool {
		cert := strings.TrimSuffix(plain, "@openssh.com") + "-cert-v01@openssh.com"
		return !slices.Contains(accepted, plain) && !slices.Contains(accepted, cert)
	})
}

func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// only returns those of want that are offered, in the order of want.
// curve25519LibSSH, which the library does not list, goes with its newer name.
func only(offered []string, want ...string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(s string) bool {
		return !slices.Contains(offered, s) && (s != curve25519LibSSH || !slices.Contains(offered, "curve25519-sha256"))
	})
}
