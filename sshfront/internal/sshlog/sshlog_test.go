package sshlog

import (
	"bytes"
	"log/slog"
	"regexp"
	"testing"

	"p9auth/internal/sshdconf"
)

func TestLogLinesAreSshdsAndOneLineEach(t *testing.T) {
	defer slog.SetDefault(slog.Default())
	var b bytes.Buffer
	for _, c := range []struct {
		journal  bool
		level    sshdconf.LogLevel
		patterns []string
		want     string
	}{
		{true, sshdconf.LogVerbose, nil, "<3>error: a\\nb\n<6>Failed password for x\\0 from 192.0.2.1 port 3 ssh2\n<6>quieter\n<6>attrs n=1\n"},
		{false, sshdconf.LogDebug1, nil, "@ error: a\\nb\n@ Failed password for x\\0 from 192.0.2.1 port 3 ssh2\n@ quieter\n@ debug1: d\n@ attrs n=1\n"},
		{true, sshdconf.LogQuiet, nil, ""},
		{true, sshdconf.LogError, []string{"nothing.go:*", "sshlog_test.go:TestLog*"}, "<3>error: a\\nb\n<6>Failed password for x\\0 from 192.0.2.1 port 3 ssh2\n<6>quieter\n<7>debug1: d\n<6>attrs n=1\n"},
	} {
		b.Reset()
		slog.SetDefault(slog.New(&handler{w: &b, level: levels[c.level], patterns: c.patterns, journal: c.journal}))
		Printf(sshdconf.LogError, "a\nb")
		Printf(sshdconf.LogInfo, "Failed password for %s from %s port %d ssh2", "x\x00", "192.0.2.1", 3)
		Printf(sshdconf.LogVerbose, "quieter")
		Printf(sshdconf.LogDebug1, "d")
		slog.Info("attrs", "n", 1)
		got := regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT[0-9:.]+\S+ sshfront\[\d+\]:`).ReplaceAllString(b.String(), "@")
		if got != c.want {
			t.Errorf("%+v: got\n%s", c, got)
		}
	}
}
