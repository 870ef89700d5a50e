package log

import (
	"bytes"
	"log/slog"
	"os"
	"regexp"
	"testing"
)

func TestLinesAreThoseOfSlog(t *testing.T) {
	defer func() { output = os.Stderr }()
	var ours, theirs bytes.Buffer
	output = &ours
	l := slog.New(slog.NewTextHandler(&theirs, nil)).With("pid", os.Getpid())
	for _, v := range []any{"", "word", "two words", "a=b", `"`, "line\nline", "\x1b[31m", "\xff", "ä", "\u00a0", 7, -1, true, []string{"a", "b"}} {
		Warn("a message", "key", v, "error", "e")
		l.Warn("a message", "key", v, "error", "e")
		Error("word")
		l.Error("word")
	}
	stamp := regexp.MustCompile(`(?m)^time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d) `)
	a, b := stamp.ReplaceAllString(ours.String(), ""), stamp.ReplaceAllString(theirs.String(), "")
	if a != b || len(stamp.FindAllString(ours.String(), -1)) != 28 {
		t.Errorf("%s\nslog has\n%s", a, b)
	}
}
