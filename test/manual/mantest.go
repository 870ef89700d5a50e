// Package manual reads the manual pages for tests that hold them to what the
// programs do.
package manual

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// Top is the source tree.
func Top() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Source is a page of man/ in mdoc(7).
func Source(tb testing.TB, page string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(Top(), "man", page))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// Section is what stands under a heading (.Sh or .Ss), up to the next one of
// the same rank or above.
func Section(tb testing.TB, page, heading string) string {
	tb.Helper()
	var text strings.Builder
	rank := ""
	for line := range strings.Lines(Source(tb, page)) {
		macro, title, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case rank == "" && (macro == ".Sh" || macro == ".Ss") && title == heading:
			rank = macro
		case rank != "" && (macro == ".Sh" || macro == rank):
			return text.String()
		case rank != "":
			text.WriteString(line)
		}
	}
	if rank == "" {
		tb.Fatalf("%s has no section %s", page, heading)
	}
	return text.String()
}

// Displays are the literal displays of a section, as a person reads them.
func Displays(tb testing.TB, page, heading string) []string {
	tb.Helper()
	var all []string
	for _, d := range display.FindAllStringSubmatch(Section(tb, page, heading), -1) {
		all = append(all, strings.NewReplacer(`\e`, `\`, `\(aq`, "'", `\(dq`, `"`, `\&`, "").Replace(d[1]))
	}
	return all
}

var display = regexp.MustCompile(`(?s)\.Bd -literal[^\n]*\n(.*?)\.Ed\n`)

// Items are the items of a section's lists that begin with a macro, such as Cm
// or Fl, by the word after it, each with its text. A nested list's items count
// too.
func Items(section, macro string) map[string]string {
	items := map[string]string{}
	word := ""
	for line := range strings.Lines(section) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == ".It" {
			word = ""
			if len(f) > 2 && f[1] == macro {
				word = f[2]
			}
		}
		if word != "" {
			items[word] += line
		}
	}
	return items
}

// Words is mdoc as running text: no macros at the beginning of lines, one
// blank between words.
func Words(mdoc string) string {
	var w []string
	for line := range strings.Lines(mdoc) {
		f := strings.Fields(line)
		if len(f) > 0 && strings.HasPrefix(f[0], ".") {
			f = f[1:]
		}
		w = append(w, f...)
	}
	return strings.Join(w, " ")
}
