package daemon

import (
	"maps"
	"slices"
	"sync"
	"time"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/status"
	"p9auth/internal/proc"
)

// sessions counts the PAM sessions that are open, or being opened. Its zero value
// is ready.
type sessions struct {
	mu   sync.Mutex
	all  map[*session]bool
	byFE map[uint32]int // by uid of the front end
}

// A session is a PAM session. It lives from the request to open it until the
// worker has closed it, whatever becomes of the conversation.
type session struct {
	of     *sessions
	uid    uint32       // of the front end
	leader *proc.Handle // the process that it is for
	root   string       // of the user's processes, as person has it

	// Under the lock of sessions.
	info *status.Session // once it is open
	over bool
}

// add counts a session of a front end, if there may be one more. The handle is
// the session's from then on.
func (s *sessions) add(uid uint32, leader *proc.Handle, root string, c config.Config) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= c.MaxSessions || s.byFE[uid] >= c.MaxSessionsPerUID() {
		return nil, &capproto.Error{Code: capproto.CodeLimit, Text: "too many sessions"}
	}
	if s.all == nil {
		s.all, s.byFE = map[*session]bool{}, map[uint32]int{}
	}
	x := &session{of: s, uid: uid, leader: leader, root: root}
	s.all[x] = true
	s.byFE[uid]++
	return x, nil
}

// opened notes who the session is of, for the status.
func (x *session) opened(user, service, tty, rhost string) {
	x.of.mu.Lock()
	defer x.of.mu.Unlock()
	x.info = &status.Session{User: user, Service: service, TTY: tty, RHost: rhost, PID: x.leader.PID, Since: time.Now()}
}

// end says that the session is over. Once it is, nothing happens.
func (x *session) end() {
	x.of.mu.Lock()
	defer x.of.mu.Unlock()
	if x.over {
		return
	}
	x.over = true
	x.leader.Close()
	delete(x.of.all, x)
	if x.of.byFE[x.uid]--; x.of.byFE[x.uid] <= 0 {
		delete(x.of.byFE, x.uid)
	}
}

// list is the sessions, and how many there are with those that are being opened.
func (s *sessions) list() (open []status.Session, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for x := range maps.Keys(s.all) {
		if x.info != nil {
			open = append(open, *x.info)
		}
	}
	return slices.Clip(open), len(s.all)
}
