// Package manual holds the manual pages to what the programs do.
//
// The pages are read, and compared, by the functions here and nowhere else. What can
// be seen from outside (usage texts, messages, examples that are run) is tested
// here too. A table that only its own package can see (keywords, verbs, metrics)
// is handed to WantItems by a test in that package, in its manual_test.go.
package manual

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// Top is the source tree.
func Top() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Pages are the names of the pages in man/, such as "factotum.8".
func Pages(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(Top(), "man", "*.[1-9]"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no pages: %v", err)
	}
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	return files
}

// Headings are the titles of a page's sections (.Sh).
func Headings(tb testing.TB, page string) []string {
	tb.Helper()
	var all []string
	for line := range strings.Lines(Source(tb, page)) {
		if title, ok := strings.CutPrefix(line, ".Sh "); ok {
			all = append(all, strings.TrimSpace(title))
		}
	}
	return all
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

// WantItems checks that the items of a list are those of a program's table: each
// of want is there, and its text has the phrases; nothing else is there, but for
// the words also. The page is for the messages, as in "factotum(8)".
func WantItems(tb testing.TB, page string, items map[string]string, want map[string][]string, also ...string) {
	tb.Helper()
	for word, phrases := range want {
		mdoc, ok := items[word]
		if !ok {
			tb.Errorf("%s does not have %s", page, word)
			continue
		}
		text := Words(mdoc)
		for _, phrase := range phrases {
			if !has(text, phrase) {
				tb.Errorf("%s, %s: does not say %q: %s", page, word, phrase, text)
			}
		}
	}
	for word := range items {
		if _, ok := want[word]; !ok && !slices.Contains(also, word) {
			tb.Errorf("%s has %s, which the program does not", page, word)
		}
	}
}

// has says whether a text has a phrase that does not end within a word.
func has(text, phrase string) bool {
	re := regexp.QuoteMeta(phrase)
	if last := phrase[len(phrase)-1]; last >= '0' && last <= '9' || last >= 'a' && last <= 'z' || last >= 'A' && last <= 'Z' {
		re += `\b`
	}
	return regexp.MustCompile(re).MatchString(text)
}
