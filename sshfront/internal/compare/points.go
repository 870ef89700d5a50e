package compare

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxPoints bounds the connections that are compared: each asks sshd, which takes
// some 20 ms.
const maxPoints = 512

// Points are the connections to compare, in the form of sshd's -C: each user with each
// address, name and port that a Match of one of the configurations names, an example for each
// pattern, and those that none names. members returns a user of each group that is in
// a list of patterns.
func Points(lists map[string][]string, members func(list string) []string) ([]string, error) {
	users := []string{"root", "p9auth-nobody"}
	for _, l := range lists["user"] {
		users = append(users, examples(l)...)
	}
	for _, l := range lists["group"] {
		users = append(users, members(l)...)
	}
	hosts := []string{"client.invalid"}
	for _, l := range lists["host"] {
		hosts = append(hosts, examples(l)...)
	}
	addrs, err := addresses("192.0.2.1", lists["address"])
	if err != nil {
		return nil, err
	}
	locals, err := addresses("192.0.2.2", lists["localaddress"])
	if err != nil {
		return nil, err
	}
	ports := append([]string{"22"}, lists["localport"]...)
	var points []string
	for _, u := range unique(users) {
		for _, h := range unique(hosts) {
			for _, a := range addrs {
				for _, l := range locals {
					for _, p := range unique(ports) {
						points = append(points, fmt.Sprintf("user=%s,host=%s,addr=%s,laddr=%s,lport=%s", u, h, a, l, p))
						if len(points) > maxPoints {
							return nil, fmt.Errorf("the Match blocks name more than %d combinations of users, names and addresses", maxPoints)
						}
					}
				}
			}
		}
	}
	return points, nil
}

// examples has a text for each pattern of a list, negated ones too.
func examples(list string) []string {
	var out []string
	for p := range strings.SplitSeq(list, ",") {
		p = strings.TrimPrefix(p, "!")
		p = strings.ReplaceAll(strings.ReplaceAll(p, "*", "x"), "?", "x")
		if p != "" {
			out = append(out, p)
		}
	}
	return out
}

// addresses has an address for each pattern of lists: the first of a network, the
// one of a pattern with wildcards in which each is 1.
func addresses(other string, lists []string) ([]string, error) {
	out := []string{other}
	for _, l := range lists {
		for p := range strings.SplitSeq(l, ",") {
			p = strings.TrimPrefix(p, "!")
			a, _, _ := strings.Cut(p, "/")
			if a == "*" {
				continue // any will do
			}
			a = strings.ReplaceAll(strings.ReplaceAll(a, "*", "1"), "?", "1")
			for !strings.Contains(a, ":") && strings.Count(a, ".") < 3 {
				a += ".1"
			}
			if _, err := netip.ParseAddr(a); err != nil {
				return nil, fmt.Errorf("no example for the address %s of a Match", p)
			}
			out = append(out, a)
		}
	}
	return unique(out), nil
}

func unique(s []string) []string {
	var out []string
	for _, x := range s {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}
