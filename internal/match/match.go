// Package match is the pattern language of sshd_config(5) and
// authorized_keys(5), as ssh_config(5) describes it under PATTERNS: wildcards,
// comma-separated lists, negation, and addresses in CIDR form.
//
// It decides who may log in, so it is strict where OpenSSH shrugs: a list with
// an entry that can never match (a netmask in place of a mask length, an empty
// entry) is an error, not a silent miss. Every function runs in time
// proportional to pattern times string.
package match

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"p9auth/internal/words"
)

// Result is the outcome of matching against a list with negations.
type Result int8

const (
	Negated Result = -1 // an entry that begins with '!' matched
	None    Result = 0  // nothing matched
	Matched Result = 1  // an entry matched and no negated one did
)

// Pattern reports whether all of s matches pattern, in which '*' stands for any
// number of bytes and '?' for exactly one.
func Pattern(s, pattern string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// List matches s against a comma-separated list of patterns, each of which may
// be negated by a leading '!'. A negated match wins wherever it stands.
func List(s, list string) Result {
	r := None
	for list != "" {
		var e string
		e, list, _ = strings.Cut(list, ",")
		e, neg := strings.CutPrefix(e, "!")
		if !Pattern(s, e) {
			continue
		}
		if neg {
			return Negated
		}
		r = Matched
	}
	return r
}

// Host is List without regard to case, for host names.
func Host(host, list string) Result {
	return List(strings.ToLower(host), strings.ToLower(list))
}

// CheckAddrs reports the first entry of an address list that Addr could never
// match: an empty entry, or a CIDR entry that is malformed, whose mask is too
// long, or that has bits set beyond its mask.
func CheckAddrs(list string) error {
	for e := range strings.SplitSeq(list, ",") {
		e = strings.TrimPrefix(e, "!")
		if e == "" {
			return fmt.Errorf("empty entry in address list %q", list)
		}
		if _, _, err := prefix(e); err != nil {
			return err
		}
	}
	return nil
}

// Addr matches an address against a list whose entries are addresses, networks
// in CIDR form, or wildcard patterns over the address's text. The zero address
// matches nothing. Errors are those of CheckAddrs.
func Addr(addr netip.Addr, list string) (Result, error) {
	if err := CheckAddrs(list); err != nil {
		return None, err
	}
	if !addr.IsValid() {
		return None, nil
	}
	addr = canonical(addr)
	r := None
	for e := range strings.SplitSeq(list, ",") {
		e, neg := strings.CutPrefix(e, "!")
		p, isNet, _ := prefix(e)
		hit := isNet && p.Contains(addr)
		if !isNet {
			hit = Pattern(addr.String(), e)
		}
		if !hit {
			continue
		}
		if neg {
			return Negated, nil
		}
		r = Matched
	}
	return r, nil
}

// CIDR reports whether addr lies in one of the networks of a comma-separated
// list with neither wildcards nor negation: the form of a certificate's
// source-address option (PROTOCOL.certkeys). Anything else in the list is an
// error.
func CIDR(addr netip.Addr, list string) (bool, error) {
	found := false
	for e := range strings.SplitSeq(list, ",") {
		p, isNet, err := prefix(e)
		if err != nil {
			return false, err
		}
		if !isNet {
			return false, fmt.Errorf("invalid network %q", clip(e))
		}
		found = found || addr.IsValid() && p.Contains(canonical(addr))
	}
	return found, nil
}

// HostAddr reports whether a client passes a list that mixes host names and
// addresses, as from= in authorized_keys: one of the two must match and
// neither may be negated. An empty host matches no pattern but may still pass by
// its address. Errors are those of CheckAddrs.
func HostAddr(host string, addr netip.Addr, list string) (bool, error) {
	a, err := Addr(addr, list)
	if err != nil || !addr.IsValid() || a == Negated {
		return false, err
	}
	h := None
	if host != "" {
		h = Host(host, list)
	}
	if h == Negated {
		return false, nil
	}
	return a == Matched || h == Matched, nil
}

// User reports whether a client passes one entry of AllowUsers or DenyUsers:
// USER or USER@HOST, where HOST is a list for HostAddr.
func User(user, host string, addr netip.Addr, pattern string) (bool, error) {
	i := strings.LastIndexByte(pattern, '@')
	if i < 0 {
		return Pattern(user, pattern), nil
	}
	ok, err := HostAddr(host, addr, pattern[i+1:])
	return ok && Pattern(user, pattern[:i]), err
}

// CheckUser reports whether the host part of an AllowUsers entry is malformed.
func CheckUser(pattern string) error {
	if i := strings.LastIndexByte(pattern, '@'); i >= 0 {
		return CheckAddrs(pattern[i+1:])
	}
	return nil
}

// Groups matches a user's groups against one pattern list: some group must
// match and none may match a negated entry.
func Groups(groups []string, list string) bool {
	found := false
	for _, g := range groups {
		switch List(g, list) {
		case Negated:
			return false
		case Matched:
			found = true
		}
	}
	return found
}

func canonical(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// aton parses an IPv4 address as inet_aton(3) does, which sshd takes: one to four
// numbers, decimal, octal or hexadecimal, of which the last fills what is left.
func aton(s string) (netip.Addr, bool) {
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var a uint32
	for i, p := range parts {
		base, bits := 10, 8
		if i == len(parts)-1 {
			bits = 8 * (4 - i)
		}
		if rest, hex := strings.CutPrefix(strings.ToLower(p), "0x"); hex {
			p, base = rest, 16
		} else if len(p) > 1 && p[0] == '0' {
			base = 8
		}
		n, err := strconv.ParseUint(p, base, bits)
		if err != nil {
			return netip.Addr{}, false
		}
		a = a<<bits | uint32(n)
	}
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}), true
}

// prefix parses one address or network. It returns false without an error for
// what can only be a name or a wildcard. As with sshd(8), an address that is mapped
// into IPv6 (::ffff:192.0.2.1) stays one of IPv6, which no client has.
func prefix(e string) (netip.Prefix, bool, error) {
	text, bits, slash := strings.Cut(e, "/")
	a, err := netip.ParseAddr(text)
	ok := err == nil
	if !ok {
		a, ok = aton(text)
	}
	if !ok {
		if slash {
			return netip.Prefix{}, false, fmt.Errorf("invalid network %q", clip(e))
		}
		return netip.Prefix{}, false, nil
	}
	a = a.WithZone("")
	n := a.BitLen()
	if slash {
		n, err = strconv.Atoi(bits)
		if err != nil || strconv.Itoa(n) != bits || n < 0 || n > a.BitLen() {
			return netip.Prefix{}, false, fmt.Errorf("invalid mask length in %q", clip(e))
		}
	}
	p := netip.PrefixFrom(a, n)
	if p.Masked() != p {
		return netip.Prefix{}, false, fmt.Errorf("bits set beyond the mask in %q", clip(e))
	}
	return p, true, nil
}

// maxQuoted bounds what an error quotes of a list.
const maxQuoted = 100

func clip(s string) string { return words.Clip(s, maxQuoted) }
