package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// committed are the options that make has, for a test's working directory.
func committed(out string) options {
	return options{mod: "../../go.mod", pin: "pin", patches: "patches", out: out}
}

// made is the copy that go.mod has in the library's place.
const made = "../../build/made-by-make/crypto"

func TestTheCopyInUseIsTheQueueApplied(t *testing.T) {
	out := filepath.Join(t.TempDir(), "crypto")
	// The second time there is something to replace.
	for range 2 {
		if err := committed(out).build(); err != nil {
			t.Fatal(err)
		}
	}
	want, got := files(t, out), files(t, made)
	if len(want) < 100 {
		t.Errorf("%d files", len(want))
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: not of the library", name)
		}
	}
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s is not as the queue makes it: run make", name)
		}
	}
	if list, err := exec.Command("gofmt", "-l", out).CombinedOutput(); err != nil || len(list) != 0 {
		t.Errorf("gofmt -l: %s %v", list, err)
	}
	list, err := exec.Command("go", "list", "-f", "{{.Dir}}", modulePath+"/ssh").CombinedOutput()
	if abs, _ := filepath.Abs(made + "/ssh"); err != nil || strings.TrimSpace(string(list)) != abs {
		t.Errorf("p9auth is built with the package in %s, not with the copy: %v", list, err)
	}
}

// files returns the contents of all files below a directory by their names.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		m[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var (
	testField  = regexp.MustCompile(`(?m)^Test: (Test\w+)$`)
	otherField = regexp.MustCompile(`(?m)^(What|Why|Upstream): \S`)
)

func TestEachPatchSaysWhatItIsFor(t *testing.T) {
	queue, err := committed("").queue()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range queue {
		if n := len(otherField.FindAllString(p.header, -1)); n != 3 || !testField.MatchString(p.header) {
			t.Errorf("%s: its header needs What, Why, Upstream and at least one Test, each at the beginning of a line", p.name)
		}
	}
}

var missing = regexp.MustCompile(`(?s)(unknown field|undefined).*\[build failed\]`)

// For each patch, the library is made without it, and the tests that its header
// names must fail.
func TestWithoutAPatchItsTestsFail(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the SSH library for each patch")
	}
	queue, err := committed("").queue()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string][]string{}
	var all []string
	for _, p := range queue {
		for _, m := range testField.FindAllStringSubmatch(p.header, -1) {
			tests[p.name] = append(tests[p.name], m[1])
			all = append(all, m[1])
		}
	}
	if out, passed := runWithout(t, nil, all); !passed {
		t.Fatalf("with all patches: %s", out)
	}
	for _, p := range queue {
		t.Run(p.name, func(t *testing.T) {
			// What hangs only where two things happen at once has some tries.
			left, out := tests[p.name], ""
			for try := 0; len(left) > 0 && try < 10; try++ {
				out, _ = runWithout(t, []string{p.name}, left)
				// The tests use a name that the patch adds, or see the difference.
				if missing.MatchString(out) {
					return
				}
				left = slices.DeleteFunc(slices.Clone(left), func(name string) bool { return strings.Contains(out, "--- FAIL: "+name+" ") })
			}
			for _, name := range left {
				t.Errorf("%s does not fail without %s: %s", name, p.name, out)
			}
		})
	}
}

// runWithout runs tests of this package with a library that lacks some patches.
func runWithout(t *testing.T, skip, tests []string) (out string, passed bool) {
	t.Helper()
	dir := t.TempDir()
	o := committed(filepath.Join(dir, "crypto"))
	o.skip = skip
	if err := o.build(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mod := filepath.Join(dir, "go.mod")
	if _, err := goCommand(".", "mod", "edit", "-replace", modulePath+"="+o.out, mod); err != nil {
		t.Fatal(err)
	}
	// vet would only say again what the compiler says.
	b, err := exec.Command("go", "test", "-vet=off", "-count=1", "-v", "-modfile="+mod, "-run", "^("+strings.Join(tests, "|")+")$", ".").CombinedOutput()
	ran := bytes.Count(b, []byte("\n--- PASS: "))
	return string(b), err == nil && ran == len(tests)
}

// A tree is a module in the place of the library, with a queue of one patch.
// Nothing of it needs the network.
func tree(t *testing.T, change map[string]string) options {
	t.Helper()
	dir := t.TempDir()
	text := map[string]string{
		"go.mod":              "module m\n\ngo 1.26.0\n\nrequire golang.org/x/crypto v0.58.0\n",
		"pin/go.mod":          "module pin\n\ngo 1.26.0\n\nrequire golang.org/x/crypto v0.58.0\n",
		"patches/01-x.patch":  "What: x.\n--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-# Go Cryptography\n+# Changed\n",
		"out/crypto/go.mod":   "module golang.org/x/crypto\n",
		"out/crypto/stale.go": "package stale\n",
	}
	sum, err := os.ReadFile("pin/go.sum")
	if err != nil {
		t.Fatal(err)
	}
	text["pin/go.sum"] = string(sum)
	for name, s := range change {
		text[name] = s
	}
	for name, s := range text {
		if s == "" {
			continue
		}
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return options{mod: filepath.Join(dir, "go.mod"), pin: filepath.Join(dir, "pin"), patches: filepath.Join(dir, "patches"), out: filepath.Join(dir, "out/crypto")}
}

func TestAFailureIsOneLineAndLeavesNoCopy(t *testing.T) {
	sum, err := os.ReadFile("pin/go.sum")
	if err != nil {
		t.Fatal(err)
	}
	const good = "--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-# Go Cryptography\n+# Changed\n"
	for name, c := range map[string]struct {
		change map[string]string
		skip   string
		want   string
	}{
		"another version": {map[string]string{"go.mod": "module m\n\nrequire golang.org/x/crypto v0.99.0\n"}, "",
			`requires golang\.org/x/crypto v0\.99\.0, but the patches are for v0\.58\.0, as .*pin/go\.mod says$`},
		"no version": {map[string]string{"go.mod": "module m\n"}, "",
			`go\.mod does not require golang\.org/x/crypto$`},
		"no checksum": {map[string]string{"pin/go.sum": "\n"}, "",
			`pin/go\.sum has no checksum of golang\.org/x/crypto v0\.58\.0: run go get -C `},
		"another checksum": {map[string]string{"pin/go.sum": strings.Replace(string(sum), " h1:C", " h1:D", 1)}, "",
			`checksum mismatch`},
		"a library that has changed": {map[string]string{"patches/01-x.patch": strings.Replace(good, "# Go", "# Old", 1)}, "",
			`^01-x\.patch:3: README\.md:1: the library has "# Go Cryptography", not "# Old Cryptography": change the patch to fit it$`},
		"a file that is gone": {map[string]string{"patches/01-x.patch": strings.ReplaceAll(good, "README.md", "ssh/gone.go")}, "",
			`^01-x\.patch:3: ssh/gone\.go: the library has no such file$`},
		"a patch that is cut": {map[string]string{"patches/02-y.patch": "What: y.\n"}, "",
			`^02-y\.patch:1: no diff$`},
		"no patches": {map[string]string{"patches/01-x.patch": "", "patches/README": "empty\n"}, "",
			`^no patches in `},
		"an unknown patch to leave out": {nil, "7", `^no patch "7" to leave out in `},
	} {
		t.Run(name, func(t *testing.T) {
			o := tree(t, c.change)
			if c.skip != "" {
				o.skip = []string{c.skip}
			}
			err := o.build()
			if err == nil || !regexp.MustCompile(c.want).MatchString(err.Error()) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, not one line that matches %q", err, c.want)
			}
			left, err := os.ReadDir(filepath.Dir(o.out))
			if err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

func TestPatchesAreAppliedInOrderAndCanBeLeftOut(t *testing.T) {
	second := "--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-# Changed\n+# Again\n"
	o := tree(t, map[string]string{"patches/02-y.patch": second})
	for want, skip := range map[string][]string{"# Again\n": nil, "# Changed\n": {"02"}, "# Go Cryptography\n": {"01-x.patch", "02"}} {
		o.skip = skip
		if err := o.build(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(o.out, "README.md"))
		if err != nil || !strings.HasPrefix(string(b), want) {
			t.Errorf("without %v: %.40q, %v", skip, b, err)
		}
	}
}

func TestWhatIsNoCopyIsNotRemoved(t *testing.T) {
	o := tree(t, map[string]string{"out/crypto/go.mod": "module mine\n"})
	if err := o.build(); err == nil || !strings.Contains(err.Error(), "is in the way") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(o.out, "stale.go")); err != nil {
		t.Error(err)
	}
}
