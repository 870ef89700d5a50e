package sftp

import (
	"fmt"
	"io"
	"log/syslog"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/internal/words"
)

// A level says how much is logged: LogLevel in sshd_config(5).
type level int

const (
	quiet level = iota
	fatal
	failed // ERROR
	info
	verbose
	debug1
	debug2
	debug3
)

var levels = map[string]level{
	"QUIET": quiet, "FATAL": fatal, "ERROR": failed, "INFO": info, "VERBOSE": verbose,
	"DEBUG": debug1, "DEBUG1": debug1, "DEBUG2": debug2, "DEBUG3": debug3,
}

var facilities = map[string]syslog.Priority{
	"DAEMON": syslog.LOG_DAEMON, "USER": syslog.LOG_USER, "AUTH": syslog.LOG_AUTH, "AUTHPRIV": syslog.LOG_AUTHPRIV,
	"LOCAL0": syslog.LOG_LOCAL0, "LOCAL1": syslog.LOG_LOCAL1, "LOCAL2": syslog.LOG_LOCAL2, "LOCAL3": syslog.LOG_LOCAL3,
	"LOCAL4": syslog.LOG_LOCAL4, "LOCAL5": syslog.LOG_LOCAL5, "LOCAL6": syslog.LOG_LOCAL6, "LOCAL7": syslog.LOG_LOCAL7,
}

// Lengths of lines, as in OpenSSH's log.c.
const (
	maxLine   = 1023
	maxSyslog = 500
)

// A logger writes lines as OpenSSH's log.c does.
type logger struct {
	level    level
	stderr   io.Writer // where lines go, or nil for syslog
	facility syslog.Priority
}

// newLogger makes a logger. Where syslog cannot be reached (from a chroot
// without /dev/log, say) nothing is logged, as by sshd.
func newLogger(o *Options, stderr io.Writer) logger {
	l := logger{level: o.level, facility: o.facility}
	if o.stderr {
		l.stderr = stderr
	}
	return l
}

// on says whether lines of a level are logged. Callers ask before they put a
// line together.
func (l *logger) on(at level) bool { return at <= l.level }

// printf logs a line if its level is on.
func (l *logger) printf(at level, format string, args ...any) {
	if !l.on(at) {
		return
	}
	text := fmt.Sprintf(format, args...)
	switch {
	case at >= debug1:
		text = fmt.Sprintf("debug%d: %s", at-debug1+1, text)
	case l.stderr != nil:
	case at == fatal:
		text = "fatal: " + text
	case at == failed:
		text = "error: " + text
	}
	text = words.Clip(text, maxLine)
	if l.stderr != nil {
		io.WriteString(l.stderr, words.Clip(visTerminal(text), maxLine-2)+"\r\n")
		return
	}
	severity := syslog.LOG_INFO
	switch {
	case at == fatal:
		severity = syslog.LOG_CRIT
	case at == failed:
		severity = syslog.LOG_ERR
	case at >= debug1:
		severity = syslog.LOG_DEBUG
	}
	toSyslog(l.facility|severity, words.Clip(words.Vis(text), maxSyslog))
}

// toSyslog sends a line to syslog, in the form of syslog(3). It opens and
// closes the socket, as sshd does: package log/syslog would hold descriptors
// that the client is promised for its files (limits).
func toSyslog(p syslog.Priority, text string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	line := fmt.Sprintf("<%d>%s internal-sftp[%d]: %s", p, time.Now().Format(time.Stamp), os.Getpid(), text)
	unix.Sendto(fd, []byte(line), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: devLog})
}

// devLog is syslog's socket; tests have their own.
var devLog = "/dev/log"

// visTerminal escapes text as vis(3) does with VIS_SAFE and VIS_OCTAL, which
// are log.c's flags for standard error.
func visTerminal(s string) string {
	const safe = " \t\n\b\a\r"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\\':
			b.WriteString(`\\`)
		case c > ' ' && c <= '~' || strings.IndexByte(safe, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	return b.String()
}
