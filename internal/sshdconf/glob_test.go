package sshdconf

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The shell matches as glob(3) does, but for "[^".
func TestGlobMatchesWhatTheShellMatches(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"a", "b", "c.conf", ".hidden", ".hidden.conf", "d/x", "d/.x", ".e/x", "[q]", "a*b", "!"} {
		name := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	matched := 0
	for _, p := range []string{
		"*", "?", "*.conf", ".*f", "[!a]", "[ab]", "[!a-c]", "[.]hidden", `\[q\]`, `a\*b`, "*/x", "*/*", "d/.?", ".e/*", ".[e]/x", "d//x", "nothing*", "a", "[!]", "?hidden",
	} {
		cmd := exec.Command("bash", "-c", `shopt -s nullglob; printf '%s\n' `+p)
		cmd.Dir, cmd.Env = dir, []string{"LC_ALL=C"}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for f := range strings.FieldsSeq(string(out)) {
			if f = dir + "/" + f; exists(f) {
				want = append(want, f)
			}
		}
		got, err := Glob(dir + "/" + p)
		if err != nil && p != "[!]" {
			t.Errorf("%s: %v", p, err)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %q, the shell has %q", p, got, want)
		}
		matched += len(got)
	}
	if matched < 20 {
		t.Errorf("%d matches", matched)
	}
}

func exists(f string) bool { _, err := os.Lstat(f); return err == nil }
