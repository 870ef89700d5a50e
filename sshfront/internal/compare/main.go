package compare

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"

	"p9auth/internal/sshdconf"
)

const (
	usage   = "usage: sshfront compare [-a keyword,...] [-f config_file] [-k factotum] [-s service] [--] [argument of sshd ...]"
	sshd    = "/usr/sbin/sshd"
	maxText = 48 // characters of a value in the table
)

// settings are what p9auth would have beside its sshd_config.
type settings struct {
	file     string // sshd_config
	service  string // of PAM; "" is sshd's
	factotum string // the program, asked with -t which host keys it has; "": not asked
}

// Main compares for p9auth-switch(8), prints a table, and is an error while something is
// weaker or shuts somebody out that args do not accept by name.
func Main(args []string, w io.Writer) error {
	var with settings
	var keywords string
	fl := flag.NewFlagSet("compare", flag.ContinueOnError)
	fl.SetOutput(io.Discard)
	fl.StringVar(&keywords, "a", "", "")
	fl.StringVar(&with.file, "f", sshdconf.File(), "")
	fl.StringVar(&with.factotum, "k", "", "")
	fl.StringVar(&with.service, "s", defaultService, "")
	if err := fl.Parse(args); err != nil {
		return errors.New(usage)
	}
	accepted, file := strings.Split(strings.ToLower(keywords), ","), with.file
	found, n, err := compareWith(with, fl.Args())
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
func compareWith(with settings, args []string) ([]Difference, int, error) {
	ours, err := sshdconf.Parse(with.file, nil)
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
	if theirs != with.file {
		// What it says of Match is needed; sshd itself says what it means.
		criteria, err := sshdconf.MatchCriteria(theirs)
		if err != nil {
			return nil, 0, fmt.Errorf("of sshd's configuration: %w", err)
		}
		for k, l := range criteria {
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
		services(a, b, with.service)
		for _, d := range Compare(a, b) {
			found = merge(found, d, p)
		}
	}
	for i := range found {
		if len(found[i].Who) == len(points) {
			found[i].Who = nil
		}
	}
	if theirs != with.file {
		found = append(found, notCompared(lists["group"], accounts)...)
	}
	keys, err := leftOut(with.factotum, a.Now["hostkey"])
	return append(found, keys...), len(points), err
}

// defaultService is the PAM service of sshd where it has no keyword for that.
const defaultService = "sshd"

// services has the sides name the PAM service that they use. sshfront itself knows none:
// it is factotum's.
func services(sshd, ours Side, service string) {
	const keyword = "pamservicename"
	for _, d := range []Dump{sshd.Now, sshd.Default} {
		if d[keyword] == nil {
			d[keyword] = []string{defaultService}
		}
	}
	ours.Now[keyword], ours.Default[keyword] = []string{service}, []string{defaultService}
}

// notCompared has the groups of Match blocks of which no user is known, as those of a
// directory that does not list its members.
func notCompared(lists []string, a accounts) []Difference {
	var found []Difference
	for _, l := range unique(lists) {
		if len(a.members(l)) == 0 {
			found = append(found, Difference{"match", Weaker, []string{"Group " + l}, []string{"not compared"}, []string{"no user known"}})
		}
	}
	return found
}

// leftOut has the host keys of sshd's that factotum cannot use. A client may know the
// machine by such a key alone.
func leftOut(factotum string, keys []string) ([]Difference, error) {
	if factotum == "" {
		return nil, nil
	}
	var stderr bytes.Buffer
	cmd := exec.Command(factotum, "-t")
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s -t: %w: %.500s", factotum, err, stderr.String())
	}
	var found []Difference
	for l := range strings.Lines(stderr.String()) {
		what, ok := strings.CutPrefix(l, "factotum: warning: left out: host key: ")
		if !ok {
			continue
		}
		for _, k := range keys {
			// What sshd cannot use either is not missed.
			if strings.HasPrefix(what, k+": ") && exec.Command("ssh-keygen", "-y", "-P", "", "-f", k).Run() == nil {
				found = append(found, Difference{"hostkey", ShutsOut, []string{k}, []string{"left out"}, nil})
			}
		}
	}
	return found, nil
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
			if a == b {
				b = "another order"
			}
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
