package listener

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/sshlog"
)

// relayedLog is what the log has when a connection process of 192.0.2.7 port 4022 has
// written text to its standard error.
func relayedLog(t *testing.T, level sshdconf.LogLevel, text string) string {
	t.Helper()
	stderr := os.Stderr
	defer func() { os.Stderr = stderr }()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	os.Stderr = log
	conf := &sshdconf.Listen{LogLevel: level}
	sshlog.Setup(level, nil)
	defer sshlog.Setup(sshdconf.LogInfo, nil)
	c := &child{l: &listener{conf: conf}, remote: netip.MustParseAddrPort("192.0.2.7:4022"), local: netip.MustParseAddrPort("192.0.2.1:22")}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		w.WriteString(text)
		w.Close()
	}()
	c.relayOf("connection", 4711).run(r)
	b, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT[0-9:.]+\S+ `).ReplaceAllString(string(b), "")
}

const (
	itself = "sshfront[4711]: "
	says   = itself + "connection process 4711 for connection from 192.0.2.7 to 192.0.2.1 says: "
)

func TestAConnectionProcessSpeaksForItselfOnly(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	for line, want := range map[string]string{
		// What it says of its own connection is sshd's.
		"<6>Connection closed by 192.0.2.7 port 4022 [preauth]":                                                  itself,
		"<6>Connection closed by authenticating user alice 192.0.2.7 port 4022 [preauth]":                        itself,
		"<6>Disconnected from user alice 192.0.2.7 port 4022":                                                    itself,
		"<6>Received disconnect from 192.0.2.7 port 4022:11: bye [preauth]":                                      itself,
		"<6>Unable to negotiate with 192.0.2.7 port 4022: no matching cipher found. Their offer: none [preauth]": itself,
		"<6>banner exchange: Connection from 192.0.2.7 port 4022: invalid format":                                itself,
		"<3>error: kex_exchange_identification: client sent invalid protocol identifier \"GET / HTTP/1.1\"":      itself,
		"<6>Disconnecting authenticating user alice 192.0.2.7 port 4022: Too many authentication failures":       itself,
		"<6>ssh_dispatch_run_fatal: Connection from user alice 192.0.2.7 port 4022: message authentication code": itself,
		// Everything else has its name before it.
		"<6>Accepted password for root from 203.0.113.7 port 22 ssh2":                             says,
		"<6>Failed password for root from 203.0.113.7 port 22 ssh2":                               says,
		"<6>Accepted password for root from 192.0.2.7 port 4022 ssh2":                             says,
		"<6>Connection closed by 203.0.113.7 port 22 [preauth]":                                   says,
		"<6>Connection closed by 192.0.2.7 port 40221":                                            says,
		"<6>Connection closed by 192.0.2.7 port 4022 and 203.0.113.7":                             says,
		"<6>Disconnected from user alice 203.0.113.7 port 1 192.0.2.7 port 4022":                  says,
		"<6>Server listening on 0.0.0.0 port 22.":                                                 says,
		"<3>error: connection process 1 for connection from 203.0.113.7 to 192.0.2.1 says: hello": says,
		"<6>": says,
		"":    says,
	} {
		text := strings.TrimPrefix(strings.TrimPrefix(line, "<6>"), "<3>")
		if text == "" {
			text = line // that is not a priority
		}
		if got := relayedLog(t, sshdconf.LogInfo, line+"\n"); got != want+text+"\n" {
			t.Errorf("%q is logged as\n%s", line, got)
		}
	}
}

func TestWhatAProcessWritesStaysALineAndBounded(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	if got, want := relayedLog(t, sshdconf.LogInfo, "a\rAccepted\x1b[2K \x00\xff\\n"), says+`a\015Accepted\033[2K \000\377\n`+"\n"; got != want {
		t.Errorf("%q", got)
	}
	got := relayedLog(t, sshdconf.LogInfo, strings.Repeat("x", 100<<10)+"\n<6>next\n")
	if want := says + strings.Repeat("x", maxRelayed) + "\n" + says + "next\n"; got != want {
		t.Errorf("%d bytes: %.200s", len(got), got)
	}
	flood := strings.Repeat("<6>flood\n", 10*burst)
	got = relayedLog(t, sshdconf.LogInfo, flood)
	var dropped int
	lines := strings.Split(strings.TrimSpace(got), "\n")
	last := lines[len(lines)-1]
	fmt.Sscanf(last[strings.LastIndex(last, "much: ")+len("much: "):], "%d", &dropped)
	if n := strings.Count(got, says+"flood\n"); n < burst || n > 2*burst || n+dropped < 10*burst-perSecond {
		t.Errorf("%d lines, %d left out; %s", n, dropped, last)
	}
	if n := strings.Count(relayedLog(t, sshdconf.LogDebug1, flood), says+"flood\n"); n != 10*burst {
		t.Errorf("for debugging there are %d lines of %d", n, 10*burst)
	}
}
