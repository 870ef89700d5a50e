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

// Error is what strerror(3) says of an error of the kernel's: Go's texts are glibc's but
// for the first letter.
func Error(err error) string {
	text := err.Error()
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// Vis makes text that strangers had a hand in safe for a log line: one line of
// printable ASCII, with escapes as vis(3) writes them with VIS_CSTYLE, VIS_NL,
// VIS_TAB and VIS_OCTAL. These are sshd's flags for syslog (LOG_SYSLOG_VIS in
// OpenSSH's log.c), so one user name has one spelling in all logs.
func Vis(s string) string {
	i := 0
	for i < len(s) && visible(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:i])
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case visible(c):
			b.WriteByte(c)
		case c == 0 && (i+1 == len(s) || s[i+1] < '0' || s[i+1] > '7'):
			b.WriteString(`\0`)
		case c != 0 && strings.IndexByte(cstyle, c) >= 0:
			b.WriteByte('\\')
			b.WriteByte("\\abtnvfr"[strings.IndexByte(cstyle, c)])
		default:
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	return b.String()
}

// cstyle are the bytes that have an escape of C's.
const cstyle = "\\\a\b\t\n\v\f\r"

func visible(c byte) bool { return c >= ' ' && c <= '~' && c != '\\' }

// Clip shortens text for an error message.
func Clip(s string, n int) string { return s[:min(len(s), n)] }
