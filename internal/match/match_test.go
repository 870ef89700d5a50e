package match

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestPatternMatchesAllOfTheString(t *testing.T) {
	for _, c := range []struct {
		s, p string
		want bool
	}{
		{"", "", true}, {"", "*", true}, {"a", "", false}, {"", "?", false},
		{"alice", "alice", true}, {"alice", "Alice", false}, {"alice", "al", false},
		{"alice", "a*e", true}, {"alice", "*", true}, {"alice", "a?ice", true},
		{"alice", "a??ice", false}, {"aab", "*ab", true}, {"abcabd", "*abd", true},
		{"a*b", "a*b", true}, {"abc", "*b*", true}, {"abc", "**c", true},
	} {
		if got := Pattern(c.s, c.p); got != c.want {
			t.Errorf("Pattern(%q, %q) = %v", c.s, c.p, got)
		}
	}
}

func TestPatternIsNotExponential(t *testing.T) {
	start := time.Now()
	if Pattern(strings.Repeat("a", 4000), strings.Repeat("*a", 1000)+"b") {
		t.Error("a string without b matches *a...b")
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestNegationWinsInAList(t *testing.T) {
	for _, c := range []struct {
		s, l string
		want Result
	}{
		{"root", "*,!root", Negated}, {"root", "!root,*", Negated}, {"bob", "*,!root", Matched},
		{"bob", "!root", None}, {"bob", "", None}, {"bob", "alice,bob", Matched},
	} {
		if got := List(c.s, c.l); got != c.want {
			t.Errorf("List(%q, %q) = %v, want %v", c.s, c.l, got, c.want)
		}
	}
}

func TestAddrKnowsNetworksWildcardsAndNegation(t *testing.T) {
	for _, c := range []struct {
		a, l string
		want Result
	}{
		{"192.0.2.7", "192.0.2.0/24", Matched}, {"192.0.3.7", "192.0.2.0/24", None},
		{"192.0.2.7", "192.0.2.*", Matched}, {"192.0.2.7", "192.0.2.0/24,!192.0.2.7", Negated},
		{"192.0.2.7", "!192.0.2.0/24,192.0.2.7", Negated}, {"::ffff:192.0.2.7", "192.0.2.0/24", Matched},
		{"2001:db8::1", "2001:db8::/32", Matched}, {"2001:db8::1", "2001:DB8::1", Matched},
		{"fe80::1%eth0", "fe80::/10", Matched}, {"192.0.2.7", "2001:db8::/32", None},
		{"192.0.2.7", "0.0.0.0/0", Matched}, {"2001:db8::1", "0.0.0.0/0", None},
		{"192.0.2.7", "::ffff:192.0.2.0/120", None}, {"192.0.2.7", "*,!::ffff:192.0.2.7", Matched}, // as sshd
		{"127.0.0.1", "127.1", Matched}, {"127.0.0.1", "*,!0x7f.1", Negated}, {"127.0.0.1", "0177.0.01", Matched}, {"127.0.0.1", "2130706433", Matched},
		{"127.0.0.1", "127.1/32", Matched}, {"127.0.0.1", "127.0.0.256", None}, {"127.0.0.1", "0x.1", None}, {"127.0.0.1", "127.0_0.1", None},
		{"127.0.0.1", "127.0.0.0.1", None}, {"127.0.0.1", "+127.1", None}, {"0.0.0.8", "08", None}, {"0.0.0.8", "010", Matched},
	} {
		got, err := Addr(netip.MustParseAddr(c.a), c.l)
		if err != nil || got != c.want {
			t.Errorf("Addr(%s, %q) = %v, %v, want %v", c.a, c.l, got, err, c.want)
		}
	}
}

func TestAListThatCannotMatchIsAnError(t *testing.T) {
	for _, l := range []string{"", "192.0.2.0/33", "192.0.2.1/24", "192.0.2.0/255.255.255.0", "a,,b", "!", "host/8", "192.0.2.0/+24", "192.0.2.0/024"} {
		if err := CheckAddrs(l); err == nil {
			t.Errorf("CheckAddrs(%q) passed", l)
		}
	}
	for _, l := range []string{"192.0.2.*", "!10.0.0.0/8", "", "example.org"} {
		if _, err := CIDR(netip.MustParseAddr("192.0.2.1"), l); err == nil {
			t.Errorf("CIDR took %q", l)
		}
	}
}

func TestHostOrAddressMustMatchAndNeitherBeNegated(t *testing.T) {
	a := netip.MustParseAddr("192.0.2.7")
	for _, c := range []struct {
		host, l string
		want    bool
	}{
		{"A.example.org", "*.example.org", true}, {"a.example.org", "*.example.org,!a.*", false},
		{"", "192.0.2.7", true}, {"", "*.example.org", false}, {"a.example.org", "!192.0.2.7,*", false},
		{"a.example.org", "192.0.2.0/24,!a.example.org", false},
	} {
		if got, err := HostAddr(c.host, a, c.l); err != nil || got != c.want {
			t.Errorf("HostAddr(%q, %q) = %v, %v", c.host, c.l, got, err)
		}
	}
	if ok, _ := HostAddr("localhost", netip.Addr{}, "*"); ok {
		t.Error("a client without an address matched")
	}
	if ok, _ := User("alice", "", a, "al*@192.0.2.0/24"); !ok {
		t.Error("USER@HOST did not match")
	}
	if ok, _ := User("bob", "", a, "al*@192.0.2.0/24"); ok {
		t.Error("USER@HOST matched another user")
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("alice", "a*,!b?", "192.0.2.7")
	f.Add("192.0.2.7", "192.0.2.0/24,!*", "::1")
	f.Fuzz(func(t *testing.T, s, l, a string) {
		if len(s) > 1000 || len(l) > 1000 {
			return
		}
		List(s, l)
		addr, _ := netip.ParseAddr(a)
		r, err := Addr(addr, l)
		if err != nil && r == Matched {
			t.Errorf("matched and failed: %v", err)
		}
		if ok, _ := HostAddr(s, addr, l); ok && r == Negated {
			t.Error("passed a negated address")
		}
		CIDR(addr, l)
		User(s, s, addr, l)
	})
}
