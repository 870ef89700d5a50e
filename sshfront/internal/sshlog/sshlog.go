// Package sshlog writes the log of sshfront's processes: sshd's words in sshd's
// form, one message a line, since programs like fail2ban read it. There is
// no level= and no msg=.
//
// Only the listener writes to the standard error that it has inherited (Setup). The
// processes that it starts have a pipe to it in that place (SetupChild), in which a
// line is its priority and its message, and the listener writes it for them (Relay). The
// package opens nothing, so it works inside the connection process's sandbox.
package sshlog

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"p9auth/internal/match"
	"p9auth/internal/sshdconf"
	"p9auth/internal/words"
)

// levels has slog's level for each of sshd's.
var levels = map[sshdconf.LogLevel]slog.Level{
	sshdconf.LogQuiet: 100, sshdconf.LogFatal: slog.LevelError + 4, sshdconf.LogError: slog.LevelError,
	sshdconf.LogInfo: slog.LevelInfo, sshdconf.LogVerbose: slog.LevelInfo - 2,
	sshdconf.LogDebug1: slog.LevelDebug, sshdconf.LogDebug2: slog.LevelDebug - 1, sshdconf.LogDebug3: slog.LevelDebug - 2,
}

// Setup makes slog's default logger write to standard error what level
// lets through, and what patterns (LogVerbose) name in any case.
func Setup(level sshdconf.LogLevel, patterns []string) {
	setup(level, patterns, os.Getenv("JOURNAL_STREAM") != "")
}

// SetupChild does that in a process that the listener has started.
func SetupChild(level sshdconf.LogLevel, patterns []string) { setup(level, patterns, true) }

func setup(level sshdconf.LogLevel, patterns []string, journal bool) {
	// Ignore SIGPIPE: losing the log's reader must not kill this process.
	signal.Notify(brokenPipe, syscall.SIGPIPE)
	slog.SetDefault(slog.New(&handler{w: os.Stderr, level: levels[level], patterns: patterns, journal: journal}))
}

// Relay writes a line for the process pid, which has decided that it is to be logged.
// The priority is syslog's; the line is printable ASCII.
func Relay(pid, priority int, line string) {
	if h, ok := slog.Default().Handler().(*handler); ok {
		h.write(time.Now(), pid, priority, line)
	}
}

// brokenPipe drops signals. They are not ignored, as that would be inherited.
var brokenPipe = make(chan os.Signal, 1)

// Printf logs a message at one of sshd's levels.
func Printf(level sshdconf.LogLevel, format string, args ...any) {
	ctx, lv := context.Background(), levels[level]
	h := slog.Default().Handler()
	if !h.Enabled(ctx, lv) {
		return
	}
	var pc [1]uintptr
	runtime.Callers(2, pc[:])
	h.Handle(ctx, slog.NewRecord(time.Now(), lv, fmt.Sprintf(format, args...), pc[0]))
}

// A handler writes each record as a line: its time and process, or where it
// goes to the journal its priority, see sd-daemon(3); then the message and the
// attributes.
type handler struct {
	mu       sync.Mutex
	w        io.Writer
	level    slog.Level
	patterns []string // of LogVerbose: file:function:line
	journal  bool
	attrs    string
}

// maxLine bounds a message in bytes; sshd has 1024.
const maxLine = 2048

func (h *handler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= h.level || len(h.patterns) > 0
}

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	if r.Level < h.level && !h.forced(r.PC) {
		return nil
	}
	priority, word := 7, "debug1: "
	switch {
	case r.Level > slog.LevelError:
		priority, word = 2, "fatal: "
	case r.Level == slog.LevelError:
		priority, word = 3, "error: "
	case r.Level >= slog.LevelWarn:
		priority, word = 4, ""
	case r.Level > slog.LevelDebug:
		priority, word = 6, ""
	case r.Level < slog.LevelDebug:
		word = fmt.Sprintf("debug%d: ", 1+slog.LevelDebug-r.Level)
	}
	msg := r.Message + h.attrs
	r.Attrs(func(a slog.Attr) bool {
		msg += " " + a.String()
		return true
	})
	return h.write(r.Time, os.Getpid(), priority, word+words.Vis(words.Clip(msg, maxLine)))
}

// write writes a line of a process.
func (h *handler) write(t time.Time, pid, priority int, line string) error {
	if h.journal {
		line = fmt.Sprintf("<%d>%s\n", priority, line)
	} else {
		line = fmt.Sprintf("%s sshfront[%d]: %s\n", t.Format("2006-01-02T15:04:05.000Z07:00"), pid, line)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, line)
	return err
}

// forced says whether LogVerbose names the line of the source.
func (h *handler) forced(pc uintptr) bool {
	if pc == 0 || len(h.patterns) == 0 {
		return false
	}
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	function := f.Function[strings.LastIndexByte(f.Function, '.')+1:]
	return match.List(fmt.Sprintf("%s:%s():%d", filepath.Base(f.File), function, f.Line), strings.Join(h.patterns, ",")) == match.Matched
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	s := h.attrs
	for _, a := range attrs {
		s += " " + a.String()
	}
	return &handler{w: h.w, level: h.level, patterns: h.patterns, journal: h.journal, attrs: s}
}

func (h *handler) WithGroup(string) slog.Handler { return h }
