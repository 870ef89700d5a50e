package sshdconf

import (
	"regexp"
	"strings"
	"testing"

	"p9auth/test/manual"
)

// TestTheManualNamesEveryKeyword in the section of its status, and says which
// are global.
func TestTheManualNamesEveryKeyword(t *testing.T) {
	sections := map[Status]string{Implemented: "KEYWORDS", Accepted: "ACCEPTED KEYWORDS", Refused: "REFUSED KEYWORDS"}
	want := map[Status]map[string][]string{Implemented: {}, Accepted: {}, Refused: {}}
	global := map[string]bool{}
	for _, k := range table() {
		want[k.status][k.name] = nil
		global[k.name] = k.global
	}
	for status, heading := range sections {
		section := manual.Section(t, "p9auth_sshd_config.5", heading)
		items := manual.Items(section, "Cm")
		if status == Accepted {
			// Those with any value are in the text below the list.
			for _, m := range regexp.MustCompile(`(?m)^\.Cm ([A-Z]\w+) [,.]$`).FindAllStringSubmatch(section, -1) {
				items[m[1]] = m[0]
			}
		}
		manual.WantItems(t, "p9auth_sshd_config(5), "+heading, items, want[status])
		if status != Implemented {
			continue
		}
		for name, text := range items {
			if global[name] != strings.Contains(text, "(global)") {
				t.Errorf("p9auth_sshd_config(5), %s: global is %v, not so the manual", name, global[name])
			}
		}
		for old := range aliases {
			if !strings.Contains(strings.ToLower(section), "cm "+old) {
				t.Errorf("p9auth_sshd_config(5) does not name %s", old)
			}
		}
	}
}
