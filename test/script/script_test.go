// Package script tests the programs as a person meets them at a shell: each
// *.txtar file here is a session, in the language of
// github.com/rogpeppe/go-internal/testscript.
//
// The programs are those that make has put into bin/. No session needs root,
// except where its first lines say so ([!root] skip).
package script

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestSessions(t *testing.T) {
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(top, "bin")
	if _, err := os.Stat(filepath.Join(bin, "factotum")); err != nil {
		t.Skipf("not built, run make first: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir: ".",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", strings.Join([]string{filepath.Join(env.WorkDir, "bin"), bin, os.Getenv("PATH")}, ":"))
			env.Setenv("TOP", top)
			if err := os.MkdirAll(filepath.Join(env.WorkDir, "usr/lib/p9auth"), 0o755); err != nil {
				return err
			}
			if err := os.Symlink(filepath.Join(top, "dist", "console-dropin"), filepath.Join(env.WorkDir, "usr/lib/p9auth/console-dropin")); err != nil {
				return err
			}
			return relocate(filepath.Join(top, "dist", "p9auth-switch"), env.WorkDir)
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Getuid() == 0, nil
			case "fuse":
				_, err := os.Stat("/dev/fuse")
				return err == nil, nil
			}
			return false, fmt.Errorf("no such condition: %s", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"complains": complains,
		},
		RequireExplicitExec: true,
	})
}

// complains checks that all that the last program has written to standard error
// is the one line of its argument, and that it has printed nothing.
//
//	complains TEXT
func complains(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: complains TEXT")
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("the program prints %q", out)
	}
	if got, want := ts.ReadFile("stderr"), args[0]+"\n"; got != want {
		ts.Fatalf("the program complains\n%snot\n%s", got, want)
	}
}

// relocate copies a script that a machine has in /usr/sbin to bin/ below dir, and
// has it take the whole machine to be below dir: what it names in /etc, /run,
// /usr and /var is there.
func relocate(script, dir string) error {
	b, err := os.ReadFile(script)
	if err != nil {
		return err
	}
	text := string(b)
	for _, root := range []string{"/etc/", "/run/", "/usr/", "/var/"} {
		text = strings.ReplaceAll(text, root, dir+root)
	}
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bin, filepath.Base(script)), []byte(text), 0o755)
}
