// Package status is what an administrator sees of factotum: its events, each of
// which is a line in the log and a count; its status, as text for "factotum
// status"; and its metrics, in Prometheus' text exposition format.
//
// The status and the metrics are written to whoever connects to sockets that
// only root can open. Nothing but the lines of a request is read there, and
// nothing is done.
package status

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// An Event is something that is counted where it is logged.
type Event int

// The events of factotum.
const (
	Authenticated Event = iota
	Refused
	ConversationRefused
	Violation
	SignatureRefused
	CapabilityGiven
	CapabilityRedeemed
	CapabilityRefused
	CapabilitiesLost
	SessionOpened
	SessionClosed
	WorkerFailed
	WorkerLost
	Panicked
	nEvents
)

// events has, for each event, its metric, what the metric counts, the line of the
// log, unless that is in sshd's words, and its MESSAGE_ID in the journal.
var events = [nEvents]struct {
	metric, help string
	level        slog.Level
	line         string
	id           string
}{
	Authenticated:       {"p9auth_authentications_total", "Users that were authenticated.", slog.LevelInfo, "user authenticated", "8a47c980e2168644c64c8e6f3fe495b3"},
	Refused:             {"p9auth_refusals_total", "Proofs and accounts that were refused.", slog.LevelWarn, "login refused", "b90873f037a7199cb205f97f4aadec15"},
	ConversationRefused: {"p9auth_conversations_refused_total", "Conversations that were refused: no front end, or too many.", slog.LevelWarn, "conversation refused", "e748a3aaec5921a5050e7742cf5cf327"},
	Violation:           {"p9auth_protocol_violations_total", "Conversations in which a front end did what it must not.", slog.LevelWarn, "conversation ended: protocol violation", "cad32d552fd636d19d38aa01480051ae"},
	SignatureRefused:    {"p9auth_signatures_refused_total", "SSH signatures that were wrong.", slog.LevelWarn, "signature refused", "c7893c43fcff50e3db6ff908363e77d9"},
	CapabilityGiven:     {"p9auth_capabilities_given_total", "Capabilities that were made.", slog.LevelInfo, "capability given", "6ac250e2d894f771f7c929a1d51ee224"},
	CapabilityRedeemed:  {"p9auth_capabilities_redeemed_total", "Capabilities that were redeemed (FUSE only).", slog.LevelInfo, "capability redeemed", "5ac1bd465ab8eb755035e0534179b614"},
	CapabilityRefused:   {"p9auth_capabilities_refused_total", "Capabilities that were refused.", slog.LevelWarn, "capability refused", "4d7a23cf2dc6fae4190a29d3149e6749"},
	CapabilitiesLost:    {"p9auth_capability_files_lost_total", "Times that the capability files were unmounted or cut off (FUSE only).", slog.LevelError, "the capability files were lost, and are mounted again", "f790ebe4ecefed893a9ec4f505728918"},
	SessionOpened:       {"p9auth_sessions_opened_total", "PAM sessions that were opened.", slog.LevelInfo, "session opened", "36c4035d0042d0990459ac84f78ea736"},
	SessionClosed:       {"p9auth_sessions_closed_total", "PAM sessions that were closed.", slog.LevelInfo, "session closed", "32e2a71a1f09eb1a5e0e1be96cd528dc"},
	WorkerFailed:        {"p9auth_worker_failures_total", "PAM workers that failed.", slog.LevelError, "the PAM worker failed", "a49fb7dfb402f2baff07d4be58d44a86"},
	WorkerLost:          {"p9auth_workers_lost_total", "PAM workers that ended before their session.", slog.LevelError, "the session's PAM worker has ended before the session; another takes over", "dd40175a299da81c7ce11a4f7524721f"},
	Panicked:            {"p9auth_conversation_faults_total", "Conversations that a fault of factotum ended.", slog.LevelError, "conversation ended: a fault in factotum", "1c8e4c60bda54b6282a4e4dc661ba0c4"},
}

// Stats has a counter for each event. Its zero value is ready.
type Stats struct{ n [nEvents]atomic.Uint64 }

// Count counts an event.
func (s *Stats) Count(e Event) { s.n[e].Add(1) }

// Of returns how often an event has been.
func (s *Stats) Of(e Event) uint64 { return s.n[e].Load() }

// A Log is a logger that counts events where it logs them, whichever level is
// logged.
type Log struct {
	*slog.Logger
	stats *Stats
}

// NewLog makes a Log that counts in s.
func NewLog(l *slog.Logger, s *Stats) Log { return Log{l, s} }

// With returns a Log whose lines have the given attributes too.
func (l Log) With(args ...any) Log { return Log{l.Logger.With(args...), l.stats} }

// Event counts an event and logs its line.
func (l Log) Event(e Event, args ...any) {
	l.Log(l.Counted(e), events[e].level, events[e].line, args...)
}

type eventKey struct{}

// Counted counts an event, and returns the context to log it with in other words, which
// are sshd's.
func (l Log) Counted(e Event) context.Context {
	l.stats.Count(e)
	return context.WithValue(context.Background(), eventKey{}, e)
}

// EventOf is the event that a line with that context is of.
func EventOf(ctx context.Context) (e Event, ok bool) {
	e, ok = ctx.Value(eventKey{}).(Event)
	return e, ok
}

// MessageID is the MESSAGE_ID of the event's entries in the journal: see
// systemd.journal-fields(7) and sd-id128(3).
func (e Event) MessageID() string { return events[e].id }

// Muted returns a Log that counts and logs nothing.
func (l Log) Muted() Log { return Log{slog.New(slog.DiscardHandler), l.stats} }

// Unlogged counts an event of which the log is to have no line, as there are too
// many.
func (l Log) Unlogged(e Event) { l.stats.Count(e) }
