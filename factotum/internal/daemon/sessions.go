package daemon

import (
	"maps"
	"slices"
	"sync"
	"time"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
	"p9auth/internal/proc"
)

// sessions counts the PAM sessions that are open, or being opened. Its zero value
// is ready.
type sessions struct {
	mu     sync.Mutex
	all    map[*session]bool
	byFE   map[uint32]int // by uid of the front end
	byUser map[uint32]int // by uid of the user
}

// A session is a PAM session. It lives from the request to open it until the
// worker has closed it, whatever becomes of the conversation. Its place is free when
// its speakers have ended, too.
type session struct {
	of     *sessions
	uid    uint32 // of the front end
	user   uint32
	leader *proc.Handle // the process that it is for
	root   string       // of the user's processes, as person has it
	groups []string     // as pamwire.OpenSession has them
	x      x11          // of the caller of su

	// Under the lock of sessions.
	info *status.Session // once it is open
	over bool
	kept int // by its speakers
}

// request is what a worker is asked, to open it.
func (s *session) request() pamwire.OpenSession {
	return pamwire.OpenSession{PID: s.leader.PID, Root: s.root, Groups: s.groups, Display: s.x.display, XAuthority: s.x.authority}
}

// add counts a session of a user through a front end, if there may be one more.
// Those who have none yet may have the last ones, and root the very last: whoever
// has filled the machine does not keep others out. The handle is the session's from
// then on.
func (s *sessions) add(uid uint32, who *person, leader *proc.Handle, c config.Config) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := c.MaxSessionsPerUID()
	if who.uid != 0 {
		most -= c.SessionsForRoot()
		if s.byUser[who.uid] > 0 {
			most -= c.SessionsForNewUsers()
		}
	}
	switch {
	case len(s.all) >= c.MaxSessions, s.byFE[uid] >= most:
		return nil, &capproto.Error{Code: capproto.CodeLimit, Text: "too many sessions"}
	case c.MaxSessionsPerUser > 0 && s.byUser[who.uid] >= c.MaxSessionsPerUser:
		return nil, &capproto.Error{Code: capproto.CodeLimit, Text: "too many sessions of one user"}
	}
	return s.place(uid, who, leader), nil
}

// addLocal counts a session of a user, by su or the like of a calling uid, if there
// may be one more.
func (s *sessions) addLocal(uid uint32, who *person, leader *proc.Handle) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if uid != 0 && (len(s.all) >= localSessions || s.byFE[uid] >= localSessionsPerUID) {
		return nil, &capproto.Error{Code: capproto.CodeLimit, Text: "too many sessions"}
	}
	return s.place(uid, who, leader), nil
}

// place counts a session. The caller locks.
func (s *sessions) place(uid uint32, who *person, leader *proc.Handle) *session {
	if s.all == nil {
		s.all, s.byFE, s.byUser = map[*session]bool{}, map[uint32]int{}, map[uint32]int{}
	}
	x := &session{of: s, uid: uid, user: who.uid, leader: leader, root: who.root}
	s.all[x] = true
	s.byFE[uid]++
	s.byUser[who.uid]++
	return x
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
	x.over, x.info = true, nil
	x.leader.Close()
	x.leave()
}

// keep keeps the session's place until letGo, if the session has one still.
func (x *session) keep() bool {
	x.of.mu.Lock()
	defer x.of.mu.Unlock()
	if x.over {
		return false
	}
	x.kept++
	return true
}

func (x *session) letGo() {
	x.of.mu.Lock()
	defer x.of.mu.Unlock()
	x.kept--
	x.leave()
}

// leave frees the session's place if nobody needs it. The caller locks.
func (x *session) leave() {
	if !x.over || x.kept > 0 || !x.of.all[x] {
		return
	}
	delete(x.of.all, x)
	if x.of.byFE[x.uid]--; x.of.byFE[x.uid] <= 0 {
		delete(x.of.byFE, x.uid)
	}
	if x.of.byUser[x.user]--; x.of.byUser[x.user] <= 0 {
		delete(x.of.byUser, x.user)
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
