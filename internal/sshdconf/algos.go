package sshdconf

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/match"
)

// algos is what a list keyword chooses from: the names that golang.org/x/crypto
// offers, and those taken when the keyword is absent or begins with +, - or ^.
type algos struct{ known, defaults []string }

const curve25519LibSSH = "curve25519-sha256@libssh.org" // RFC 8731: the older name

var (
	supported = ssh.SupportedAlgorithms()
	insecure  = ssh.InsecureAlgorithms()

	cipherAlgos = algos{
		known:    slices.Concat(supported.Ciphers, insecure.Ciphers),
		defaults: supported.Ciphers,
	}
	macAlgos = algos{
		known:    slices.Concat(supported.MACs, insecure.MACs),
		defaults: without(supported.MACs, ssh.HMACSHA1),
	}
	// Finite-field Diffie-Hellman is known and no default, as in OpenSSH 10.
	kexAlgos = algos{
		known: slices.Concat(supported.KeyExchanges, insecure.KeyExchanges, []string{curve25519LibSSH}),
		defaults: only(supported.KeyExchanges, ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519,
			curve25519LibSSH, ssh.KeyExchangeECDHP256, ssh.KeyExchangeECDHP384, ssh.KeyExchangeECDHP521),
	}
	hostKeyAlgos = algos{
		known: without(slices.Concat(supported.HostKeys, insecure.HostKeys), "ssh-dss", "ssh-dss-cert-v01@openssh.com"),
		defaults: only(supported.HostKeys, ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01,
			ssh.CertAlgoECDSA521v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01, ssh.KeyAlgoED25519,
			ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256),
	}
	plainKeys = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	certKeys = []string{ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
		ssh.CertAlgoSKED25519v01, ssh.CertAlgoSKECDSA256v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01}
	// ssh-rsa is the SHA-1 signature: factotum verifies none, so it is not known.
	pubkeyAlgos = algos{known: slices.Concat(certKeys, plainKeys), defaults: slices.Concat(certKeys, plainKeys)}
	caAlgos     = algos{known: plainKeys, defaults: plainKeys}
)

// resolve expands a list as KexAlgorithms describes it: names and wildcards,
// or with a leading '+' the defaults and these, '-' the defaults without
// these, '^' these before the defaults. A name that is not known is an error,
// for a list that silently loses an entry is not the list that was asked for.
func (a algos) resolve(arg string) ([]string, error) {
	op, list := byte(0), arg
	if strings.ContainsRune("+-^", rune(arg[0])) {
		op, list = arg[0], arg[1:]
	}
	if list == "" {
		return nil, fmt.Errorf("empty list %q", arg)
	}
	var named []string
	if op != '-' {
		for e := range strings.SplitSeq(list, ",") {
			hits := only(a.known, e)
			if strings.ContainsAny(e, "*?") {
				hits = slices.DeleteFunc(slices.Clone(a.known), func(k string) bool { return !match.Pattern(k, e) })
			}
			if len(hits) == 0 {
				return nil, fmt.Errorf("%q is not among the algorithms offered: %s", clip(e), strings.Join(a.known, ","))
			}
			named = slices.Concat(named, hits)
		}
	}
	var out []string
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
	out = unique(out)
	if len(out) == 0 {
		return nil, fmt.Errorf("%q leaves no algorithm", clip(arg))
	}
	return out, nil
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

func without(in []string, drop ...string) []string {
	return slices.DeleteFunc(slices.Clone(in), func(s string) bool { return slices.Contains(drop, s) })
}

// only returns those of want that are offered, in the order of want.
// curve25519LibSSH, which the library does not list, goes with its newer name.
func only(offered []string, want ...string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(s string) bool {
		return !slices.Contains(offered, s) && (s != curve25519LibSSH || !slices.Contains(offered, ssh.KeyExchangeCurve25519))
	})
}
