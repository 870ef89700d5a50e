package manual

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// literals are the strings in the sources of all that is installed, line by
// line, with %s in place of what is put in.
func literals(t *testing.T) []string {
	t.Helper()
	var all []string
	set := token.NewFileSet()
	goFile := func(name string) error {
		f, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if s, err := strconv.Unquote(l.Value); err == nil {
					all = append(all, strings.Split(s, "\n")...)
				}
			}
			return true
		})
		return nil
	}
	quoted, variable := regexp.MustCompile(`"((?:[^"\\\n]|\\.)*)"`), regexp.MustCompile(`\$\w+|\$\{\w+[^}]*\}`)
	other := func(name string) error {
		src, err := os.ReadFile(name)
		for _, m := range quoted.FindAllStringSubmatch(string(src), -1) {
			s := strings.TrimSuffix(strings.TrimSuffix(m[1], `\n`), `:`)
			all = append(all, variable.ReplaceAllString(s, "%s"))
		}
		return err
	}
	for _, dir := range []string{"capproto", "factotum", "login", "su", "doas", "passwd", "chkpwd", "sshfront", "internal", "kernel/p9auth", "dist"} {
		before := len(all)
		err := filepath.WalkDir(filepath.Join(Top(), dir), func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil || d.IsDir() || strings.HasSuffix(name, "_test.go"):
				return err
			case filepath.Ext(name) == ".go":
				return goFile(name)
			case filepath.Ext(name) == ".c", filepath.Base(name) == "p9auth-switch", filepath.Base(name) == "fleet":
				return other(name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == before {
			t.Errorf("%s has no strings", dir)
		}
	}
	return all
}

// where is the place in a file that a message is about.
var where = regexp.MustCompile(`^/\S+:\d+: `)

// messages are the headings under which pages list messages.
var messages = regexp.MustCompile(`^(DIAGNOSTICS|TROUBLESHOOTING BY MESSAGE)$`)

// TestTheMessagesInThePagesAreThoseOfThePrograms looks up each message of the
// pages in the sources: one string of a program must make up most of it.
func TestTheMessagesInThePagesAreThoseOfThePrograms(t *testing.T) {
	verb := regexp.MustCompile(`%[+#]?[0-9.]*[a-z]`)
	var strs []*regexp.Regexp
	for _, l := range literals(t) {
		// What says nothing but "%s: %s" would be found everywhere.
		if words := verb.ReplaceAllString(l, ""); len(l) < 10 || len(words) < 8 {
			continue
		}
		parts := verb.Split(strings.TrimSpace(l), -1)
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		strs = append(strs, regexp.MustCompile(strings.Join(parts, `.+`)))
	}
	known := func(m string) bool {
		return slices.ContainsFunc(strs, func(s *regexp.Regexp) bool { return 2*len(s.FindString(m)) >= len(m) })
	}
	n := map[string]int{}
	for _, page := range Pages(t) {
		for _, heading := range Headings(t, page) {
			if !messages.MatchString(heading) {
				continue
			}
			for line := range strings.Lines(Section(t, page, heading)) {
				m, ok := strings.CutPrefix(strings.TrimSpace(line), ".It ")
				if !ok {
					continue
				}
				m = strings.NewReplacer("Li ", "", `\(dq`, `"`, `\&`, "").Replace(strings.Trim(m, `"`))
				m = strings.TrimPrefix(m, "login: ")
				for _, m := range strings.Split(m, " , ") {
					n[page]++
					if strings.HasPrefix(m, "stat ") { // the kernel's
						continue
					}
					if !known(m) && !known(where.ReplaceAllString(m, "")) {
						t.Errorf("%s: no program says %q", page, m)
					}
				}
			}
		}
	}
	sum := 0
	for page, least := range map[string]int{"p9auth.7": 20, "p9login.1": 5, "factotum.8": 1, "factotum.conf.5": 5, "p9auth.4": 1} {
		sum += n[page]
		if n[page] < least {
			t.Errorf("%s has %d messages", page, n[page])
		}
	}
	if sum < 40 {
		t.Errorf("only %d messages: %v", sum, n)
	}
	t.Log("messages: ", n)
}
