package manual

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheExampleInCapuse4WorksAsPrinted takes the script out of the page as a
// person sees it, runs it as root, and compares what it prints with what the
// page says.
func TestTheExampleInCapuse4WorksAsPrinted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount FUSE")
	}
	script, want := capuseExample(t)
	bin, err := filepath.Abs(filepath.Join(Top(), "bin"))
	if err != nil {
		t.Fatal(err)
	}
	// Whatever a failure leaves mounted ends with this namespace.
	cmd := exec.Command("unshare", "--mount", "--", "sh", "-euc", script)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "TMPDIR="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		log := ""
		if e, ok := err.(*exec.ExitError); ok {
			log = string(e.Stderr)
		}
		t.Fatalf("%v\n%s\nthe script:\n%s", err, log, script)
	}
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("printed %q, the page says %q", got, want)
	}
}

// capuseExample is the script and its output in EXAMPLES.
func capuseExample(t *testing.T) (script, output string) {
	t.Helper()
	page, err := exec.Command("mandoc", "-Tascii", filepath.Join(Top(), "man", "capuse.4")).Output()
	if err != nil {
		t.Fatal(err)
	}
	// Section heads are printed over themselves to be bold; the script is not.
	_, section, _ := strings.Cut(string(page), "\nE\bEX\bXA\bAM\bMP\bPL\bLE\bES\bS\n")
	before, after, ok := strings.Cut(section, "\n     It prints\n")
	if !ok {
		t.Fatalf("EXAMPLES has no output:\n%s", page)
	}
	const indent = "           "
	for line := range strings.Lines(before) {
		if code, ok := strings.CutPrefix(line, indent); ok || line == "\n" {
			script += code
		}
	}
	output, _, _ = strings.Cut(after, "\n")
	return script, strings.TrimSpace(output)
}
