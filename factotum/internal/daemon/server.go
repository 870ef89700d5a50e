package daemon

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/sshauth"
	"p9auth/factotum/internal/status"
	"p9auth/internal/loglimit"
	"p9auth/internal/sockets"
	"p9auth/internal/sys"
)

// A Server is factotum: its socket, its caphash, and who is talking.
type Server struct {
	core
	file  string         // the configuration
	level *slog.LevelVar // of the log

	gen     atomic.Pointer[generation]
	lns     []*net.UnixListener
	viewers []io.Closer
	backend backend // what makes capabilities, from open on
	stats   status.Stats
	workers atomic.Int64
	began   time.Time
	nextID  atomic.Uint64
	turned  loglimit.Limiter // of lines about those who are turned away

	places places
	letGo  *letGo
	failed chan error // what factotum cannot do without is lost

	mu     sync.Mutex
	convs  map[*conversation]bool // all, with and without a place
	closed bool

	reloads status.Reloads
}

// newServer makes a server, which has no caphash yet and serves nobody.
func newServer(gen *generation, log *slog.Logger) *Server {
	s := &Server{began: time.Now(), convs: map[*conversation]bool{}, failed: make(chan error, 1), letGo: startLetGo()}
	var secret [32]byte
	rand.Read(secret[:])
	s.log = status.NewLog(log, &s.stats)
	s.caps = newCapabilities(gen.conf.MaxCapsPerUID(), func(err error) { s.log.Error("revoke a capability", "error", err.Error()) })
	s.lines = loglimit.Limiter{PerUID: 200, InAll: 500}
	s.delays = sshauth.NewDelays(secret)
	s.sleep = time.Sleep
	s.hire = func(c config.Config, log status.Log, t *tty, front string) (Worker, error) {
		return startWorker(c, log, t, front, &s.workers)
	}
	s.acceptor = func(c config.Config, log status.Log, front string, strict bool) (Worker, error) {
		name := "any"
		if strict {
			name = "strict"
		}
		return startWorker(c, log, nil, front, &s.workers, "gss", name)
	}
	s.leader = openLeader
	s.gen.Store(gen)
	return s
}

// Serve accepts conversations until the server is closed or fails.
func (s *Server) Serve() error {
	ended := make(chan error, len(s.lns))
	for _, ln := range s.lns {
		go func() { ended <- s.acceptFrom(ln) }()
	}
	for range s.lns {
		select {
		case err := <-ended:
			if err != nil {
				return err
			}
		case err := <-s.failed:
			return err
		}
	}
	return nil
}

// fail ends Serve with an error.
func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// lacks are the errors of accept(2) that pass.
var lacks = []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.ECONNABORTED}

func (s *Server) acceptFrom(ln *net.UnixListener) error {
	var b sockets.Backoff
	for {
		u, err := ln.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if !slices.ContainsFunc(lacks, func(e error) bool { return errors.Is(err, e) }) {
				return fmt.Errorf("accept: %w", err)
			}
			if b.Wait() {
				s.log.Error("accept", "error", err.Error())
			}
			continue
		}
		b.Reset()
		peer, err := sys.PeerCred(u)
		context := ""
		if err == nil {
			context, err = peerContext(u)
		}
		if err != nil {
			s.log.Error("who connects", "error", err.Error())
			s.letGo.wire(capproto.NewConn(u, capproto.MaxRequest))
			continue
		}
		s.accept(capproto.StrangerConn(u, capproto.MaxRequest), peer, context)
	}
}

// accept starts a conversation, if the peer, who is in that security context, may have one
// more.
func (s *Server) accept(w wire, peer *unix.Ucred, context string) {
	c := newConversation(&s.core, s.gen.Load(), w, peer)
	c.context = context
	c.log = s.log.With("conversation", s.nextID.Add(1), "uid", peer.Uid, "pid", peer.Pid)
	if refusal := s.admit(c); refusal != nil {
		s.turnAway(c, refusal)
		return
	}
	go func() {
		defer s.forget(c)
		c.run()
	}()
}

// admit gives a conversation its place, if there may be one more of its peer.
func (s *Server) admit(c *conversation) *capproto.Error {
	uid := c.peer.Uid
	_, isFrontEnd := c.gen.fronts[uid]
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !isFrontEnd && uid != 0 && !c.gen.isLocal(uid):
		return &capproto.Error{Code: capproto.CodeProtocol,
			Text: fmt.Sprintf("uid %d is not configured as a front end; add a FrontEnd line to factotum.conf", uid)}
	case s.closed:
		return &capproto.Error{Code: capproto.CodeInternal, Text: "factotum is ending"}
	case isSelf(c.peer) && !isFrontEnd: // it needs no place, which others could keep from it
		s.convs[c] = true
		return nil
	}
	bounds := []bound{{everybody{}, c.gen.conf.MaxConversations}, {uid, c.gen.conf.MaxConversationsPerUID}}
	if !isFrontEnd && uid != 0 {
		bounds = []bound{{locals{}, localConversations}, {localCaller(uid), localConversationsPerUID}}
	}
	c.place, _ = s.places.take(bounds...)
	if c.place == nil {
		return errTooMany
	}
	s.convs[c] = true
	return nil
}

// turnAway refuses a conversation. Anybody may cause that, so not every one is
// in the log.
func (s *Server) turnAway(c *conversation, refusal *capproto.Error) {
	ok, dropped := s.turned.Allow(c.peer.Uid, time.Now())
	switch {
	case !ok:
		s.log.Unlogged(status.ConversationRefused)
	case dropped > 0:
		c.log.Event(status.ConversationRefused, "reason", refusal.Text, "unlogged_before", dropped)
	default:
		c.log.Event(status.ConversationRefused, "reason", refusal.Text)
	}
	c.wire.Send(refusal.Msg())
	s.letGo.wire(c.wire)
}

// forget forgets a conversation that has left.
func (s *Server) forget(c *conversation) {
	c.leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.convs, c)
}

// now is the numbers of the moment.
func (s *Server) now() status.Now {
	open, sessions := s.sessions.list()
	local, n := s.locals.list()
	open, sessions = append(open, local...), sessions+n
	return status.Now{Conversations: s.places.count(everybody{}) + s.places.count(locals{}), Sessions: sessions, Workers: int(s.workers.Load()), Capabilities: s.caps.count(), Open: open, Reloads: s.reloads.String()}
}

// view opens the sockets for the status and the metrics that the configuration
// names.
func (s *Server) view() error {
	conf := s.gen.Load().conf
	for _, v := range []struct {
		keyword, path string
		serve         func(net.Conn)
	}{
		{"StatusSocket", conf.StatusSocket, func(c net.Conn) { io.WriteString(c, s.stats.Text(s.now(), s.began, s.backend.name)) }},
		{"MetricsSocket", conf.MetricsSocket, func(c net.Conn) {
			status.AnswerHTTP(c, func() string { return s.stats.Metrics(s.now()) })
		}},
	} {
		if v.path == "" {
			continue
		}
		ln, err := status.Listen(v.path, s.log.Logger, v.serve)
		if err != nil {
			return fmt.Errorf("%s: %w", v.keyword, err)
		}
		s.viewers = append(s.viewers, ln)
	}
	return nil
}

// Device says whether capabilities are made by the kernel's device.
func (s *Server) Device() bool { return s.backend.name != fuse }

// Close ends all conversations. Sessions go on.
func (s *Server) Close() {
	for _, ln := range s.lns {
		ln.Close() // removes the socket, unless it was given
	}
	for _, v := range s.viewers {
		v.Close()
	}
	s.mu.Lock()
	s.closed = true
	for c := range s.convs {
		c.wire.Close()
	}
	s.mu.Unlock()
	if s.backend.close != nil {
		s.backend.close()
	}
}
