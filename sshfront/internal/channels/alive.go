package channels

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Meter is a connection that counts what is read from it. Give it to
// ssh.NewServerConn, and to Serve in Options.
type Meter struct {
	net.Conn
	reads atomic.Uint64
}

// NewMeter wraps a connection.
func NewMeter(c net.Conn) *Meter { return &Meter{Conn: c} }

// Read reads from the connection.
func (m *Meter) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if n > 0 {
		m.reads.Add(1)
	}
	return n, err
}

// watchClient ends the connection of a client that does not answer
// (ClientAliveInterval) or has no channel (UnusedConnectionTimeout), and makes
// new keys when those in use are old (RekeyLimit).
func (s *service) watchClient() {
	set := s.set
	var silent, unused <-chan time.Time
	if set.ClientAliveInterval > 0 {
		t := time.NewTicker(set.ClientAliveInterval)
		defer t.Stop()
		silent = t.C
	}
	var old <-chan time.Time
	if set.RekeyLimit.Interval > 0 {
		t := time.NewTicker(set.RekeyLimit.Interval)
		defer t.Stop()
		old = t.C
	}
	idle := time.NewTimer(time.Hour)
	idle.Stop()
	defer idle.Stop()
	if set.UnusedConnectionTimeout > 0 {
		unused = idle.C
		s.notice()
	}
	var seen uint64
	missed := 0
	answered := make(chan struct{}, 1)
	asking := false
	for {
		select {
		case <-s.ended:
			return
		case <-s.changed:
			s.mu.Lock()
			n := s.channels
			s.mu.Unlock()
			if n > 0 || set.UnusedConnectionTimeout == 0 {
				idle.Stop()
			} else {
				idle.Reset(set.UnusedConnectionTimeout)
			}
		case <-unused:
			s.end(ErrUnused)
			return
		case <-old:
			s.conn.RequestKeyExchange()
		case <-answered:
			asking, missed = false, 0
		case <-silent:
			if m := s.opt.Meter; m != nil {
				if n := m.reads.Load(); n != seen {
					seen, missed = n, 0
					continue
				}
			}
			if missed++; set.ClientAliveCountMax > 0 && missed > set.ClientAliveCountMax {
				s.end(ErrNotResponding)
				return
			}
			if asking {
				continue // there is one on its way
			}
			asking = true
			go func() {
				if _, _, err := s.conn.SendRequest("keepalive@openssh.com", true, nil); err == nil {
					answered <- struct{}{}
				}
			}()
		}
	}
}

// An activity ends what is idle for too long.
type activity struct {
	end     func()
	timeout time.Duration // 0: none
	all     *activity     // of the whole connection, or nil
	last    atomic.Int64  // touch, in Unix nanoseconds

	mu    sync.Mutex
	timer *time.Timer // nil when stopped
}

// watch has end called when a channel of the type has been idle for its
// ChannelTimeout, or all channels for that of "global". stop must follow.
func (s *service) watch(typ string, end func()) *activity {
	a := &activity{end: end}
	set := s.set
	if len(set.ChannelTimeouts) == 0 {
		return a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := set.ChannelTimeout("global"); t > 0 && s.all == nil {
		s.all = &activity{end: s.endAll}
		s.all.start(t)
	}
	if s.all != nil {
		a.all = s.all
		s.watched[a] = true
	}
	a.start(set.ChannelTimeout(typ))
	a.touch()
	return a
}

// unwatch ends what watch began.
func (s *service) unwatch(a *activity) {
	s.mu.Lock()
	delete(s.watched, a)
	s.mu.Unlock()
	a.stop()
}

// endAll ends all channels, which have been idle together.
func (s *service) endAll() {
	s.mu.Lock()
	for a := range s.watched {
		go a.end()
	}
	s.all = nil // the next channel begins anew
	s.mu.Unlock()
}

func (a *activity) start(timeout time.Duration) {
	if timeout <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timeout = timeout
	a.touch()
	a.timer = time.AfterFunc(timeout, a.check)
}

func (a *activity) check() {
	left := time.Until(time.Unix(0, a.last.Load()).Add(a.timeout))
	if left <= 0 {
		a.end()
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Reset(left)
	}
}

// touch says that something was moved.
func (a *activity) touch() {
	if a.timeout > 0 {
		a.last.Store(time.Now().UnixNano())
	}
	if a.all != nil {
		a.all.touch()
	}
}

func (a *activity) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
}
