package config

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"p9auth/internal/sshdconf"
	"p9auth/test/manual"
)

// defaultOf is a keyword's default, as factotum.conf(5) says it.
func defaultOf(t *testing.T, keyword string) string {
	t.Helper()
	c := reflect.ValueOf(Default())
	f := c.FieldByNameFunc(func(s string) bool { return strings.EqualFold(s, keyword) || strings.EqualFold(s, keyword+"s") })
	if !f.IsValid() {
		t.Fatalf("no field of config has the value of %s", keyword)
	}
	switch v := f.Interface().(type) {
	case string:
		if v == "" && keyword == "MetricsSocket" {
			return "none"
		}
		if v == "" {
			return "what libpam"
		}
		// Programs are beside factotum, which is the test here.
		if exe, _ := os.Executable(); filepath.Dir(v) == filepath.Dir(exe) {
			return filepath.Base(v)
		}
		return v
	case time.Duration:
		return fmt.Sprint(v.Seconds())
	case slog.Level:
		return strings.ToLower(v.String())
	case bool:
		return map[bool]string{true: "yes", false: "no"}[v]
	default:
		if keyword == "MaxSessionsPerUser" && f.IsZero() {
			return "none"
		}
		if f.Kind() == reflect.Map || f.Kind() == reflect.Slice {
			return "none"
		}
		return fmt.Sprint(v)
	}
}

func TestTheManualHasEachKeywordWithItsDefaultAndRange(t *testing.T) {
	sshdConfig := sshdconf.DefaultFile + " ; where the machine has no such file, " + sshdconf.SSHDFile
	items, want := map[string]string{}, map[string][]string{}
	for word, text := range manual.Items(manual.Section(t, "factotum.conf.5", "KEYWORDS"), "Cm") {
		key := strings.ToLower(word)
		items[key] = text
		if keywords[key] != nil {
			want[key] = []string{"Default: " + defaultOf(t, word)}
			if word == "SSHDConfig" { // the first of two that is there
				want[key] = []string{"Default: " + sshdConfig}
			}
		}
	}
	for key, set := range keywords {
		phrases := want[key]
		// What is out of range is told the range.
		var c Config
		if err := set(&c, "0"); err != nil {
			phrases = append(phrases, regexp.MustCompile(`from \d+ to \d+`).FindAllString(err.Error(), 1)...)
		}
		want[key] = phrases
	}
	manual.WantItems(t, "factotum.conf(5)", items, want)
}

// TestTheManualHasTheMessagesOfABadConfiguration gives factotum each of the
// lines that factotum.conf(5) shows messages for.
func TestTheManualHasTheMessagesOfABadConfiguration(t *testing.T) {
	const top = "# one\nFrontEnd _login login\n"
	shown := strings.ReplaceAll(manual.Section(t, "factotum.conf.5", "DIAGNOSTICS"), `\(dq`, `"`)
	for _, text := range []string{
		top + "LogLevle debug",
		"Socket /s\n" + top + "Socket /t",
		top + "Socket rpc",
		top + "MaxSessions 0",
		top + "LoginGraceTime 2m",
		top + "LogLevel verbose",
		top + "FrontEnd _sshfront",
		top + "FrontEnd _login other",
		"# nothing",
	} {
		_, err := Parse(DefaultFile, strings.NewReader(text))
		if err == nil {
			t.Errorf("%q is accepted", text)
			continue
		}
		want := strings.Replace(err.Error(), ":4:", ":3:", 1)
		if !strings.Contains(shown, `.It "`+want+"\"\n") {
			t.Errorf("factotum.conf(5) does not show %s", want)
		}
	}
}

// TestTheExamplesInTheManualAreConfigurations reads the displays of
// factotum.conf(5).
func TestTheExamplesInTheManualAreConfigurations(t *testing.T) {
	displays := regexp.MustCompile(`(?s)\n\.Bd [^\n]*\n(.*?)\.Ed\n`).FindAllStringSubmatch(manual.Section(t, "factotum.conf.5", "EXAMPLES"), -1)
	if len(displays) != 2 {
		t.Errorf("%d examples", len(displays))
	}
	for _, d := range displays {
		if _, err := Parse("example", strings.NewReader(d[1])); err != nil {
			t.Errorf("%v in\n%s", err, d[1])
		}
	}
}

// TestTheManualSaysWhatNeedsARestart as the message does.
func TestTheManualSaysWhatNeedsARestart(t *testing.T) {
	words := manual.Words(manual.Section(t, "factotum.conf.5", "KEYWORDS"))
	_, page, _ := strings.Cut(words, "A change of ")
	page, _, _ = strings.Cut(page, " takes effect when factotum is restarted.")
	if got := strings.ReplaceAll(page, " ,", ","); !strings.Contains(NeedRestart, "a change of "+got+" needs a restart") {
		t.Errorf("factotum.conf(5) has %q, the message is %q", got, NeedRestart)
	}
}
