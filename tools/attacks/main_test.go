package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"p9auth/test/attack"
)

// files are a module with a test of each kind.
var files = map[string]string{
	"go.mod": "module p9auth\n\ngo 1.26\n",
	"good/good_test.go": `package good

import "testing"

func TestGood(t *testing.T) {
	t.Log("quiet")
	t.Run("a part", func(t *testing.T) {})
}
`,
	"bad/bad_test.go": `package bad

import "testing"

func TestBad(t *testing.T) {
	t.Run("inner", func(t *testing.T) { t.Error("aloud") })
	t.Run("other", func(t *testing.T) {})
}
func TestSkipped(t *testing.T) { t.Skip("not here") }
`,
	"broken/broken_test.go": "package broken\n\nvar x int = \"\"\n",
}

// times are how long something took.
var times = regexp.MustCompile(`\d+\.\d+s|\(cached\)`)

func tree(t *testing.T) string {
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestTheLinesPrintedAreThoseOfGoTest(t *testing.T) {
	t.Chdir(tree(t))
	for _, args := range [][]string{{"-count=1", "-p=1", "./..."}, {"-count=1", "-p=1", "-v", "./..."}, {"-count=1", "./good"}} {
		cmd := exec.Command("go", append([]string{"test"}, args...)...)
		want, err := cmd.Output()
		var got strings.Builder
		good, attacksErr := run(append([]string{"go", "test"}, args...), nil, &got)
		if attacksErr != nil || good != (err == nil) {
			t.Errorf("%q: %v, %v; go test: %v", args, good, attacksErr, err)
		}
		text := strings.TrimSuffix(got.String(), "attacks: 0 tried, 0 failed as they must\n")
		// The compiler's errors and go test's last line are on standard error, or not.
		if a, b := lines(string(want)), lines(text); a != b {
			t.Errorf("%q: go test prints\n%s\nand this\n%s", args, a, b)
		}
	}
}

// lines are the lines of a text, sorted: go test has a subtest's after its parent's, and
// more to the right.
func lines(s string) string {
	var all []string
	for line := range strings.Lines(times.ReplaceAllString(s, "TIME")) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "broken/") && strings.TrimSpace(line) != "FAIL" {
			all = append(all, strings.TrimSpace(line))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func TestAnAttackHasFailedIfItsTestsPass(t *testing.T) {
	t.Chdir(tree(t))
	for _, c := range []struct {
		args  string
		tests []string
		want  string
		good  bool
	}{
		{"./good/...", []string{"good TestGood/a_part"}, "attacks: 1 tried, 1 failed as they must\n", true},
		{"./good ./bad", []string{"good TestGood", "bad TestBad/inner"}, "attacks: SUCCEEDED, or its test failed: it (good TestGood, bad TestBad/inner)\nattacks: 1 tried, 0 failed as they must\n", false},
		{"-run=Skipped ./bad", []string{"bad TestSkipped"}, "attacks: skipped: it\nattacks: 0 tried, 0 failed as they must\n", true},
		{"-run=None ./...", []string{"good TestGood"}, "attacks: 0 tried, 0 failed as they must\n", false}, // as one does not compile
		{"./...", []string{"good TestGood/another"}, "attacks: no such test has run: it (good TestGood/another)\nattacks: 0 tried, 0 failed as they must\n", false},
	} {
		var got strings.Builder
		good, err := run(append([]string{"go", "test"}, strings.Fields(c.args)...), []attack.Attack{{Text: "it", Tests: c.tests}}, &got)
		_, last, found := strings.Cut(got.String(), "attacks: ")
		if last = "attacks: " + last; err != nil || !found || last != c.want || good != c.good {
			t.Errorf("%s: %v, %v, %q", c.args, good, err, last)
		}
	}
}
