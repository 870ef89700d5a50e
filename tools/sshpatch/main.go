// Sshpatch is the step of the build that gives golang.org/x/crypto/ssh a
// callback for the signatures of public key authentication (RFC 4252 section
// 7). The library verifies them itself and does not hand them out, but the
// process that speaks SSH is not to be believed about them: factotum has to
// see them. The copy also does not hang when channels are busy while keys are
// exchanged, as the library does (rekey_test.go shows it).
//
//	go run ./tools/sshpatch -out build
//
// writes
//
//	build/crypto   a copy of the module, as go.mod names and go.sum checks it,
//	               with the edits of patch.go
//	build/go.mod   go.mod, and a replace that points to the copy
//	build/go.sum   go.sum
//
// and go build -modfile=build/go.mod -tags sshsig uses it. Nothing of the
// library is committed here. Where the module is not the version that the
// edits were made for, or a place to edit is not found exactly once, sshpatch
// says so, and writes no go.mod.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	out := flag.String("out", "build", "`directory` to write to")
	flag.Parse()
	if flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := build(*out); err != nil {
		fmt.Fprintf(os.Stderr, "sshpatch: %v\n", err)
		os.Exit(1)
	}
}

// A module is what go list -m -json prints of one.
type module struct {
	Path    string
	Version string  // as go.mod selects it
	Dir     string  // in the module cache, read-only
	Replace *module // what go.mod has in its place
}

// build writes the copy and, last, the go.mod that uses it.
func build(out string) error {
	// Whatever fails, no go.mod of an earlier run is left to build with.
	goMod := filepath.Join(out, "go.mod")
	if err := os.RemoveAll(goMod); err != nil {
		return err
	}
	m, err := download(modulePath)
	if err != nil {
		return err
	}
	if err := checkModule(m); err != nil {
		return err
	}
	tmp := filepath.Join(out, "crypto.tmp")
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := copyModule(tmp, m.Dir); err != nil {
		return err
	}
	if err := patch(tmp); err != nil {
		return err
	}
	crypto := filepath.Join(out, "crypto")
	if err := os.RemoveAll(crypto); err != nil {
		return err
	}
	if err := os.Rename(tmp, crypto); err != nil {
		return err
	}
	return writeGoMod(goMod, crypto)
}

// download makes sure that a module is in the module cache, checked against
// go.sum.
func download(path string) (*module, error) {
	if _, err := output("go", "mod", "download", path); err != nil {
		return nil, err
	}
	b, err := output("go", "list", "-m", "-json", path)
	if err != nil {
		return nil, err
	}
	m := new(module)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("go list -m -json %s: %w", path, err)
	}
	return m, nil
}

// output runs a command. Its error says what the command says.
func output(argv ...string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// writeGoMod writes the main module's go.mod with a replace, and its go.sum,
// beside it. The directory in a replace is relative to the main module.
func writeGoMod(name, crypto string) error {
	b, err := output("go", "env", "GOMOD")
	if err != nil {
		return err
	}
	top := filepath.Dir(string(bytes.TrimSpace(b)))
	abs, err := filepath.Abs(crypto)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(top, abs); err == nil && filepath.IsLocal(rel) {
		abs = "./" + rel
	}
	sum, err := os.ReadFile(filepath.Join(top, "go.sum"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(name), "go.sum"), sum, 0o644); err != nil {
		return err
	}
	mod, err := os.ReadFile(filepath.Join(top, "go.mod"))
	if err != nil {
		return err
	}
	tmp := name + ".tmp"
	if err := os.WriteFile(tmp, mod, 0o644); err != nil {
		return err
	}
	if _, err := output("go", "mod", "edit", "-replace", modulePath+"="+abs, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
