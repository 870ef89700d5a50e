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

// events has, for each event, its metric, what the metric counts, and the line
// of the log, unless Line writes another.
var events = [nEvents]struct {
	metric, help string
	level        slog.Level
	line         string
}{
	Authenticated:       {"p9auth_authentications_total", "Users that were authenticated.", slog.LevelInfo, "user authenticated"},
	Refused:             {"p9auth_refusals_total", "Proofs and accounts that were refused.", slog.LevelWarn, "login refused"},
	ConversationRefused: {"p9auth_conversations_refused_total", "Conversations that were refused: no front end, or too many.", slog.LevelWarn, "conversation refused"},
	Violation:           {"p9auth_protocol_violations_total", "Conversations in which a front end did what it must not.", slog.LevelWarn, "conversation ended: protocol violation"},
	SignatureRefused:    {"p9auth_signatures_refused_total", "SSH signatures that were wrong.", slog.LevelWarn, "signature refused"},
	CapabilityGiven:     {"p9auth_capabilities_given_total", "Capabilities that were made.", slog.LevelInfo, "capability given"},
	CapabilityRedeemed:  {"p9auth_capabilities_redeemed_total", "Capabilities that were redeemed (FUSE only).", slog.LevelInfo, "capability redeemed"},
	CapabilityRefused:   {"p9auth_capabilities_refused_total", "Capabilities that were refused.", slog.LevelWarn, "capability refused"},
	CapabilitiesLost:    {"p9auth_capability_files_lost_total", "Times that the capability files were unmounted or cut off (FUSE only).", slog.LevelError, "the capability files were lost, and are mounted again"},
	SessionOpened:       {"p9auth_sessions_opened_total", "PAM sessions that were opened.", slog.LevelInfo, "session opened"},
	SessionClosed:       {"p9auth_sessions_closed_total", "PAM sessions that were closed.", slog.LevelInfo, "session closed"},
	WorkerFailed:        {"p9auth_worker_failures_total", "PAM workers that failed.", slog.LevelError, "the PAM worker failed"},
	WorkerLost:          {"p9auth_workers_lost_total", "PAM workers that ended before their session.", slog.LevelError, "the session's PAM worker has ended before the session; another takes over"},
	Panicked:            {"p9auth_conversation_faults_total", "Conversations that a fault of factotum ended.", slog.LevelError, "conversation ended: a fault in factotum"},
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
	l.stats.Count(e)
	l.Log(context.Background(), events[e].level, events[e].line, args...)
}

// Muted returns a Log that counts and logs nothing.
func (l Log) Muted() Log { return Log{slog.New(slog.DiscardHandler), l.stats} }

// Unlogged counts an event of which the log is to have no line, as there are too
// many.
func (l Log) Unlogged(e Event) { l.stats.Count(e) }

// Line counts an event and logs a line of other words, which are sshd's.
func (l Log) Line(e Event, level slog.Level, line string) {
	l.stats.Count(e)
	l.Log(context.Background(), level, line)
}
