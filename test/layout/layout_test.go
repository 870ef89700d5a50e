// Package layout holds the tree to the rules of ARCHITECTURE.md: which package may
// use which. A folder is a process or a wire between two; what is not imported
// cannot be called by whoever takes the process over, nor need be read to trust it.
package layout

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "p9auth"
	top    = "../.."
)

// A pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string // of its imports too
	CgoFiles   []string
}

// list runs go list over the module. It returns all packages that are reached, by
// their paths, and of those the module's own.
func list(t *testing.T, env ...string) (all, ours map[string]pkg) {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps,CgoFiles", "./...")
	cmd.Dir = top
	cmd.Env = append(os.Environ(), env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, errs.String())
	}
	all, ours = map[string]pkg{}, map[string]pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
		if p.ImportPath == module || strings.HasPrefix(p.ImportPath, module+"/") {
			ours[p.ImportPath] = p
		}
	}
	return all, ours
}

// below says whether a package is at a folder of the module or below it.
func below(path, folder string) bool {
	path, ok := strings.CutPrefix(path, module+"/")
	return ok && (path == folder || strings.HasPrefix(path, folder+"/"))
}

// rules are the import rules.
var rules = []struct {
	why  string
	who  []string // folders; each must hold a package
	deep bool     // what they import, and what that imports
	not  []string // folders of the module, or packages of others with all below them
}{
	{"programs know each other by the wires alone", []string{"factotum"}, true, []string{"sshfront", "login", "su", "doas", "passwd", "chkpwd"}},
	{"programs know each other by the wires alone", []string{"sshfront"}, true, []string{"factotum", "login", "su", "doas", "passwd", "chkpwd"}},
	{"programs know each other by the wires alone", []string{"login"}, true, []string{"factotum", "sshfront", "su", "doas", "passwd", "chkpwd"}},
	{"programs know each other by the wires alone", []string{"su"}, true, []string{"factotum", "sshfront", "login", "doas", "passwd", "chkpwd"}},
	{"programs know each other by the wires alone", []string{"doas"}, true, []string{"factotum", "sshfront", "login", "su", "passwd", "chkpwd"}},
	{"programs know each other by the wires alone", []string{"passwd", "chkpwd"}, true, []string{"factotum", "sshfront", "login", "su", "doas"}},
	{"what is shared is below those who share it", []string{"capproto", "internal"}, true, []string{"factotum", "sshfront", "login", "su", "doas", "passwd", "chkpwd"}},
	{"it decides, and does nothing", []string{"factotum/internal/sshauth", "internal/doasconf"}, false, []string{"os", "os/exec", "net", "syscall", "golang.org/x/sys"}},
	{"a stranger talks to them, so there is no code to run programs or read files with", []string{"sshfront/internal/connection", "sshfront/internal/channels"},
		false, []string{"os/exec", "os/user", "github.com/pkg/sftp"}},
	{"a stranger talks to them, so there is no code to run programs or read files with", []string{"sshfront/internal/connection", "sshfront/internal/channels"},
		true, []string{"os/exec", "github.com/pkg/sftp"}},
	{"its client may be one who must not run programs", []string{"sshfront/internal/sftp"}, false, []string{"os/exec", "os/user"}},
	{"processes know each other by the wires alone", []string{"sshfront/internal/listener"}, true,
		[]string{"sshfront/internal/connection", "sshfront/internal/channels", "sshfront/internal/session", "sshfront/internal/user"}},
	{"processes know each other by the wires alone", []string{"sshfront/internal/connection", "sshfront/internal/channels"}, true,
		[]string{"sshfront/internal/listener", "sshfront/internal/session", "sshfront/internal/user"}},
	{"processes know each other by the wires alone", []string{"sshfront/internal/session"}, true,
		[]string{"sshfront/internal/listener", "sshfront/internal/connection", "sshfront/internal/channels"}},
	{"processes know each other by the wires alone", []string{"sshfront/internal/user"}, true,
		[]string{"sshfront/internal/listener", "sshfront/internal/connection", "sshfront/internal/channels", "sshfront/internal/session"}},
	{"a wire is known to its ends, and knows neither", []string{"sshfront/internal/control", "factotum/internal/pamwire"}, true,
		[]string{"sshfront/internal/listener", "sshfront/internal/connection", "sshfront/internal/channels", "sshfront/internal/session", "sshfront/internal/user", "factotum/internal/daemon", "factotum/pam"}},
	{"a wire is known to its ends, and knows neither", []string{"sshfront/internal/userlink"}, true,
		[]string{"sshfront/internal/listener", "sshfront/internal/connection", "sshfront/internal/channels", "sshfront/internal/session", "sshfront/internal/user"}},
	{"the worker and factotum know each other by the wire alone", []string{"factotum/pam"}, true, []string{"factotum/internal/daemon", "factotum/internal/config"}},
	{"the worker and factotum know each other by the wire alone", []string{"factotum/internal/daemon"}, true, []string{"factotum/pam"}},
	{"there is one for each session, and what it links is memory of each", []string{"factotum/pam"}, true, []string{"net", "encoding/json", "log/slog", "regexp", "golang.org/x/crypto"}},
	{"there is one for each session, and what it links is memory of each", []string{"sshfront/internal/session", "sshfront/internal/user"}, true, []string{"regexp", "golang.org/x/crypto"}},
	{"no program is tested by what ships in it", []string{"factotum", "sshfront", "login", "su", "doas", "passwd", "chkpwd", "internal", "capproto"}, true, []string{"test", "tools", "testing"}},
}

func TestNoPackageImportsWhatItsProcessMustNotHave(t *testing.T) {
	_, ours := list(t)
	for _, r := range rules {
		for _, not := range r.not {
			here := func(path string) bool { return below(path, not) }
			inner, _, _ := strings.Cut(not, "/")
			if _, err := os.Stat(filepath.Join(top, inner)); err == nil && !slices.ContainsFunc(slices.Collect(maps.Keys(ours)), here) {
				t.Errorf("a rule forbids %s, where no package is", not)
			}
		}
		for _, folder := range r.who {
			n := 0
			for path, p := range ours {
				if !below(path, folder) {
					continue
				}
				n++
				imports := p.Imports
				if r.deep {
					imports = p.Deps
				}
				for _, i := range imports {
					for _, not := range r.not {
						if below(i, not) || i == not || strings.Contains(not, ".") && strings.HasPrefix(i, not+"/") {
							t.Errorf("%s must not import %s: %s", path, i, r.why)
						}
					}
				}
			}
			if n == 0 {
				t.Errorf("a rule is about %s, where no package is: %s", folder, r.why)
			}
		}
	}
}

// TestEachFolderIsInTheTableOfARCHITECTURE and no other.
func TestEachFolderIsInTheTableOfARCHITECTURE(t *testing.T) {
	text, err := os.ReadFile(top + "/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n| folder |")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := map[string]bool{}
	for line := range strings.Lines(table) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		for folder := range strings.SplitSeq(cell, ", ") {
			if len(folder) > 2 && folder[0] == '`' {
				rows[strings.Trim(folder, "`")] = true
			}
		}
	}
	if len(rows) < 10 {
		t.Fatalf("ARCHITECTURE.md has no table of folders: %v", rows)
	}
	_, ours := list(t)
	for path := range ours {
		has := rows[strings.TrimPrefix(path, module+"/")]
		for folder := range rows {
			whole := strings.TrimSuffix(folder, "/...")
			// A program's row is about its main alone.
			if whole != folder || folder == "test" || folder == "tools" || folder == "factotum/pam" {
				has = has || below(path, whole)
			}
		}
		if !has {
			t.Errorf("ARCHITECTURE.md does not have %s", path)
		}
	}
	for folder := range rows {
		if _, err := os.Stat(filepath.Join(top, strings.TrimSuffix(folder, "/..."))); err != nil {
			t.Errorf("ARCHITECTURE.md has %s, which is not there", folder)
		}
	}
}

// TestBecomeImportsItsRecordAndPrivsOnly where it is written in Go.
func TestBecomeImportsItsRecordAndPrivsOnly(t *testing.T) {
	all, ours := list(t)
	p, ok := ours[module+"/internal/become"]
	if !ok {
		if c, _ := filepath.Glob(top + "/internal/become/*.[cS]"); len(c) == 0 {
			t.Fatal("internal/become is neither Go nor C")
		}
		return
	}
	for _, i := range p.Imports {
		if !all[i].Standard && i != module+"/internal/becomerecord" && i != module+"/internal/privs" {
			t.Errorf("become imports %s", i)
		}
	}
}

// TestEachProgramIsUndumpableFromItsInitialisation, before anything of it reads.
func TestEachProgramIsUndumpableFromItsInitialisation(t *testing.T) {
	_, ours := list(t, "CGO_ENABLED=1")
	for _, program := range []string{"factotum", "factotum/pam", "login", "sshfront", "su", "doas", "passwd", "chkpwd"} {
		if !slices.Contains(ours[module+"/"+program].Imports, module+"/internal/undumpable") {
			t.Errorf("%s does not import internal/undumpable", program)
		}
	}
	for _, i := range ours[module+"/internal/undumpable"].Imports {
		if i != "syscall" {
			t.Errorf("internal/undumpable imports %s, which is initialised before it", i)
		}
	}
}

// TestOnlyTheWorkerIsLinkedWithC as libpam and NSS are C libraries.
func TestOnlyTheWorkerIsLinkedWithC(t *testing.T) {
	_, ours := list(t, "CGO_ENABLED=1")
	worker := false
	for path, p := range ours {
		if len(p.CgoFiles) == 0 {
			continue
		}
		if below(path, "factotum/pam") {
			worker = true
		} else {
			t.Errorf("%s uses cgo, in %q", path, p.CgoFiles)
		}
	}
	if !worker {
		t.Error("not even the worker does, so this test sees nothing")
	}
	if testing.Short() {
		t.Skip("the rest links four programs")
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", dir+"/", "./factotum", "./login", "./sshfront", "./su", "./doas", "./passwd", "./chkpwd")
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("without cgo: %v: %s", err, out)
	}
	for _, name := range []string{"factotum", "login", "sshfront", "su", "doas", "passwd", "chkpwd"} {
		f, err := elf.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
			t.Errorf("%s is linked with %q: %v", name, libs, err)
		}
		f.Close()
	}
}

// maxLines is how long a file may be that runs with rights.
const maxLines = 350

func TestFilesThatRunWithRightsAreShort(t *testing.T) {
	n := 0
	for _, pattern := range []string{"factotum", "internal/capfs", "internal/become", "internal/becomerecord", "internal/privs",
		"internal/authkeys", "internal/sshdconf", "internal/pack", "internal/krl", "internal/match", "internal/doasconf", "internal/logindefs", "internal/sys", "internal/proc"} {
		before := n
		err := filepath.WalkDir(filepath.Join(top, pattern), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") || !slices.Contains([]string{".go", ".c", ".S", ".h"}, filepath.Ext(path)) {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			n++
			name, _ := filepath.Rel(top, path)
			if lines := bytes.Count(b, []byte("\n")); lines > maxLines {
				t.Errorf("%s has %d lines; a file that runs with rights has at most %d", name, lines, maxLines)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if n == before {
			t.Errorf("no files in %s", pattern)
		}
	}
}
