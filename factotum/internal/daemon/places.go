package daemon

import (
	"sync"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
)

// places counts the conversations, of all and by the uid of who made them. Its zero
// value is ready.
type places struct {
	mu    sync.Mutex
	all   int
	byUID map[uint32]int
}

// A place is that of one conversation. The nil place is none.
type place struct {
	of   *places
	uid  uint32
	once sync.Once
}

var errTooMany = &capproto.Error{Code: capproto.CodeLimit, Text: "too many logins at once; try again later"}

// take gives a conversation its place, if uid may have one more.
func (p *places) take(uid uint32, c config.Config) (*place, *capproto.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= c.MaxConversations || p.byUID[uid] >= c.MaxConversationsPerUID {
		return nil, errTooMany
	}
	if p.byUID == nil {
		p.byUID = map[uint32]int{}
	}
	p.all++
	p.byUID[uid]++
	return &place{of: p, uid: uid}, nil
}

// leave frees the place, once.
func (x *place) leave() {
	if x == nil {
		return
	}
	x.once.Do(func() {
		x.of.mu.Lock()
		defer x.of.mu.Unlock()
		x.of.all--
		if x.of.byUID[x.uid]--; x.of.byUID[x.uid] <= 0 {
			delete(x.of.byUID, x.uid)
		}
	})
}

func (p *places) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

// A speaker is the conversation of the process that speaks SSH for a login that it
// has handed over: it asks for the signatures of later key exchanges as long as the
// connection lasts. Until the session is open it has the place of a conversation.
// From then on it counts as part of the session, whose place is not free before both
// have ended: otherwise there could be speakers without end.
type speaker struct {
	place *place

	mu      sync.Mutex
	session *session // that is open, or nil
	over    bool
}

// joins makes the speaker a part of the session that has been opened.
func (s *speaker) joins(x *session) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || !x.keep() {
		return
	}
	s.session = x
	s.place.leave()
}

// end says that the conversation has ended.
func (s *speaker) end() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.session != nil {
		s.session.letGo()
	}
}
