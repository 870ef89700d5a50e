package compare

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"

	"p9auth/internal/match"
	"p9auth/internal/sshdconf"
)

const (
	usage   = "usage: sshfront compare [-a keyword,...] [-f config_file] [--] [argument of sshd ...]"
	sshd    = "/usr/sbin/sshd"
	maxText = 48 // characters of a value in the table
)

// Main compares for p9auth-switch(8), prints a table, and is an error while something is
// weaker or shuts somebody out that args do not accept by name.
func Main(args []string, w io.Writer) error {
	file, accepted := "", []string{}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		opt := args[0]
		args = args[1:]
		if opt == "--" {
			break
		}
		if (opt != "-a" && opt != "-f") || len(args) == 0 {
			return errors.New(usage)
		}
		if opt == "-f" {
			file = args[0]
		} else {
			accepted = append(accepted, strings.Split(strings.ToLower(args[0]), ",")...)
		}
		args = args[1:]
	}
	if file == "" {
		file = sshdconf.File()
	}
	found, n, err := compareWith(file, args)
	if err != nil {
		return err
	}
	table(w, found, accepted)
	var refused []string
	for _, d := range found {
		if d.Kind != Differs && !slices.Contains(accepted, d.Keyword) && !slices.Contains(refused, d.Keyword) {
			refused = append(refused, d.Keyword)
		}
	}
	if len(refused) > 0 {
		return fmt.Errorf("%s: not as with sshd, for %d kinds of connections that were compared; change %s, or accept it with -a %s", strings.Join(refused, ", "), n, file, strings.Join(refused, ","))
	}
	return nil
}

// compareWith runs sshd with its arguments, and reads the file for sshfront. It returns
// the differences, each once, and how many connections it has compared.
func compareWith(file string, args []string) ([]Difference, int, error) {
	ours, err := sshdconf.Parse(file, nil)
	if err != nil {
		return nil, 0, err
	}
	lists := ours.Criteria()
	theirs := sshdconf.SSHDFile
	for i, a := range args {
		if f, ok := strings.CutPrefix(a, "-f"); ok {
			if theirs = f; f == "" && i+1 < len(args) {
				theirs = args[i+1]
			}
		}
	}
	if theirs != file {
		// What it says of Match is needed; sshd itself says what it means.
		c, err := sshdconf.Parse(theirs, nil)
		if err != nil {
			return nil, 0, fmt.Errorf("of sshd's configuration: %w", err)
		}
		for k, l := range c.Criteria() {
			lists[k] = append(lists[k], l...)
		}
	}
	accounts, err := readAccounts()
	if err != nil {
		return nil, 0, err
	}
	points, err := Points(lists, accounts.members)
	if err != nil {
		return nil, 0, err
	}
	var a, b Side
	if a.Default, err = askSSHD([]string{"-f", "/dev/null"}, points[0]); err != nil {
		return nil, 0, err
	}
	none, err := sshdconf.Parse("/dev/null", nil)
	if err != nil {
		return nil, 0, err
	}
	if b.Default, err = askOurs(none, points[0], accounts); err != nil {
		return nil, 0, err
	}
	var found []Difference
	for _, p := range points {
		if a.Now, err = askSSHD(args, p); err != nil {
			return nil, 0, err
		}
		if b.Now, err = askOurs(ours, p, accounts); err != nil {
			return nil, 0, err
		}
		for _, d := range Compare(a, b) {
			found = merge(found, d, p)
		}
	}
	for i := range found {
		if len(found[i].Who) == len(points) {
			found[i].Who = nil
		}
	}
	return found, len(points), nil
}

// merge adds a difference that holds for the connection point.
func merge(found []Difference, d Difference, point string) []Difference {
	i := slices.IndexFunc(found, func(f Difference) bool {
		return f.Keyword == d.Keyword && slices.Equal(f.SSHD, d.SSHD) && slices.Equal(f.Ours, d.Ours)
	})
	if i < 0 {
		found = append(found, d)
		i = len(found) - 1
	}
	found[i].Who = append(found[i].Who, point)
	return found
}

func askSSHD(args []string, point string) (Dump, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(sshd, append(slices.Clone(args), "-T", "-C", point)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s -T -C %s: %w: %.500s", sshd, point, err, stderr.String())
	}
	return ParseDump(string(out)), nil
}

func askOurs(c *sshdconf.Config, point string, a accounts) (Dump, error) {
	ci, err := sshdconf.ParseTestSpec(point)
	if err != nil {
		return nil, err
	}
	ci.Groups = func() ([]string, error) { return a.groups(ci.User), nil }
	s, err := c.For(ci)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := s.Dump(&b); err != nil {
		return nil, err
	}
	return ParseDump(b.String()), nil
}

// table prints the differences, those that matter first.
func table(w io.Writer, found []Difference, accepted []string) {
	if len(found) == 0 {
		return
	}
	found = slices.Clone(found)
	slices.SortStableFunc(found, func(a, b Difference) int { return min(int(b.Kind), 1) - min(int(a.Kind), 1) })
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "KEYWORD\tWITH SSHD\tWITH SSHFRONT\t\tFOR")
	for _, d := range found {
		a, b := text(d.SSHD), text(d.Ours)
		if algorithms[d.Keyword] {
			a, b = without(d.SSHD, d.Ours), without(d.Ours, d.SSHD)
		}
		kind := d.Kind.String()
		if d.Kind != Differs && slices.Contains(accepted, d.Keyword) {
			kind += ", accepted"
		}
		who := "all"
		if len(d.Who) > 0 {
			who = d.Who[0]
		}
		if len(d.Who) > 1 {
			who = fmt.Sprintf("%s and %d more", who, len(d.Who)-1)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", d.Keyword, clip(a), clip(b), kind, who)
	}
	t.Flush()
}

func text(v []string) string {
	if len(v) == 0 {
		return "-"
	}
	return strings.Join(v, " ")
}

// without are the algorithms that only v has.
func without(v, other []string) string {
	var only []string
	for _, n := range names(v) {
		if n != "" && !slices.Contains(names(other), n) {
			only = append(only, n)
		}
	}
	if only == nil {
		return "no other"
	}
	return "also " + strings.Join(only, ",")
}

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return s[:maxText-3] + "..."
}

// accounts are the users and groups of the machine, as getent(1) lists them.
type accounts struct {
	gid     map[string][]string // user: gids, the primary one first
	groupOf map[string]string   // gid: name
	order   []string            // users
}

func readAccounts() (accounts, error) {
	a := accounts{gid: map[string][]string{}, groupOf: map[string]string{}}
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

func getent(database string) ([][]string, error) {
	out, err := exec.Command("getent", database).Output()
	if err != nil {
		return nil, fmt.Errorf("getent %s: %w", database, err)
	}
	var lines [][]string
	for l := range strings.Lines(string(out)) {
		lines = append(lines, strings.Split(strings.TrimRight(l, "\n"), ":"))
	}
	return lines, nil
}

func (a accounts) groups(user string) []string {
	var names []string
	for _, gid := range a.gid[user] {
		names = append(names, a.groupOf[gid])
	}
	return names
}

// members returns one user of each group that a pattern of the list matches.
func (a accounts) members(list string) []string {
	patterns := strings.ReplaceAll(list, "!", "")
	seen := map[string]bool{}
	var out []string
	for _, u := range a.order {
		for _, g := range a.groups(u) {
			if !seen[g] && match.List(g, patterns) == match.Matched {
				seen[g] = true
				out = append(out, u)
			}
		}
	}
	return out
}
