package main

import (
	"strings"
	"testing"
)

const (
	source = "one\ntwo\nthree\nfour\nfive\nsix\n"
	// A header, two hunks and what git adds.
	diff = `What: Numbers.

diff --git a/dir/f b/dir/f
index 1111111..2222222 100644
--- a/dir/f	2026-01-01
+++ b/dir/f	2026-01-02
@@ -1,3 +1,4 @@ func f
 one
-two
+2
+2.5
 three
@@ -5,2 +6 @@
 five
-six
`
)

func TestAPatchChangesTheLinesItNames(t *testing.T) {
	p, err := parsePatch("x.patch", diff)
	if err != nil {
		t.Fatal(err)
	}
	if p.header != "What: Numbers.\n\ndiff --git a/dir/f b/dir/f\nindex 1111111..2222222 100644" || len(p.files) != 1 || p.files[0].name != "dir/f" {
		t.Errorf("%+v", p)
	}
	for name, c := range map[string]struct{ src, want string }{
		"as diffed":      {source, "one\n2\n2.5\nthree\nfour\nfive\n"},
		"at other lines": {"zero\n" + strings.Replace(source, "four", "4\n4", 1), "zero\none\n2\n2.5\nthree\n4\n4\nfive\n"},
	} {
		got, err := p.files[0].apply(p.name, c.src)
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestAPatchOfAChangedFileIsRefused(t *testing.T) {
	p, err := parsePatch("x.patch", diff)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ src, want string }{
		"a line to be removed":    {strings.Replace(source, "two", "Two", 1), `x.patch:7: dir/f:2: the library has "Two", not "two": change the patch to fit it`},
		"a line of context":       {strings.Replace(source, "three", "three ", 1), `x.patch:7: dir/f:3: the library has "three ", not "three": change the patch to fit it`},
		"the second hunk":         {strings.Replace(source, "six", "6", 1), `x.patch:13: dir/f:6: the library has "6", not "six": change the patch to fit it`},
		"a shorter file":          {"one\ntwo\nthree\n", `x.patch:13: dir/f:5: the library has no such line, not "five": change the patch to fit it`},
		"lines that occur twice":  {source + "one\ntwo\nthree\n", "x.patch:7: dir/f:1: the library has these lines at line 7 too: give the patch more context"},
		"hunks in another order":  {"five\nsix\none\ntwo\nthree\n", "x.patch:13: dir/f:1: the hunks are not in the order of the file"},
		"no newline at the end":   {strings.TrimSuffix(source, "\n"), "x.patch: dir/f does not end in a newline"},
		"carriage returns":        {strings.ReplaceAll(source, "\n", "\r\n"), `x.patch:7: dir/f:1: the library has "one\r", not "one": change the patch to fit it`},
		"a file with empty lines": {"\n", `x.patch:7: dir/f:1: the library has "", not "one": change the patch to fit it`},
	} {
		if got, err := p.files[0].apply(p.name, c.src); err == nil || err.Error() != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestADiffThatIsNotUnderstoodIsRefused(t *testing.T) {
	change := func(before, after string) string {
		if strings.Count(diff, before) != 1 {
			t.Fatalf("%q", before)
		}
		return strings.Replace(diff, before, after, 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                 {"", "x.patch: the last line does not end"},
		"a header only":           {"What: Nothing.\n", "x.patch:1: no diff"},
		"cut in a line":           {strings.TrimSuffix(diff, "\n"), "x.patch: the last line does not end"},
		"cut in a hunk":           {strings.TrimSuffix(diff, "-six\n"), "x.patch:13: the hunk has fewer lines than its @@ line says"},
		"cut before a hunk":       {diff[:strings.Index(diff, "@@")], "x.patch:6: no hunk follows"},
		"cut before +++":          {diff[:strings.Index(diff, "+++")], "x.patch:5: no +++ line follows"},
		"a new file":              {change("--- a/dir/f", "--- /dev/null"), "x.patch:5: not a hunk, nor a --- line with a file below a/"},
		"a deleted file":          {change("+++ b/dir/f", "+++ /dev/null"), "x.patch:6: not a +++ line with b/dir/f"},
		"a renamed file":          {change("+++ b/dir/f", "+++ b/dir/g"), "x.patch:6: not a +++ line with b/dir/f"},
		"a file outside":          {strings.ReplaceAll(diff, "dir/f", "../f"), "x.patch:5: not a hunk, nor a --- line with a file below a/"},
		"an absolute name":        {strings.ReplaceAll(diff, "dir/f", "/etc/f"), "x.patch:5: not a hunk, nor a --- line with a file below a/"},
		"a name with a detour":    {strings.ReplaceAll(diff, "dir/f", "dir/./f"), "x.patch:5: not a hunk, nor a --- line with a file below a/"},
		"no name":                 {strings.ReplaceAll(diff, "dir/f", ""), "x.patch:5: not a hunk, nor a --- line with a file below a/"},
		"a file twice":            {diff + diff[strings.Index(diff, "---"):], "x.patch:17: the patch has changed dir/f already"},
		"a bad @@ line":           {change("@@ -5,2 +6 @@", "@@ -5,2 +6"), "x.patch:13: bad @@ line"},
		"line zero":               {change("@@ -5,2 +6 @@", "@@ -0,2 +6 @@"), "x.patch:13: bad @@ line"},
		"a huge count":            {change("@@ -5,2 +6 @@", "@@ -5,9999999999 +6 @@"), "x.patch:13: bad @@ line"},
		"too small a count":       {change("-1,3 +1,4", "-1,2 +1,4"), "x.patch:7: the hunk has other lines than its @@ line says"},
		"too large a count":       {change("-1,3 +1,4", "-1,4 +1,5"), "x.patch:7: the hunk has fewer lines than its @@ line says"},
		"context without a space": {change("\n three", "\nthree"), "x.patch:7: the hunk has fewer lines than its @@ line says"},
		"no newline marker":       {diff + "\\ No newline at end of file\n", "x.patch:16: not a hunk, nor a --- line with a file below a/"},
		"words after a hunk":      {diff + "more\n", "x.patch:16: not a hunk, nor a --- line with a file below a/"},
		"nothing to find it by":   {change("@@ -5,2 +6 @@\n five\n-six\n", "@@ -5,0 +6 @@\n+six\n"), "x.patch:13: the hunk has no line to find its place by, or changes nothing"},
		"no change":               {change("@@ -5,2 +6 @@\n five\n-six\n", "@@ -5 +6 @@\n five\n"), "x.patch:13: the hunk has no line to find its place by, or changes nothing"},
	} {
		if p, err := parsePatch("x.patch", c.text); err == nil || err.Error() != c.want {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// Whatever is read and applies, applies once: the lines that were looked for
// are replaced, and all the rest of the file is left.
func FuzzPatch(f *testing.F) {
	f.Add(diff, source)
	f.Add(strings.ReplaceAll(diff, "-", "+"), source)
	f.Add("--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n", "a\n")
	f.Fuzz(func(t *testing.T, text, src string) {
		p, err := parsePatch("x.patch", text)
		if err != nil {
			return
		}
		for _, file := range p.files {
			got, err := file.apply(p.name, src)
			if err != nil {
				if strings.Contains(err.Error(), "\n") {
					t.Errorf("an error of more than one line: %q", err)
				}
				continue
			}
			grown := 0
			for _, h := range file.hunks {
				before, after := h.sides()
				if !strings.Contains("\n"+src, "\n"+strings.Join(before, "\n")+"\n") {
					t.Errorf("hunk of line %d looked for what is not there", h.line)
				}
				grown += len(strings.Join(after, "\n")) - len(strings.Join(before, "\n"))
				if len(after) == 0 {
					grown--
				}
			}
			if len(got) != len(src)+grown {
				t.Errorf("%d bytes became %d, not %d", len(src), len(got), len(src)+grown)
			}
		}
	})
}
