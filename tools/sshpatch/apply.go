package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// A patch is one file of the queue: a header for people, then unified diffs
// (POSIX diff(1), "Diff -u or -U Output Format") of files that exist.
type patch struct {
	name   string // base name of the file
	header string // all before the first diff
	files  []filePatch
}

// A filePatch changes one file.
type filePatch struct {
	name  string // relative to the module, with slashes
	hunks []hunk
}

// A hunk replaces lines that must be in the file exactly once.
type hunk struct {
	line  int // of its @@ line in the patch
	start int // line at which the old lines begin in the file that was diffed
	lines []string
}

// sides returns the lines that the hunk looks for and those that it puts there.
func (h hunk) sides() (before, after []string) {
	for _, l := range h.lines {
		if l[0] != '+' {
			before = append(before, l[1:])
		}
		if l[0] != '-' {
			after = append(after, l[1:])
		}
	}
	return before, after
}

var hunkLine = regexp.MustCompile(`^@@ -([1-9][0-9]{0,8})(?:,([0-9]{1,9}))? \+([0-9]{1,9})(?:,([0-9]{1,9}))? @@(?: .*)?$`)

// parsePatch reads a patch. It takes what diff -u and git diff write of changed
// text, and refuses what it does not know: files that are created, deleted,
// renamed or binary, and files that do not end in a newline.
func parsePatch(name, text string) (*patch, error) {
	if !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("%s: the last line does not end", name)
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	fail := func(i int, format string, a ...any) (*patch, error) {
		return nil, fmt.Errorf("%s:%d: %s", name, i+1, fmt.Sprintf(format, a...))
	}
	i := 0
	for i < len(lines) && !strings.HasPrefix(lines[i], "--- ") {
		i++
	}
	p := &patch{name: name, header: strings.Join(lines[:i], "\n")}
	seen := map[string]bool{}
	for i < len(lines) {
		if strings.HasPrefix(lines[i], "diff ") || strings.HasPrefix(lines[i], "index ") {
			i++
			continue
		}
		before, ok := fileName(lines[i], "--- ", "a/")
		if !ok {
			return fail(i, "not a hunk, nor a --- line with a file below a/")
		}
		if i++; i == len(lines) {
			return fail(i-1, "no +++ line follows")
		}
		after, ok := fileName(lines[i], "+++ ", "b/")
		if !ok || after != before {
			return fail(i, "not a +++ line with b/%s", before)
		}
		if seen[before] {
			return fail(i, "the patch has changed %s already", before)
		}
		seen[before] = true
		i++
		f := filePatch{name: before}
		for i < len(lines) && strings.HasPrefix(lines[i], "@@ ") {
			h, n, err := parseHunk(lines[i:])
			if err != nil {
				return fail(i, "%v", err)
			}
			h.line = i + 1
			f.hunks = append(f.hunks, h)
			i += n
		}
		if len(f.hunks) == 0 {
			return fail(i-1, "no hunk follows")
		}
		p.files = append(p.files, f)
	}
	if len(p.files) == 0 {
		return fail(i-1, "no diff")
	}
	return p, nil
}

// fileName returns the file that a --- or +++ line names. A date may follow it
// behind a tab.
func fileName(line, mark, dir string) (string, bool) {
	name, ok := strings.CutPrefix(line, mark+dir)
	name, _, _ = strings.Cut(name, "\t")
	return name, ok && filepath.IsLocal(name) && filepath.ToSlash(filepath.Clean(name)) == name
}

// parseHunk reads a hunk at the beginning of lines, and returns how many lines
// it takes.
func parseHunk(lines []string) (hunk, int, error) {
	m := hunkLine.FindStringSubmatch(lines[0])
	if m == nil {
		return hunk{}, 0, errors.New("bad @@ line")
	}
	number := func(s string) int {
		if s == "" {
			return 1
		}
		n, _ := strconv.Atoi(s) // nine digits at most
		return n
	}
	h := hunk{start: number(m[1])}
	before, after := number(m[2]), number(m[4])
	changed := false
	n := 1
	for ; before > 0 || after > 0; n++ {
		if n == len(lines) || lines[n] == "" {
			return hunk{}, 0, errors.New("the hunk has fewer lines than its @@ line says")
		}
		switch lines[n][0] {
		case ' ':
			before, after = before-1, after-1
		case '-':
			before, changed = before-1, true
		case '+':
			after, changed = after-1, true
		default:
			return hunk{}, 0, errors.New("the hunk has fewer lines than its @@ line says")
		}
		if before < 0 || after < 0 {
			return hunk{}, 0, errors.New("the hunk has other lines than its @@ line says")
		}
		h.lines = append(h.lines, lines[n])
	}
	if old, _ := h.sides(); len(old) == 0 || !changed {
		return hunk{}, 0, errors.New("the hunk has no line to find its place by, or changes nothing")
	}
	return h, n, nil
}

// apply returns src with the patch of this file in it. patch names the patch
// for errors.
//
// The lines that a hunk looks for, context included, must be in the file exactly
// once, behind those of the hunk before. Line numbers do not matter, so that a
// patch still applies where others have been left out.
func (f filePatch) apply(patch, src string) (string, error) {
	if !strings.HasSuffix(src, "\n") {
		return "", fmt.Errorf("%s: %s does not end in a newline", patch, f.name)
	}
	lines := strings.Split(strings.TrimSuffix(src, "\n"), "\n")
	done := 0  // lines that the hunks before this one are through with
	grown := 0 // lines that they have added: errors name lines of the library's file
	for _, h := range f.hunks {
		before, after := h.sides()
		var at []int
		for i := range lines {
			if hasLines(lines[i:], before) {
				at = append(at, i)
			}
		}
		where := fmt.Sprintf("%s:%d: %s", patch, h.line, f.name)
		switch {
		case len(at) == 0:
			n, has := firstDifference(lines, h.start-1+grown, before)
			return "", fmt.Errorf("%s:%d: the library has %s, not %q: change the patch to fit it", where, h.start+n, has, before[n])
		case len(at) > 1:
			return "", fmt.Errorf("%s:%d: the library has these lines at line %d too: give the patch more context", where, at[0]+1-grown, at[1]+1-grown)
		case at[0] < done:
			return "", fmt.Errorf("%s:%d: the hunks are not in the order of the file", where, at[0]+1)
		}
		lines = append(lines[:at[0]:at[0]], append(after, lines[at[0]+len(before):]...)...)
		done = at[0] + len(after)
		grown += len(after) - len(before)
	}
	return strings.Join(lines, "\n") + "\n", nil
}

func hasLines(lines, want []string) bool {
	if len(lines) < len(want) {
		return false
	}
	for i, w := range want {
		if lines[i] != w {
			return false
		}
	}
	return true
}

// firstDifference returns the index in want of the first line that is not in
// lines, from start on, and what is there. There must be one.
func firstDifference(lines []string, start int, want []string) (n int, has string) {
	for n, w := range want {
		switch at := start + n; {
		case at < 0 || at >= len(lines):
			return n, "no such line"
		case lines[at] != w:
			return n, strconv.Quote(lines[at])
		}
	}
	panic("no difference")
}
