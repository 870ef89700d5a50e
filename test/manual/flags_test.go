package manual

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// pages are the programs that take flags, by their folders, and their pages.
var pages = map[string]string{
	"factotum": "factotum.8",
	"login":    "p9login.1",
	"sshfront": "sshfront.8",
	"su":       "p9su.1",
}

// usage is the usage text of the program in a folder, its const usage.
func usage(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(Top(), dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				if v := s.(*ast.ValueSpec); v.Names[0].Name == "usage" {
					return string(src[set.Position(v.Pos()).Offset:set.Position(v.End()).Offset])
				}
			}
		}
	}
	t.Fatalf("%s has no const usage", dir)
	return ""
}

func TestEachFlagIsInThePageOfItsProgram(t *testing.T) {
	flag := regexp.MustCompile(`(?m)(?:^|[\s\[\x60])-(-[a-z]+(?:-[a-z]+)*|[A-Za-z0-9]+)\b`)
	for dir, page := range pages {
		text := usage(t, dir)
		known := map[string][]string{}
		for _, m := range flag.FindAllStringSubmatch(text, -1) {
			if m[1][0] == '-' {
				known[m[1]] = nil
				continue
			}
			for _, letter := range m[1] {
				known[string(letter)] = nil
			}
		}
		if len(known) == 0 {
			t.Errorf("the usage text of %s has no flags:\n%s", dir, text)
		}
		WantItems(t, page, Items(Source(t, page), "Fl"), known)
	}
}

// TestEachPageRefersToPages that are ours or those of a system.
func TestEachPageRefersToPagesThatAreThere(t *testing.T) {
	ours := regexp.MustCompile(`(?m)^\.Xr ((?:p9|factotum|sshfront|cap(?:use|hash))\S*) (\d)`)
	for _, f := range Pages(t) {
		for _, m := range ours.FindAllStringSubmatch(Source(t, f), -1) {
			page := m[1] + "." + m[2]
			if page == "factotum.4" { // Plan 9's
				continue
			}
			if _, err := os.Stat(filepath.Join(Top(), "man", page)); err != nil {
				t.Errorf("%s refers to %s(%s), which is not there", f, m[1], m[2])
			}
		}
	}
}
