package daemon

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"p9auth/factotum/internal/config"
)

// What an administrator can see of factotum: its status, as text for "factotum
// status", and its counters in Prometheus' text exposition format. Each is
// written to whoever connects to a socket of its own that only root can open.
// Nothing but the line of a request is read from there, and nothing is done.

// Bounds of the two sockets.
const (
	maxViewers    = 8 // at a time
	viewerTime    = 5 * time.Second
	maxListed     = 1000 // sessions in the status
	maxRequestHTP = 4 << 10
)

// A counted event is one of factotum's log messages, which a metric counts.
type counted struct{ prefix, metric, help string }

var events = []counted{
	{"user authenticated", "p9auth_authentications_total", "Users that were authenticated."},
	{"login refused", "p9auth_refusals_total", "Proofs and accounts that were refused."},
	{"Failed password", "p9auth_refusals_total", ""},
	{"Failed publickey", "p9auth_refusals_total", ""},
	{"error: PAM: Authentication failure", "p9auth_refusals_total", ""}, // by keyboard-interactive
	{"conversation refused", "p9auth_conversations_refused_total", "Conversations that were refused: no front end, or too many."},
	{"conversation ended: protocol violation", "p9auth_protocol_violations_total", "Conversations in which a front end did what it must not."},
	{"signature refused", "p9auth_signatures_refused_total", "SSH signatures that were wrong."},
	{"capability given", "p9auth_capabilities_given_total", "Capabilities that were made."},
	{"capability redeemed", "p9auth_capabilities_redeemed_total", "Capabilities that were redeemed (FUSE only)."},
	{"capability refused", "p9auth_capabilities_refused_total", "Capabilities that were refused."},
	{"session opened", "p9auth_sessions_opened_total", "PAM sessions that were opened."},
	{"session closed", "p9auth_sessions_closed_total", "PAM sessions that were closed."},
	{"the PAM worker failed", "p9auth_worker_failures_total", "PAM workers that failed."},
	{"the session's PAM worker has ended before the session", "p9auth_workers_lost_total", "PAM workers that ended before their session."},
}

// counters counts the events that pass through a log handler.
type counters struct {
	mu sync.Mutex
	n  map[string]uint64 // by metric
}

func newCounters() *counters {
	c := &counters{n: map[string]uint64{}}
	for _, e := range events {
		c.n[e.metric] = 0
	}
	return c
}

func (c *counters) count(message string) {
	for _, e := range events {
		if strings.HasPrefix(message, e.prefix) {
			c.mu.Lock()
			c.n[e.metric]++
			c.mu.Unlock()
			return
		}
	}
}

// A countingHandler counts what is logged, also what the level keeps out.
type countingHandler struct {
	slog.Handler
	c *counters
}

func (h countingHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || h.Handler.Enabled(ctx, l)
}

func (h countingHandler) Handle(ctx context.Context, r slog.Record) error {
	h.c.count(r.Message)
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h countingHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return countingHandler{h.Handler.WithAttrs(a), h.c}
}

func (h countingHandler) WithGroup(name string) slog.Handler {
	return countingHandler{h.Handler.WithGroup(name), h.c}
}

// A sessionInfo is a session that is open.
type sessionInfo struct {
	user, service, tty, rhost string
	pid                       int
	since                     time.Time
}

// gauges are the metrics that are numbers of the moment, in the order in which
// counts returns them.
var gauges = []struct{ metric, help string }{
	{"p9auth_conversations", "Conversations with front ends."},
	{"p9auth_sessions", "PAM sessions that are open."},
	{"p9auth_workers", "PAM workers."},
	{"p9auth_capabilities", "Capabilities made in conversations that live."},
}

// counts are the numbers of the moment.
func (s *Server) counts() (conversations, sessions, workers, caps int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.capsOf {
		caps += n
	}
	return len(s.convs), s.sessions, int(s.workers.Load()), caps
}

// status is the status as text.
func (s *Server) status() string {
	var b strings.Builder
	conversations, sessions, workers, caps := s.counts()
	fmt.Fprintf(&b, "factotum      pid %d, up %s, backend %s\n", os.Getpid(), time.Since(s.began).Round(time.Second), backend)
	fmt.Fprintf(&b, "conversations %d\nsessions      %d\nworkers       %d\ncapabilities  %d of living conversations\n", conversations, sessions, workers, caps)
	s.counters.mu.Lock()
	for _, e := range events {
		if e.help != "" && s.counters.n[e.metric] > 0 {
			fmt.Fprintf(&b, "%-8d %s\n", s.counters.n[e.metric], e.help)
		}
	}
	s.counters.mu.Unlock()
	s.mu.Lock()
	list := slices.SortedFunc(maps.Values(s.live), func(a, b sessionInfo) int { return cmp.Compare(a.pid, b.pid) })
	s.mu.Unlock()
	if len(list) > 0 {
		fmt.Fprintf(&b, "\n%-16s %-10s %-10s %8s %-19s %s\n", "USER", "SERVICE", "TTY", "PID", "SINCE", "FROM")
	}
	for i, l := range list {
		if i == maxListed {
			fmt.Fprintf(&b, "and %d more\n", len(list)-i)
			break
		}
		fmt.Fprintf(&b, "%-16s %-10s %-10s %8d %-19s %s\n", safe(l.user), l.service, l.tty, l.pid, l.since.Format("2006-01-02 15:04:05"), safe(l.rhost))
	}
	return b.String()
}

// metrics are the counters and gauges in Prometheus' text format, 0.0.4.
func (s *Server) metrics() string {
	var b strings.Builder
	conversations, sessions, workers, caps := s.counts()
	for i, n := range []int{conversations, sessions, workers, caps} {
		g := gauges[i]
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n%s %d\n", g.metric, g.help, g.metric, g.metric, n)
	}
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	for _, e := range events {
		if e.help != "" {
			fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s counter\n%s %d\n", e.metric, e.help, e.metric, e.metric, s.counters.n[e.metric])
		}
	}
	return b.String()
}

// view serves a socket of root's: text is written to whoever connects. Its
// folder is made if it is missing: where systemd holds the rpc socket and the
// kernel has the capability files, nobody else makes /run/factotum.
func view(path string, log *slog.Logger, serve func(net.Conn)) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	free := make(chan struct{}, maxViewers)
	go func() {
		for {
			c, err := ln.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				log.Error("accept", "socket", path, "error", err.Error())
				time.Sleep(time.Second)
				continue
			}
			// Who was quicker than the chmod is turned away here.
			if peer, err := peerCred(c); err != nil || peer.Uid != 0 {
				c.Close()
				continue
			}
			c.SetDeadline(time.Now().Add(viewerTime))
			free <- struct{}{}
			go func() {
				defer func() { c.Close(); <-free }()
				serve(c)
			}()
		}
	}()
	return ln, nil
}

// views opens the sockets that the configuration names.
func (s *Server) views() error {
	if p := s.conf.StatusSocket; p != "" {
		ln, err := view(p, s.log, func(c net.Conn) { io.WriteString(c, s.status()) })
		if err != nil {
			return fmt.Errorf("StatusSocket: %w", err)
		}
		s.viewers = append(s.viewers, ln)
	}
	if p := s.conf.MetricsSocket; p != "" {
		ln, err := view(p, s.log, s.answerHTTP)
		if err != nil {
			return fmt.Errorf("MetricsSocket: %w", err)
		}
		s.viewers = append(s.viewers, ln)
	}
	return nil
}

// answerHTTP answers a request of HTTP/1.0 or 1.1 (RFC 9112) with the metrics,
// whatever it asks for.
func (s *Server) answerHTTP(c net.Conn) {
	r := bufio.NewReader(io.LimitReader(c, maxRequestHTP))
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if strings.TrimRight(line, "\r\n") == "" {
			break
		}
	}
	body := s.metrics()
	fmt.Fprintf(c, "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
}

// ShowStatus is "factotum status": it prints what the running factotum says to w.
func ShowStatus(w io.Writer, file string) error {
	conf, err := config.Read(file)
	if err != nil {
		return err
	}
	if conf.StatusSocket == "" {
		return fmt.Errorf("%s has StatusSocket none", file)
	}
	c, err := net.DialTimeout("unix", conf.StatusSocket, viewerTime)
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("only root may ask for the status: %w", err)
	case err != nil:
		return fmt.Errorf("factotum is not running (no answer at %s); start it", conf.StatusSocket)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(viewerTime))
	_, err = io.Copy(w, io.LimitReader(c, 1<<20))
	return err
}
