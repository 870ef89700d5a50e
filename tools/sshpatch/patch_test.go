package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tree copies, from the pinned module, the files that are edited.
func tree(t *testing.T) string {
	t.Helper()
	m, err := download(modulePath)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, e := range edits {
		b, err := os.ReadFile(filepath.Join(m.Dir, e.file))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, e.file)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBuildPatchesThePinnedModule(t *testing.T) {
	out := t.TempDir()
	// The second time there is something to replace.
	for range 2 {
		if err := build(out); err != nil {
			t.Fatal(err)
		}
	}
	server := filepath.Join(out, "crypto", "ssh", "server.go")
	b, err := os.ReadFile(server)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "config.VerifySignatureCallback(s, "); n != 1 {
		t.Errorf("the callback is called in %d places, not one", n)
	}
	if got, err := exec.Command("gofmt", "-l", server).CombinedOutput(); err != nil || len(got) != 0 {
		t.Errorf("gofmt -l: %s %v", got, err)
	}
	list := exec.Command("go", "list", "-modfile="+filepath.Join(out, "go.mod"), "-f", "{{.Dir}}", modulePath+"/ssh")
	got, err := list.CombinedOutput()
	if err != nil || strings.TrimSpace(string(got)) != filepath.Dir(server) {
		t.Errorf("go list -modfile finds the package in %s, not in the copy: %v", got, err)
	}
}

func TestAChangedLibraryIsNotPatched(t *testing.T) {
	for _, e := range edits {
		for _, c := range []struct {
			name, by, found string
		}{
			{"missing", "", "found 0 times"},
			{"with a letter changed", strings.Replace(e.old, "i", "j", 1), "found 0 times"},
			{"twice", e.old + e.old, "found 2 times"},
		} {
			t.Run(e.what+" "+c.name, func(t *testing.T) {
				dir := tree(t)
				name := filepath.Join(dir, e.file)
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				src := strings.Replace(string(b), e.old, c.by, 1)
				if err := os.WriteFile(name, []byte(src), 0o644); err != nil {
					t.Fatal(err)
				}
				err = patch(dir)
				if err == nil {
					t.Fatal("patched")
				}
				for _, want := range []string{c.found, e.file, e.what, "tools/sshpatch/patch.go"} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("error %q does not say %q", err, want)
					}
				}
			})
		}
	}
}

func TestAnotherModuleIsNotPatched(t *testing.T) {
	if err := checkModule(&module{Path: modulePath, Version: moduleVersion}); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		m    module
		says string
	}{
		{module{Version: "v0.57.0"}, "change moduleVersion"},
		{module{Version: "v0.59.0"}, "change moduleVersion"},
		{module{Version: "v0.58.1"}, "change moduleVersion"},
		{module{Version: ""}, "change moduleVersion"},
		{module{Version: moduleVersion, Replace: &module{Path: "./fork"}}, "take the replace out"},
	} {
		err := checkModule(&c.m)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, not %q", c.m, err, c.says)
		}
	}
}

// A go.mod with another version must end the program with one line, and no
// go.mod to build with.
func TestTheProgramFailsLoudly(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "sshpatch")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	// The other version is a module of our own, as there may be no network.
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":       "module m\n\ngo 1.26.0\n\nrequire golang.org/x/crypto v0.99.0\n\nreplace golang.org/x/crypto => ./x\n",
		"go.sum":       "",
		"x/go.mod":     "module golang.org/x/crypto\n\ngo 1.26.0\n",
		"x/ssh/ssh.go": "package ssh\n",
		"build/go.mod": "module stale\n",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bin, "-out", "build")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("exit 0: %s", out)
	}
	if got := string(out); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "sshpatch: go.mod has golang.org/x/crypto v0.99.0") {
		t.Errorf("it says %q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "build", "go.mod")); err == nil {
		t.Error("a go.mod is left to build with")
	}
}
