package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// pam is the line with which both have a setting that differs by default.
const pam = "UsePAM yes"

// found is one thing in which sshd and sshfront differ.
type found struct {
	what         string // refused or taken by sshfront; line, of the complaint; status; or a keyword
	text         string // the configuration
	theirs, ours string // values, or what was said
}

// compare has both read lines, and passes on what differs. Where not both take the
// lines together, it tries them apart.
func (w *world) compare(t *testing.T, lines []string, differs func(found), args ...string) {
	t.Helper()
	text := strings.Join(append(slices.Clone(lines), pam, ""), "\n")
	theirs, ours := w.both(t, text, append([]string{"-T"}, args...)...)
	if len(lines) > 1 && !(theirs.taken && ours.taken) {
		half := len(lines) / 2
		w.compare(t, lines[:half], differs, args...)
		w.compare(t, lines[half:], differs, args...)
		return
	}
	w.verdicts(text, theirs, ours, differs)
}

// verdicts passes on what differs between two verdicts.
func (w *world) verdicts(text string, theirs, ours verdict, differs func(found)) {
	switch {
	case theirs.taken && !ours.taken:
		differs(found{"refused", text, "", ours.said})
	case ours.taken && !theirs.taken:
		differs(found{"taken", text, theirs.said, ""})
	case !ours.taken:
		if theirs.line != 0 && theirs.line != ours.line {
			differs(found{"line", text, theirs.said, ours.said})
		}
		if theirs.status != ours.status {
			differs(found{"status", text, fmt.Sprint(theirs.status, theirs.said), fmt.Sprint(ours.status, ours.said)})
		}
	default:
		keys := maps.Clone(theirs.values)
		maps.Copy(keys, ours.values)
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			if !slices.Equal(theirs.values[k], ours.values[k]) && !w.other[k] {
				differs(found{k, text, strings.Join(theirs.values[k], "|"), strings.Join(ours.values[k], "|")})
			}
		}
	}
}

// A ledger has the differences that were found, by their place in the list.
type ledger struct {
	mu   sync.Mutex
	seen map[int]bool
}

// differs is for compare: it fails the test unless the table names the difference.
func (l *ledger) differs(t *testing.T, w *world) func(found) {
	return func(f found) {
		t.Helper()
		for i, d := range differences {
			if d.explains(f) {
				l.mu.Lock()
				l.seen[i] = true
				l.mu.Unlock()
				return
			}
		}
		if f.what == "taken" && w.release < 13 {
			return // OpenSSH 10 takes more
		}
		t.Errorf("%.300q: %s\n sshd: %.400s\n sshfront: %.400s", f.text, f.what, f.theirs, f.ours)
	}
}

func TestSshfrontReadsEachKeywordAsSshdDoes(t *testing.T) {
	l := ledger{seen: map[int]bool{}}
	older := false
	each(t, func(t *testing.T, w *world) {
		older = older || w.release < 13
		t.Parallel()
		differs := l.differs(t, w)
		theirs, ours := w.both(t, "", "-T")
		w.verdicts("", theirs, ours, differs)
		for i := 0; ; i++ {
			var lines []string
			for _, f := range fields {
				if i < len(f.good) {
					for k := range strings.FieldsSeq(f.keywords) {
						lines = append(lines, k+" "+f.good[i])
					}
				}
			}
			if lines == nil {
				break
			}
			w.compare(t, lines, differs)
		}
		if w.release < 13 && !*all {
			return // what is tried alone has changed little
		}
		for _, f := range fields {
			for k := range strings.FieldsSeq(f.keywords) {
				for _, v := range f.alone {
					if w.release < 13 && slices.Contains(until10, v) {
						continue
					}
					w.compare(t, []string{k + " " + v}, differs)
				}
			}
		}
	})
	t.Cleanup(func() {
		inTable := rows(t)
		for i, d := range differences {
			if !inTable[d.row] {
				t.Errorf("the table of differences in p9auth_sshd_config(5) has no row %q", d.row)
			}
			if !l.seen[i] && !t.Failed() && (older || d.row != ofOlder) {
				t.Errorf("sshfront does not differ from sshd any more: %s, %s %s", d.row, d.what, d.text)
			}
		}
	})
}
