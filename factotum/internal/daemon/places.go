package daemon

import "sync"

// places counts what each of several keys may have a number of. Its zero value is
// ready.
type places struct {
	mu sync.Mutex
	n  map[any]int
}

// A bound is how many places there are of a key at most.
type bound struct {
	key  any
	most int
}

// everybody is the key of all together.
type everybody struct{}

// A place is one of each of its keys. The nil place is none.
type place struct {
	of   *places
	keys []any
	once sync.Once
}

// take takes a place of each key, or none if there is one key that has no more. That
// one it returns.
func (p *places) take(bounds ...bound) (x *place, full any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range bounds {
		if p.n[b.key] >= b.most {
			return nil, b.key
		}
	}
	if p.n == nil {
		p.n = map[any]int{}
	}
	x = &place{of: p}
	for _, b := range bounds {
		p.n[b.key]++
		x.keys = append(x.keys, b.key)
	}
	return x, nil
}

// leave frees the place, once.
func (x *place) leave() {
	if x == nil {
		return
	}
	x.once.Do(func() {
		x.of.mu.Lock()
		defer x.of.mu.Unlock()
		for _, k := range x.keys {
			if x.of.n[k]--; x.of.n[k] <= 0 {
				delete(x.of.n, k)
			}
		}
	})
}

// count is how many a key has.
func (p *places) count(key any) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n[key]
}

// A speaker is a conversation that lasts as long as a login by SSH: that of the process
// that speaks SSH, which has handed the login over and asks for the signatures of later
// key exchanges, and that of the process that becomes the user, which tells of the
// terminals. Until the session is open a speaker has the place of a conversation.
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
