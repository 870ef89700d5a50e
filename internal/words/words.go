// Package words puts values into the words that people and programs read in our
// logs. The spelling is sshd's, since fail2ban and administrators match it.
package words

import (
	"fmt"
	"strings"
	"time"
)

// Seconds prints a duration as sshd's log does: in whole seconds, minutes and
// so on, the largest first, as in "01h30m00s" (fmt_timeframe in OpenSSH's
// misc.c).
func Seconds(d time.Duration) string {
	n := int(d / time.Second)
	var b strings.Builder
	for _, u := range []struct {
		n    int
		name string
	}{{604800, "w"}, {86400, "d"}, {3600, "h"}, {60, "m"}} {
		if n >= u.n {
			fmt.Fprintf(&b, "%02d%s", n/u.n, u.name)
			n %= u.n
		}
	}
	fmt.Fprintf(&b, "%02ds", n)
	return b.String()
}

// Vis makes text that strangers had a hand in safe for a log line: one line of
// printable ASCII, in which everything else is an octal escape, as vis(3) with
// VIS_SAFE and VIS_OCTAL writes it and sshd does. One user name has one
// spelling in all of our logs.
func Vis(s string) string {
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:i])
	for _, c := range []byte(s[i:]) {
		switch {
		case c == '\\':
			b.WriteString(`\\`)
		case plain(c):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	return b.String()
}

func plain(c byte) bool { return c == '\t' || c >= ' ' && c <= '~' && c != '\\' }

// Clip shortens text for an error message.
func Clip(s string, n int) string { return s[:min(len(s), n)] }
