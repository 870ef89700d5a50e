package compare

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"p9auth/internal/match"
)

// accounts are the users and groups of the machine, as getent(1) lists them. A directory
// may list only some of those that it has, or none.
type accounts struct {
	gid     map[string][]string // user: gids, the primary one first
	groupOf map[string]string   // gid: name
	order   []string            // users
	looked  map[string][]string // user: groups, as id(1) has them
}

func readAccounts() (accounts, error) {
	a := accounts{gid: map[string][]string{}, groupOf: map[string]string{}, looked: map[string][]string{}}
	passwd, err := getent("passwd")
	if err != nil {
		return a, err
	}
	group, err := getent("group")
	if err != nil {
		return a, err
	}
	for _, f := range passwd {
		if len(f) >= 4 && a.gid[f[0]] == nil {
			a.gid[f[0]] = []string{f[3]}
			a.order = append(a.order, f[0])
		}
	}
	for _, f := range group {
		if len(f) < 4 {
			continue
		}
		a.groupOf[f[2]] = f[0]
		for u := range strings.SplitSeq(f[3], ",") {
			if a.gid[u] != nil {
				a.gid[u] = append(a.gid[u], f[2])
			}
		}
	}
	return a, nil
}

func getent(args ...string) ([][]string, error) {
	out, err := exec.Command("getent", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("getent %s: %w", strings.Join(args, " "), err)
	}
	var lines [][]string
	for l := range strings.Lines(string(out)) {
		lines = append(lines, strings.Split(strings.TrimRight(l, "\n"), ":"))
	}
	return lines, nil
}

// groups are the names of a user's groups, none where there is no such user. Like sshd,
// id(1) asks for this user alone, which works where a directory lists nobody.
func (a accounts) groups(user string) []string {
	names, ok := a.looked[user]
	if !ok {
		out, err := exec.Command("id", "-Gnz", "--", user).Output()
		if err == nil {
			names = strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
		}
		a.looked[user] = names
	}
	return names
}

// members returns one user of each group that a pattern of the list matches.
func (a accounts) members(list string) []string {
	patterns := strings.ReplaceAll(list, "!", "")
	seen := map[string]bool{}
	var out []string
	for _, u := range a.order {
		for _, gid := range a.gid[u] {
			if g := a.groupOf[gid]; !seen[g] && match.List(g, patterns) == match.Matched {
				seen[g] = true
				out = append(out, u)
			}
		}
	}
	for g := range strings.SplitSeq(patterns, ",") {
		if u := a.memberOf(g); u != "" && !seen[g] {
			out = append(out, u)
		}
	}
	return out
}

// memberOf is a user of a group that is looked up by its name, or "". A pattern is the
// name of none.
func (a accounts) memberOf(group string) string {
	lines, err := getent("group", "--", group)
	if err != nil || len(lines[0]) < 4 {
		return ""
	}
	for u := range strings.SplitSeq(lines[0][3], ",") {
		if slices.Contains(a.groups(u), group) {
			return u
		}
	}
	return ""
}
