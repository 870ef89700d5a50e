package daemon

import (
	"bytes"
	"io"
	"log/slog"
	"os"
)

// newLogger logs to w. Where that is the journal, a line begins with its
// priority, see sd-daemon(3), and has no time of its own.
func newLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	opt := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") == "" {
		return slog.New(slog.NewTextHandler(w, opt))
	}
	opt.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	return slog.New(slog.NewTextHandler(journal{w}, opt))
}

// A journal writes lines of a slog.TextHandler, which come one a Write and
// begin with their level.
type journal struct{ w io.Writer }

var priorities = []struct{ level, priority string }{
	{"level=DEBUG ", "<7>"}, {"level=INFO ", "<6>"}, {"level=WARN ", "<4>"}, {"level=ERROR ", "<3>"},
}

func (j journal) Write(line []byte) (int, error) {
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
