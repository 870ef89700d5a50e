package attack

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const top = "../.."

var function = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]*)\(\w+ \*testing\.T\)`)

// testsOf are the test functions of a folder of the tree.
func testsOf(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(top, folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range function.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
	}
	return names
}

// TestEachAttackInTheListHasItsTest looks for functions. Whether their subtests are
// there is seen when they run: tools/attacks says so.
func TestEachAttackInTheListHasItsTest(t *testing.T) {
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("%d attacks; is the list read?", len(all))
	}
	for _, a := range all {
		for _, name := range a.Tests {
			folder, name, _ := strings.Cut(name, " ")
			name, _, _ = strings.Cut(name, "/")
			if !testsOf(t, folder)[name] {
				t.Errorf("%s: %s has no %s", a.Text, folder, name)
			}
		}
	}
}

func TestEachTestOfAnAttackerIsInTheList(t *testing.T) {
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, a := range all {
		for _, name := range a.Tests {
			folder, name, _ := strings.Cut(name, " ")
			name, _, _ = strings.Cut(name, "/")
			listed[folder+" "+name] = true
		}
	}
	err = filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() || path == "." {
			return err
		}
		folder := filepath.Join("test/attack", path)
		for name := range testsOf(t, folder) {
			if name != "TestMain" && !listed[folder+" "+name] {
				t.Errorf("%s of %s is not in test/attack/README.md", name, folder)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// named is a test that the manual page names: a folder, a colon, and the function.
var named = regexp.MustCompile(`(?m)^\.Li ([a-z0-9/]+):(Test\w+)`)

// TestEachTestThatThePageNamesIsThere holds p9auth-threats(7) to the tests.
func TestEachTestThatThePageNamesIsThere(t *testing.T) {
	page, err := os.ReadFile(top + "/man/p9auth-threats.7")
	if err != nil {
		t.Fatal(err)
	}
	all := named.FindAllStringSubmatch(string(page), -1)
	if len(all) < 40 || len(all) != strings.Count(string(page), ":Test") {
		t.Errorf("%d tests are named in a form that is understood, of %d", len(all), strings.Count(string(page), ":Test"))
	}
	for _, m := range all {
		if !testsOf(t, m[1])[m[2]] {
			t.Errorf("the page names %s of %s, which is not there", m[2], m[1])
		}
	}
}
