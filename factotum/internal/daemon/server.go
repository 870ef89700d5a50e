package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/internal/loglimit"
)

// A Server is factotum: its socket, its caphash, and who is talking.
type Server struct {
	log     *slog.Logger
	hash    *os.File // caphash, written by one goroutine at a time
	unmount func()
	file    string         // the configuration
	level   *slog.LevelVar // of the log
	lns     []*net.UnixListener
	nextID  atomic.Uint64

	mu       sync.Mutex
	conf     config.Config
	fronts   map[uint32]config.Binding // by uid
	ssh      *sshServer                // nil: no front end is for ssh
	tickets  map[[32]byte]*ticket
	convs    map[*conv]bool
	convsOf  map[uint32]int // conversations by uid of the peer
	capsOf   map[uint32]int // capabilities of living conversations, by uid
	sessions int
	sessOf   map[uint32]int // of them by uid of the front end
	quiet    loglimit.Limiter
	live     map[*worker]sessionInfo // the sessions that are open
	closed   bool

	counters *counters
	workers  atomic.Int64
	began    time.Time
	viewers  []net.Listener
}

// newServer takes what factotum needs: caphash first, then the socket, if the
// service manager has not given it.
func newServer(c config.Config, given []*net.UnixListener, handler slog.Handler) (*Server, error) {
	counters := newCounters()
	log := slog.New(countingHandler{handler, counters})
	fronts, err := lookupFrontEnds(c)
	if err != nil {
		return nil, err
	}
	ssh, err := loadSSH(c, log)
	if err != nil {
		return nil, err
	}
	s := &Server{
		log: log, conf: c, fronts: fronts, ssh: ssh, tickets: map[[32]byte]*ticket{},
		convs: map[*conv]bool{}, convsOf: map[uint32]int{}, capsOf: map[uint32]int{}, sessOf: map[uint32]int{}, live: map[*worker]sessionInfo{},
		counters: counters, began: time.Now(),
	}
	if s.hash, s.unmount, err = openCapHash(c, log); err != nil {
		return nil, err
	}
	if err := s.views(); err != nil {
		s.Close()
		return nil, err
	}
	if s.lns, err = listeners(c.Socket, given); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// lookupFrontEnds finds the uids of the configuration's front ends. They are
// system users, so /etc/passwd has them.
func lookupFrontEnds(c config.Config) (map[uint32]config.Binding, error) {
	m := map[uint32]config.Binding{}
	for name, front := range c.FrontEnds {
		u, err := user.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("FrontEnd %s: there is no such user; create it (useradd --system), or take the line out", name)
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("FrontEnd %s: uid %s: %w", name, u.Uid, err)
		}
		if uid == 0 {
			return nil, fmt.Errorf("FrontEnd %s: root must not be a front end", name)
		}
		if other, ok := m[uint32(uid)]; ok {
			return nil, fmt.Errorf("FrontEnd %s: uid %d is bound to service %s already", name, uid, other.Service)
		}
		m[uint32(uid)] = front
	}
	return m, nil
}

// serve accepts conversations until the sockets are closed.
func (s *Server) serve() error {
	ended := make(chan error, len(s.lns))
	for _, ln := range s.lns {
		go func() { ended <- s.acceptFrom(ln) }()
	}
	for range s.lns {
		if err := <-ended; err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) acceptFrom(ln *net.UnixListener) error {
	for {
		c, err := ln.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ECONNABORTED) {
				s.log.Error("accept", "error", err.Error())
				time.Sleep(100 * time.Millisecond) // whose descriptors are all in use must not spin
				continue
			}
			return fmt.Errorf("accept: %w", err)
		}
		s.accept(c)
	}
}

// accept starts a conversation, if the peer may have one more.
func (s *Server) accept(u *net.UnixConn) {
	peer, err := peerCred(u)
	if err != nil {
		s.log.Error("SO_PEERCRED", "error", err.Error())
		u.Close()
		return
	}
	c := &conv{
		s: s, conn: capproto.NewConn(u, capproto.MaxRequest), peer: peer,
		log: s.log.With("conversation", s.nextID.Add(1), "uid", peer.Uid, "pid", peer.Pid),
	}
	s.mu.Lock()
	c.conf = s.conf
	_, isFrontEnd := s.fronts[peer.Uid]
	var refuse *capproto.Error
	switch {
	case !isFrontEnd && peer.Uid != 0:
		refuse = &capproto.Error{Code: capproto.CodeProtocol, Text: "this user is no front end of factotum (see FrontEnd in factotum.conf)"}
	case len(s.convs) >= s.conf.MaxConversations, s.convsOf[peer.Uid] >= s.conf.MaxConversationsPerUID:
		refuse = &capproto.Error{Code: capproto.CodeLimit, Text: "too many logins at once; try again later"}
	case s.closed:
		refuse = &capproto.Error{Code: capproto.CodeInternal, Text: "factotum is ending"}
	default:
		s.convs[c] = true
		s.convsOf[peer.Uid]++
	}
	s.mu.Unlock()
	if refuse != nil {
		if ok, dropped := s.quiet.Allow(peer.Uid, time.Now()); ok && dropped > 0 {
			c.log.Warn("conversation refused", "reason", refuse.Text, "unlogged_before", dropped)
		} else if ok {
			c.log.Warn("conversation refused", "reason", refuse.Text)
		}
		c.conn.Send(refuse.Msg())
		u.Close()
		return
	}
	go func() {
		c.run()
		// Its place is free when its workers have gone: otherwise they could be
		// had without end, by beginning and leaving again.
		c.leaving.Wait()
		s.mu.Lock()
		delete(s.convs, c)
		if s.convsOf[peer.Uid]--; s.convsOf[peer.Uid] == 0 {
			delete(s.convsOf, peer.Uid)
		}
		s.mu.Unlock()
	}()
}

func peerCred(u *net.UnixConn) (*unix.Ucred, error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil {
		return nil, e
	}
	return cred, err
}

// frontEnd is what the front end of that uid may do.
func (s *Server) frontEnd(uid uint32) (config.Binding, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.fronts[uid]
	return v, ok
}

// makeCap makes a capability and stores its hash, if uid may have one more.
func (s *Server) makeCap(g capproto.Grant) (capproto.Cap, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.capsOf[g.From] >= s.conf.MaxCapsPerUID() {
		return capproto.Cap{}, &capproto.Error{Code: capproto.CodeLimit, Text: "too many capabilities are outstanding"}
	}
	c, err := capproto.New(g)
	if err != nil {
		return capproto.Cap{}, err
	}
	h := c.Hash()
	if _, err := s.hash.Write(h[:]); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			return capproto.Cap{}, &capproto.Error{Code: capproto.CodeLimit, Text: "too many capabilities are outstanding"}
		}
		return capproto.Cap{}, fmt.Errorf("write caphash: %w", err)
	}
	s.capsOf[g.From]++
	return c, nil
}

// revoke kills capabilities of uid that may not have been redeemed.
func (s *Server) revoke(uid uint32, hashes []capproto.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range hashes {
		if _, err := s.hash.Write(append([]byte("-"), h[:]...)); err != nil && !errors.Is(err, unix.ENOENT) {
			s.log.Error("revoke a capability", "error", err.Error())
		}
		if s.capsOf[uid]--; s.capsOf[uid] <= 0 {
			delete(s.capsOf, uid)
		}
	}
}

const needRestart = "a change of Become, CapabilityLifetime, CapDir, CapHash, MaxCapabilities, MetricsSocket, Socket or StatusSocket needs a restart"

// reload takes a new configuration. What is open already stays where it is.
func (s *Server) reload(c config.Config) error {
	if err := check(c); err != nil {
		return err
	}
	fronts, err := lookupFrontEnds(c)
	if err != nil {
		return err
	}
	ssh, err := loadSSH(c, s.log)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Socket != s.conf.Socket || c.CapDir != s.conf.CapDir || c.CapHash != s.conf.CapHash || c.Become != s.conf.Become ||
		c.MaxCapabilities != s.conf.MaxCapabilities || c.CapabilityLifetime != s.conf.CapabilityLifetime ||
		c.StatusSocket != s.conf.StatusSocket || c.MetricsSocket != s.conf.MetricsSocket {
		return errors.New(needRestart)
	}
	s.conf, s.fronts, s.ssh = c, fronts, ssh
	return nil
}

// close ends all conversations. Sessions go on.
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
		c.conn.Close()
	}
	s.mu.Unlock()
	s.unmount()
}
