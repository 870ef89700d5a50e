//go:build cross

package package_test

import (
	"debug/elf"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestThePackageForARM64IsOne: make deb ARCH=arm64 on another machine.
func TestThePackageForARM64IsOne(t *testing.T) {
	tmp := t.TempDir()
	run(t, "make", "-C", "../..", "deb", "ARCH=arm64", "OUT="+tmp, "BIN="+tmp+"/bin", "VERSION=0.test")
	deb := tmp + "/p9auth_0.test_arm64.deb"
	if got := strings.TrimSpace(run(t, "dpkg-deb", "-f", deb, "Architecture")); got != "arm64" {
		t.Errorf("it is labelled %s", got)
	}
	root := filepath.Join(tmp, "root")
	run(t, "dpkg-deb", "-R", deb, root)
	for _, p := range programs(t, root) {
		f, err := elf.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != elf.EM_AARCH64 {
			t.Errorf("%s is for %v", p, f.Machine)
		}
		dynamic := f.Section(".interp") != nil
		f.Close()
		if want := filepath.Base(p) == "factotum-pam"; dynamic != want {
			t.Errorf("%s is linked dynamically: %t", p, dynamic)
		}
		if dynamic {
			continue // its libraries are in no place where they would be found
		}
		out, err := exec.Command("qemu-aarch64", p, "-V").CombinedOutput()
		if filepath.Base(p) == "redeem" { // su's own: it has no options, and says that there is nothing to redeem
			if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 126 || len(out) == 0 {
				t.Errorf("redeem on arm64, without a capability: %v: %s", err, out)
			}
			continue
		}
		if want := filepath.Base(p) + " from p9auth 0.test\n"; err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s -V on arm64: %v: %s", p, err, out)
		}
	}
	testCopyright(t, root, "arm64")
}
