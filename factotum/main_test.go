package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestACommandLineThatIsNotUnderstoodStartsNothing and says what is wrong.
func TestACommandLineThatIsNotUnderstoodStartsNothing(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "factotum.conf")
	if err := os.WriteFile(conf, []byte("FrontEnd _login login\nStatusSocket "+conf+".gone\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"-x":                         "flag provided but not defined",
		"nonsense":                   `"nonsense" is not expected`,
		"status more":                `"status" is not expected`,
		"serve-caps":                 `"serve-caps" is not expected`,
		"serve-caps a b":             `"serve-caps" is not expected`,
		"-t status":                  `"status" is not expected`,
		"-c /tmp extra":              "-c goes with no other option",
		"-c /tmp -t":                 "-c goes with no other option",
		"-t -f " + conf + ".missing": "no such file",
		"-f " + conf + " status":     "factotum is not running",
		"-f " + conf + ".missing":    "no such file",
	} {
		err := run(strings.Fields(line))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("factotum %s: %v", line, err)
		}
	}
	if err := run([]string{"-h"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("factotum -h: %v", err)
	}
}
