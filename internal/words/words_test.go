package words

import (
	"testing"
	"time"
)

func TestSecondsAreSpelledAsSSHDSpellsThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "00s", 59 * time.Second: "59s", 2 * time.Minute: "02m00s",
		90 * time.Minute: "01h30m00s", 8*24*time.Hour + time.Second: "01w01d01s",
	} {
		if got := Seconds(d); got != want {
			t.Errorf("Seconds(%v) = %q, sshd prints %q", d, got, want)
		}
	}
}

// What OpenSSH's log.c writes by strnvis with LOG_SYSLOG_VIS.
func TestVisIsSSHDs(t *testing.T) {
	for in, want := range map[string]string{
		"alice": "alice", "é": `\303\251`, "a\nb": `a\nb`, "\x1b[0m": `\033[0m`, "\x00": `\0`, "\x007": `\0007`, "\r\a\b\v\f": `\r\a\b\v\f`, "\x7f": `\177`,
		`a\b`: `a\\b`, "a\tb": `a\tb`, "日": `\346\227\245`, "": "",
	} {
		if got := Vis(in); got != want {
			t.Errorf("Vis(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestClip(t *testing.T) {
	if Clip("abc", 2) != "ab" || Clip("abc", 5) != "abc" {
		t.Error("Clip")
	}
}
