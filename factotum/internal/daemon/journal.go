package daemon

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"p9auth/factotum/internal/status"
	"p9auth/internal/journal"
	"p9auth/internal/sshdconf"
)

// A journalHandler writes factotum's log to the journal as entries with fields. The text
// is the same as on standard error.
type journalHandler struct {
	out   *journalOut
	level slog.Leveler
	text  slog.Handler // writes to out.text, with attrs
	attrs []slog.Attr
}

// A journalOut is where all handlers of one log write.
type journalOut struct {
	conn  *journal.Conn
	mu    sync.Mutex
	text  bytes.Buffer
	other io.Writer // where the text goes if the journal takes no entry
}

// openJournal makes a handler if the log is the journal's: w is standard error, and
// journald listens. Otherwise it returns nil.
func openJournal(w io.Writer, level slog.Leveler) slog.Handler {
	if w != os.Stderr {
		return nil
	}
	c, err := journal.Open(journal.Socket)
	if err != nil {
		return nil
	}
	return newJournalHandler(c, w, level)
}

func newJournalHandler(c *journal.Conn, w io.Writer, level slog.Leveler) *journalHandler {
	out := &journalOut{conn: c, other: w}
	return &journalHandler{out: out, level: level, text: slog.NewTextHandler(&out.text, withoutTime(slog.LevelDebug-4))}
}

// fields are the names in the journal of attributes that have one.
var fields = map[string]string{
	"user": "USER", "rhost": "RHOST", "tty": "TTY", "service": "SERVICE",
	"conversation": "P9AUTH_CONVERSATION", "uid": "P9AUTH_UID", "pid": "P9AUTH_PID",
	"to": "P9AUTH_TO", "reason": "P9AUTH_REASON", "code": "P9AUTH_CODE", "error": "P9AUTH_ERROR",
}

// ofSession are the events whose pid is that of the process that a session is for.
var ofSession = map[status.Event]bool{
	status.SessionOpened: true, status.SessionClosed: true, status.CapabilityGiven: true, status.CapabilityRedeemed: true,
}

// inSSHD is in the context of a line in sshd's words.
type inSSHD struct {
	facility sshdconf.Facility
	pid      int         // of the process that speaks to the client
	attrs    []slog.Attr // for fields alone
}

type inSSHDKey struct{}

func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	attrs := h.attrs
	r.Attrs(func(a slog.Attr) bool { attrs = append(attrs[:len(attrs):len(attrs)], a); return true })
	entry := []journal.Field{{Name: "PRIORITY", Value: priority(r.Level)}}
	add := func(name, value string) { entry = append(entry, journal.Field{Name: name, Value: value}) }
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.text.Reset()
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	_, text, _ := strings.Cut(strings.TrimSuffix(h.out.text.String(), "\n"), " ") // without the level
	if s, ok := ctx.Value(inSSHDKey{}).(*inSSHD); ok {
		text = r.Message
		add("SYSLOG_IDENTIFIER", "sshd")
		add("SYSLOG_FACILITY", strconv.Itoa(int(s.facility)))
		add("SYSLOG_PID", strconv.Itoa(s.pid))
		attrs = append(attrs[:len(attrs):len(attrs)], s.attrs...)
	} else {
		add("SYSLOG_IDENTIFIER", "factotum")
	}
	add("MESSAGE", text)
	e, isEvent := status.EventOf(ctx)
	if isEvent {
		add("MESSAGE_ID", e.MessageID())
	}
	seen := map[string]bool{}
	for i := len(attrs) - 1; i >= 0; i-- { // the last one counts
		name, value := fields[attrs[i].Key], attrs[i].Value.Resolve().String()
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		add(name, value)
		if attrs[i].Key == "pid" && isEvent && ofSession[e] {
			add("SESSION", value)
		}
	}
	if h.out.conn.Send(entry) == nil {
		return nil
	}
	_, err := io.WriteString(h.out.other, "<"+priority(r.Level)+">"+text+"\n")
	return err
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.out, h.level, h.text.WithAttrs(attrs), append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

// WithGroup is not used: a group has no place among fields.
func (h *journalHandler) WithGroup(string) slog.Handler { return h }

// priority is syslog's for a level.
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "3"
	case l >= slog.LevelWarn:
		return "4"
	case l >= slog.LevelInfo:
		return "6"
	}
	return "7"
}

// reachesJournal says whether what is written to the syslog socket at path comes to the
// journal that log writes to with fields: one of the two is enough then.
func reachesJournal(path string, log *slog.Logger) bool {
	h, ok := log.Handler().(*journalHandler)
	if !ok || h.out.conn == nil {
		return false
	}
	to, err := filepath.EvalSymlinks(path)
	return err == nil && to == journal.DevLog
}
