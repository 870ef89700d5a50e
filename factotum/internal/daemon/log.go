package daemon

import (
	"bytes"
	"io"
	"log/slog"
	"os"
)

// newLogger logs to w. Where that is the journal, it writes entries with fields; if
// journald does not listen for them, a line begins with its priority, see sd-daemon(3).
// Neither has a time of its own.
func newLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	if os.Getenv("JOURNAL_STREAM") == "" {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
	}
	if h := openJournal(w, level); h != nil {
		return slog.New(h)
	}
	return slog.New(slog.NewTextHandler(journalLines{w}, withoutTime(level)))
}

func withoutTime(level slog.Leveler) *slog.HandlerOptions {
	return &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
}

// A journalLines writes lines of a slog.TextHandler, which come one a Write and
// begin with their level.
type journalLines struct{ w io.Writer }

var priorities = []struct{ level, priority string }{
	{"level=DEBUG ", "<7>"}, {"level=INFO ", "<6>"}, {"level=WARN ", "<4>"}, {"level=ERROR ", "<3>"},
}

func (j journalLines) Write(line []byte) (int, error) {
	for _, p := range priorities {
		if rest, ok := bytes.CutPrefix(line, []byte(p.level)); ok {
			if _, err := j.w.Write(append([]byte(p.priority), rest...)); err != nil {
				return 0, err
			}
			return len(line), nil
		}
	}
	return j.w.Write(line)
}
