package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestChaCha20Poly1305IsThatOfTheDescription runs testdata/chacha20poly1305_test.go as
// one of the library's own tests, which see its ciphers: a packet that another
// implementation made, all small sizes beside package chacha20, and the seeds of a fuzz
// test (go test -fuzz works with the same -overlay).
func TestChaCha20Poly1305IsThatOfTheDescription(t *testing.T) {
	// The library may be another one than the tree's: see TestWithoutAPatchItsTestsFail.
	file, _ := runtime.FuncForPC(reflect.ValueOf(ssh.NewServerConn).Pointer()).FileLine(0)
	dir := filepath.Dir(file)
	test, err := filepath.Abs("testdata/chacha20poly1305_test.go")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(dir, "chacha20poly1305_test.go"): test}})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(overlay, text, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "test", "-vet=off", "-count=1", "-overlay="+overlay, ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
