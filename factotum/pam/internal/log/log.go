// Package log writes the worker's log lines to standard error, which is factotum's,
// in the form of factotum's own: that of log/slog's TextHandler. There is a worker for
// each session, and log/slog brings encoding/json into each.
package log

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// output is where lines go.
var output io.Writer = os.Stderr

// Info logs what is as it should be.
func Info(msg string, attrs ...any) { line("INFO", msg, attrs) }

// Warn logs what is wrong and does not end the session. attrs are names and values in
// turn.
func Warn(msg string, attrs ...any) { line("WARN", msg, attrs) }

// Error is Warn for what ends it, or this process.
func Error(msg string, attrs ...any) { line("ERROR", msg, attrs) }

// line writes one line, in one write: workers write to the same file.
func line(level, msg string, attrs []any) {
	var b strings.Builder
	fmt.Fprintf(&b, "time=%s level=%s msg=%s pid=%d", time.Now().Format("2006-01-02T15:04:05.000Z07:00"), level, quote(msg), os.Getpid())
	for i := 0; i+1 < len(attrs); i += 2 {
		fmt.Fprintf(&b, " %v=%s", attrs[i], quote(fmt.Sprint(attrs[i+1])))
	}
	b.WriteByte('\n')
	io.WriteString(output, b.String())
}

// quote quotes a value that would not be read as one word.
func quote(s string) string {
	special := func(r rune) bool {
		return r == '"' || r == '=' || r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}
	if s == "" || strings.ContainsFunc(s, special) {
		return strconv.Quote(s)
	}
	return s
}
