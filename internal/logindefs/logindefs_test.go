package logindefs

import (
	"strings"
	"testing"
)

func TestSettings(t *testing.T) {
	d, err := parse(strings.NewReader("# c\n\nLOGIN_TIMEOUT\t\t60\nTTYPERM 0600\nENV_PATH\tPATH=/bin:/usr/bin\nDEFAULT_HOME yes\n MOTD \"a b\"\nALONE\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d.Int("LOGIN_TIMEOUT", 1) != 60 || d.Int("TTYPERM", 1) != 0o600 || d.Int("NONE", 7) != 7 ||
		d.String("ENV_PATH", "") != "PATH=/bin:/usr/bin" || d.String("MOTD", "") != "a b" || d.String("ALONE", "x") != "x" ||
		!d.Bool("DEFAULT_HOME", false) || d.Bool("NONE", false) {
		t.Errorf("%v", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("A b\n#c\n")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parse(strings.NewReader(s))
		if err == nil {
			d.Int("A", 0)
		}
	})
}
