package manual

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// literals are the string literals of the programs' sources that can be part
// of a message.
func literals(t *testing.T) []string {
	t.Helper()
	var all []string
	set := token.NewFileSet()
	for _, dir := range []string{"capproto", "factotum", "factotum/internal/config", "factotum/internal/daemon", "factotum/internal/status", "factotum/internal/sshauth", "factotum/pam", "login", "internal/become", "internal/capfs", "internal/capuse", "internal/privs"} {
		files, err := filepath.Glob(filepath.Join(Top(), dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f, err := parser.ParseFile(set, name, src, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					if s, err := strconv.Unquote(l.Value); err == nil {
						all = append(all, strings.Split(s, "\n")...)
					}
				}
				return true
			})
		}
	}
	return all
}

// TestTheMessagesInThePagesAreThoseOfThePrograms looks up each message of the
// pages in the sources: one string of a program must make up most of it.
func TestTheMessagesInThePagesAreThoseOfThePrograms(t *testing.T) {
	verb := regexp.MustCompile(`%[+#]?[0-9.]*[a-z]`)
	var known []*regexp.Regexp
	for _, l := range literals(t) {
		if len(l) < 10 {
			continue
		}
		parts := verb.Split(strings.TrimSpace(l), -1)
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		known = append(known, regexp.MustCompile(strings.Join(parts, `.+`)))
	}
	n := 0
	for page, section := range map[string]string{"p9auth.7": "TROUBLESHOOTING BY MESSAGE", "p9login.1": "DIAGNOSTICS", "factotum.8": "DIAGNOSTICS", "factotum.conf.5": "DIAGNOSTICS"} {
		for line := range strings.Lines(Section(t, page, section)) {
			m, ok := strings.CutPrefix(strings.TrimSpace(line), ".It ")
			if !ok {
				continue
			}
			m = strings.NewReplacer("Li ", "", `\(dq`, `"`, `\&`, "").Replace(strings.Trim(m, `"`))
			m = strings.TrimPrefix(m, "login: ")
			for _, m := range strings.Split(m, " , ") {
				n++
				best := 0
				for _, k := range known {
					best = max(best, len(k.FindString(m)))
				}
				if strings.HasPrefix(m, "stat ") { // the kernel's
					continue
				}
				if 2*best < len(m) {
					t.Errorf("%s: no program says %q", page, m)
				}
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d messages", n)
	}
}
