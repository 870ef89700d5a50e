package package_test

import (
	"compress/gzip"
	"debug/buildinfo"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A paragraph of a file in Debian's form, by the names of its fields.
type paragraph map[string]string

// paragraphs reads a file of that form (deb822(5)).
func paragraphs(t *testing.T, text string) (all []paragraph) {
	t.Helper()
	for _, part := range strings.Split(strings.TrimSpace(text), "\n\n") {
		p := paragraph{}
		last := ""
		for _, l := range strings.Split(part, "\n") {
			if more, ok := strings.CutPrefix(l, " "); ok && last != "" {
				p[last] += "\n" + more
				continue
			}
			name, value, ok := strings.Cut(l, ":")
			if _, twice := p[name]; !ok || twice || strings.ContainsAny(name, " \t") {
				t.Fatalf("not a line of a field: %q", l)
			}
			last = name
			p[name] = strings.TrimSpace(value)
		}
		all = append(all, p)
	}
	return all
}

// testCopyright tests the copyright file of a package for a machine (as GOARCH has it),
// which is unpacked at root.
func testCopyright(t *testing.T, root, machine string) {
	// What is linked, as go(1) reads it from the programs.
	linked := map[string][]string{}
	for _, p := range programs(t, root) {
		if _, err := buildinfo.ReadFile(p); err != nil {
			continue // C without a library
		}
		for i, l := range lines(run(t, "go", "version", "-m", p)) {
			f := strings.Fields(l)
			name := ""
			switch {
			case i == 0:
				name = "go@" + strings.TrimPrefix(f[len(f)-1], "go")
			case len(f) > 2 && f[0] == "dep":
				name = f[1] + "@" + f[2]
			default:
				continue
			}
			linked[name] = append(linked[name], filepath.Base(p))
		}
	}

	all := paragraphs(t, read(t, root+"/usr/share/doc/p9auth/copyright"))
	texts := map[string]string{}
	for _, p := range all[1:] {
		if _, files := p["Files"]; !files {
			name, text, _ := strings.Cut(p["License"], "\n")
			texts[name] = strings.Join(strings.Fields(strings.ReplaceAll(text, "\n.\n", "\n")), " ")
		}
	}
	named := map[string]bool{}
	used := map[string]bool{}
	if all[0]["Format"] != "https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/" || all[1]["Files"] != "*" {
		t.Errorf("it begins with %v, %v", all[0], all[1]["Files"])
	}
	for _, p := range all[1:] {
		if p["Files"] == "" {
			continue
		}
		if p["Copyright"] == "" || len(texts[p["License"]]) < 500 {
			t.Errorf("%s: rights %q, licence %q with a text of %d bytes", p["Files"], p["Copyright"], p["License"], len(texts[p["License"]]))
		}
		used[p["License"]] = true
		name := strings.TrimSuffix(p["Files"], "/*")
		if name == "*" {
			continue
		}
		named[name] = true
		if linked[name] == nil {
			t.Errorf("%s is named and is linked into no program", name)
		} else if want := "Linked into " + strings.Join(linked[name], ", ") + "."; !strings.Contains(p["Comment"], want) {
			t.Errorf("%s: %q lacks %q", name, p["Comment"], want)
		}
	}
	if len(linked) < 10 || len(linked["golang.org/x/sys@"+version(t, "golang.org/x/sys")]) < 7 {
		t.Errorf("linked is only %v", linked)
	}
	for _, name := range slices.Sorted(maps.Keys(linked)) {
		if !named[name] {
			t.Errorf("%s is linked into %v and is not named", name, linked[name])
		}
	}
	for name := range texts {
		if !used[name] {
			t.Errorf("there is a text of licence %s, under which nothing is", name)
		}
	}

	// The texts themselves, as they are in the sources.
	whole := strings.Join(strings.Fields(strings.ReplaceAll(read(t, root+"/usr/share/doc/p9auth/copyright"), "\n .\n", "\n")), " ")
	goroot := strings.TrimSpace(run(t, "go", "env", "GOROOT"))
	sources := []string{"../../LICENSE", goroot + "/LICENSE", goroot + "/PATENTS", "../../build/made-by-make/crypto/LICENSE"}
	for name := range linked {
		if dir, err := filepath.Glob(filepath.Join(strings.TrimSpace(run(t, "go", "env", "GOMODCACHE")), name, "[LNP][IOAi][CT]*")); err == nil {
			sources = append(sources, dir...)
		}
	}
	if len(sources) < len(linked)+4 {
		t.Errorf("only these texts are looked for: %v", sources)
	}
	for _, s := range sources {
		if !strings.Contains(whole, strings.Join(strings.Fields(read(t, s)), " ")) {
			t.Errorf("the text of %s is not there", s)
		}
	}
	// Go's memmove for amd64 is Inferno's, with a licence of its own; that for arm64 is not.
	if got := strings.Contains(whole, "Revisions Copyright © 2000-2007 Vita Nuova Holdings Limited"); got != (machine == "amd64") {
		t.Errorf("what single files of Go's library for %s have beyond its licence is there: %t", machine, got)
	}
}

// version returns the version of a module that go.mod has.
func version(t *testing.T, module string) string {
	return strings.TrimSpace(run(t, "go", "list", "-m", "-f", "{{.Version}}", module))
}

// testVersions tests that a package says one version everywhere.
func testVersions(t *testing.T, root, want string) {
	f, err := os.Open(root + "/usr/share/doc/p9auth/changelog.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	log, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	debian := paragraphs(t, read(t, root+"/DEBIAN/control"))[0]["Version"]
	if first := "p9auth (" + debian + ") "; !strings.HasPrefix(string(log), first) {
		t.Errorf("the package is %s, its changelog begins with %.40q", debian, log)
	}
	if strings.ReplaceAll(want, "-", "~") != debian {
		t.Errorf("the package of %s is %s", want, debian)
	}
	for _, p := range append(programs(t, root), root+"/usr/sbin/p9auth-switch") {
		if filepath.Base(p) == "redeem" { // su's own, with su's version
			continue
		}
		if got, want := lines(run(t, p, "-V"))[0], filepath.Base(p)+" from p9auth "+want; got != want {
			t.Errorf("%s -V prints %q, not %q", p, got, want)
		}
	}
}

// programs are those of a package that are not scripts.
func programs(t *testing.T, root string) (list []string) {
	t.Helper()
	files, err := filepath.Glob(root + "/usr/lib/p9auth/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil && st.Mode().IsRegular() && strings.HasPrefix(read(t, f), "\x7fELF") {
			list = append(list, f)
		}
	}
	if len(list) < 9 {
		t.Errorf("the programs are only %v", list)
	}
	return list
}

// TestTheNewestHeadingOfTheChangesIsTheVersion that is built next.
func TestTheNewestHeadingOfTheChangesIsTheVersion(t *testing.T) {
	number := strings.TrimSpace(read(t, "../../VERSION"))
	want := "## " + number
	if release, ok := strings.CutSuffix(number, "-dev"); ok {
		want = "## " + release + ", not released"
	}
	for _, l := range lines(read(t, "../../CHANGELOG.md")) {
		if strings.HasPrefix(l, "## ") {
			if !strings.HasPrefix(l, want) {
				t.Errorf("VERSION is %s, the newest heading of CHANGELOG.md %q", number, l)
			}
			return
		}
	}
	t.Error("no heading")
}
