package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// examples takes the scripts out of p9auth(4), EXAMPLES, and what the page
// says that they print. A subsection is an example; its first word names it.
func (b *builder) examples(a *archive) error {
	page, err := os.ReadFile(filepath.Join(b.top, "man", "p9auth.4"))
	if err != nil {
		return err
	}
	_, section, _ := strings.Cut(string(page), "\n.Sh EXAMPLES\n")
	section, _, _ = strings.Cut(section, "\n.Sh ")
	found := regexp.MustCompile(`(?s)\.Ss ([^\n]*)\n.*?\.Bd -literal[^\n]*\n(.*?)\.Ed\n.*?It prints\n\.Dl ([^\n]*)\n`).FindAllStringSubmatch(section, -1)
	if len(found) < 2 {
		return fmt.Errorf("p9auth(4) has %d examples", len(found))
	}
	plain := strings.NewReplacer(`\e`, `\`, `\(aq`, "'", `\(dq`, `"`)
	for _, m := range found {
		name := "/examples/" + strings.ReplaceAll(m[1], " ", "-")
		a.file(name+".sh", 0o644, plain.Replace(m[2]))
		a.file(name+".out", 0o644, plain.Replace(m[3])+"\n")
	}
	return nil
}
