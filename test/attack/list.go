// Package attack knows the list of attacks, README.md beside it: what an attacker tries
// against the invariants of ARCHITECTURE.md, and the test that is this attacker.
// tools/attacks counts them in the results of the tests. The folders below hold the
// attackers that are programs of their own.
package attack

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
)

//go:embed README.md
var list string

// An Attack is a row of the list.
type Attack struct {
	Section string   // the heading that it stands under
	Text    string   // what the attacker tries
	Tests   []string // each "FOLDER TestName/of_a_subtest"; the attack has failed if all pass
}

// row is a line of a table, and test a test in its last cell.
var (
	row  = regexp.MustCompile("^\\| (.+) \\| (`.+`) \\|$")
	test = regexp.MustCompile("^`([a-z0-9/]+) (Test[^ `]+)`$")
)

// List is the list of attacks, in its order.
func List() ([]Attack, error) {
	var all []Attack
	seen := map[string]bool{}
	section := ""
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		if s, ok := strings.CutPrefix(line, "## "); ok {
			section = s
			continue
		}
		m := row.FindStringSubmatch(line)
		if m == nil {
			if strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "|---") && line != "| attack | tests |" {
				return nil, fmt.Errorf("not an attack and its tests: %s", line)
			}
			continue
		}
		a := Attack{Section: section, Text: m[1]}
		for cell := range strings.SplitSeq(m[2], ", ") {
			t := test.FindStringSubmatch(cell)
			if t == nil {
				return nil, fmt.Errorf("%s: not a folder and a test: %s", a.Text, cell)
			}
			a.Tests = append(a.Tests, t[1]+" "+t[2])
		}
		if seen[a.Text] {
			return nil, fmt.Errorf("listed twice: %s", a.Text)
		}
		seen[a.Text] = true
		all = append(all, a)
	}
	return all, nil
}
