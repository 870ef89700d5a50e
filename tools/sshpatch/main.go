// Sshpatch makes the golang.org/x/crypto that p9auth is built with: a copy of
// the module, changed by the queue of patches in tools/sshpatch/patches. The
// header of each patch says what it changes and why. Nothing of the library is
// committed here.
//
//	go run -modfile=tools/sshpatch/pin/go.mod ./tools/sshpatch
//
// is run by make at the top of the tree. It takes the version of the module that
// pin/go.mod names, checked against pin/go.sum, applies the patches in the order
// of their names, and writes build/made-by-make/crypto, which go.mod puts in the
// module's place. Where a patch does not apply, or go.mod names another version,
// it says so in one line and leaves no copy: then nothing compiles.
//
// With -modfile, sshpatch itself is built while there is no copy yet.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const modulePath = "golang.org/x/crypto"

// options are what the copy is made from, and where. All are paths relative to
// the working directory.
type options struct {
	mod     string   // the go.mod that the copy is for
	pin     string   // directory of the go.mod and go.sum that name and check the original
	patches string   // directory of the queue
	skip    []string // patches to leave out, by name or by the number before the first "-"
	out     string   // the copy
}

func main() {
	o := options{mod: "go.mod", pin: "tools/sshpatch/pin", patches: "tools/sshpatch/patches"}
	flag.StringVar(&o.out, "out", "build/made-by-make/crypto", "`directory` to write the copy to, in place of an earlier copy")
	skip := flag.String("skip", "", "`patches` to leave out, as in 03,04, to work on one of them")
	flag.Parse()
	if flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	if *skip != "" {
		o.skip = strings.Split(*skip, ",")
	}
	if err := o.build(); err != nil {
		fmt.Fprintf(os.Stderr, "sshpatch: %v\n", err)
		os.Exit(1)
	}
}

// build writes the copy. When it fails there is none, not even an earlier one.
func (o options) build() error {
	if err := removeCopy(o.out); err != nil {
		return err
	}
	src, err := o.original()
	if err != nil {
		return err
	}
	queue, err := o.queue()
	if err != nil {
		return err
	}
	parent := filepath.Dir(filepath.Clean(o.out))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, ".sshpatch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	// Not tmp itself, which only its owner may enter.
	copied := filepath.Join(tmp, "crypto")
	if err := copyModule(copied, src); err != nil {
		return err
	}
	for _, p := range queue {
		if err := p.apply(copied); err != nil {
			return err
		}
	}
	return os.Rename(copied, o.out)
}

// removeCopy removes an earlier copy, and nothing else.
func removeCopy(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil || !strings.HasPrefix(string(b), "module "+modulePath+"\n") {
		if entries, err := os.ReadDir(dir); len(entries) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is in the way: it is not a copy of %s", dir, modulePath)
		}
	}
	return os.RemoveAll(dir)
}

// original returns the directory of the module in the module cache, which has
// the version that go.mod requires and the contents that the pin's go.sum says.
func (o options) original() (string, error) {
	want, err := required(o.mod)
	if err != nil {
		return "", err
	}
	pinned, err := required(filepath.Join(o.pin, "go.mod"))
	if err != nil {
		return "", err
	}
	if want != pinned {
		return "", fmt.Errorf("%s requires %s %s, but the patches are for %s, as %s says",
			o.mod, modulePath, want, pinned, filepath.Join(o.pin, "go.mod"))
	}
	// Without a line in go.sum, go mod download would add one and trust it.
	sums, err := os.ReadFile(filepath.Join(o.pin, "go.sum"))
	if err != nil {
		return "", err
	}
	if !strings.Contains("\n"+string(sums), "\n"+modulePath+" "+pinned+" h1:") {
		return "", fmt.Errorf("%s has no checksum of %s %s: run go get -C %s %s@%s",
			filepath.Join(o.pin, "go.sum"), modulePath, pinned, o.pin, modulePath, pinned)
	}
	b, err := goCommand(o.pin, "mod", "download", "-json", modulePath)
	if err != nil {
		return "", err
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(b, &m); err != nil {
		return "", fmt.Errorf("go mod download -json: %w", err)
	}
	// What is unpacked in the module cache is still what was downloaded.
	if _, err := goCommand(o.pin, "mod", "verify"); err != nil {
		return "", err
	}
	return m.Dir, nil
}

// required returns the version of the module that a go.mod requires.
func required(mod string) (string, error) {
	b, err := goCommand(".", "mod", "edit", "-json", mod)
	if err != nil {
		return "", err
	}
	var f struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return "", fmt.Errorf("go mod edit -json %s: %w", mod, err)
	}
	for _, r := range f.Require {
		if r.Path == modulePath {
			return r.Version, nil
		}
	}
	return "", fmt.Errorf("%s does not require %s", mod, modulePath)
}

// goCommand runs the go command in a directory. Its error is one line.
func goCommand(dir string, args ...string) ([]byte, error) {
	var out, stderr bytes.Buffer
	cmd := exec.Command("go", args...)
	// The caller's flags, such as -modfile, are not for the pin.
	cmd.Env = append(cmd.Environ(), "GOFLAGS=", "GOWORK=off")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &stderr
	if err := cmd.Run(); err != nil {
		// go mod download -json has its errors in the JSON.
		var m struct{ Error string }
		_ = json.Unmarshal(out.Bytes(), &m)
		said := cmp.Or(m.Error, stderr.String(), err.Error())
		return nil, fmt.Errorf("go %s: %s", strings.Join(args, " "), strings.Join(strings.Fields(said), " "))
	}
	return out.Bytes(), nil
}

// queue reads the patches, without those to skip, in the order of their names.
func (o options) queue() ([]*patch, error) {
	names, err := filepath.Glob(filepath.Join(o.patches, "*.patch"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no patches in %s", o.patches)
	}
	slices.Sort(names)
	skipped := map[string]bool{}
	var queue []*patch
	for _, name := range names {
		base := filepath.Base(name)
		number, _, _ := strings.Cut(base, "-")
		if i := slices.IndexFunc(o.skip, func(s string) bool { return s == base || s == number }); i >= 0 {
			skipped[o.skip[i]] = true
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		p, err := parsePatch(base, string(b))
		if err != nil {
			return nil, err
		}
		queue = append(queue, p)
	}
	for _, s := range o.skip {
		if !skipped[s] {
			return nil, fmt.Errorf("no patch %q to leave out in %s", s, o.patches)
		}
	}
	return queue, nil
}

// apply changes the files of a copy.
func (p *patch) apply(dir string) error {
	for _, f := range p.files {
		name := filepath.Join(dir, filepath.FromSlash(f.name))
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s:%d: %s: the library has no such file", p.name, f.hunks[0].line, f.name)
		}
		if err != nil {
			return err
		}
		s, err := f.apply(p.name, string(b))
		if err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(s), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// copyModule copies what a build needs of the module in src, writable, to dst.
func copyModule(dst, src string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		switch {
		case d.IsDir() && d.Name() == "testdata":
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case !d.Type().IsRegular() || strings.HasSuffix(rel, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
}
