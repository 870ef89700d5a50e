package daemon

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/becomerecord"
)

// capabilities makes capabilities and takes them back. It knows only how many
// each front end has.
type capabilities struct {
	mu       sync.Mutex
	hash     io.Writer      // caphash, written by one goroutine at a time
	bind     bindFunc       // nil where the backend cannot bind
	most     int            // of one uid
	byUID    map[uint32]int // made in conversations that are still open
	tooMany  *capproto.Error
	reported func(error) // what cannot be taken back
}

// A bindFunc allows a capability that is bound: see capfs.FS.Bind.
type bindFunc func(capproto.Hash, becomerecord.Record) error

func newCapabilities(most int, report func(error)) *capabilities {
	return &capabilities{
		most: most, byUID: map[uint32]int{}, reported: report,
		tooMany: &capproto.Error{Code: capproto.CodeLimit, Text: "too many capabilities are outstanding"},
	}
}

// make makes a capability and allows it, if the source uid has fewer than most of
// them.
// It binds it to what bound says, unless that is nil or the backend cannot.
func (s *capabilities) make(g capproto.Grant, bound *becomerecord.Bound, most int) (capproto.Cap, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUID[g.From] >= most {
		return capproto.Cap{}, s.tooMany
	}
	named := g
	if len(g.Groups) > capproto.MaxGroups { // the record has all of them
		if bound == nil || s.bind == nil {
			return capproto.Cap{}, errTooManyGroups
		}
		named.Groups = g.Groups[:capproto.MaxGroups]
	}
	c, err := capproto.New(named)
	if err != nil {
		return capproto.Cap{}, err
	}
	h := c.Hash()
	if bound != nil && bound.Root != nil && s.bind == nil {
		return capproto.Cap{}, errNoRoot
	}
	if bound != nil && s.bind != nil {
		err = s.bind(h, becomerecord.Record{From: g.From, UID: g.To, Groups: g.Groups, Bound: bound})
	} else {
		_, err = s.hash.Write(h[:])
	}
	if errors.Is(err, unix.ENOSPC) {
		return capproto.Cap{}, s.tooMany
	}
	if err != nil {
		return capproto.Cap{}, fmt.Errorf("allow a capability: %w", err)
	}
	s.byUID[g.From]++
	return c, nil
}

var errTooManyGroups = &capproto.Error{Code: capproto.CodeAccount,
	Text: fmt.Sprintf("this account is in more than %d groups, which the kernel's capability device cannot give", capproto.MaxGroups)}

var errNoRoot = &capproto.Error{Code: capproto.CodeAccount, Text: "the kernel's capability device cannot change the root directory"}

// revoke kills capabilities of uid that may not have been redeemed.
func (s *capabilities) revoke(uid uint32, hashes []capproto.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range hashes {
		if _, err := s.hash.Write(append([]byte("-"), h[:]...)); err != nil && !errors.Is(err, unix.ENOENT) {
			s.reported(err)
		}
		if s.byUID[uid]--; s.byUID[uid] <= 0 {
			delete(s.byUID, uid)
		}
	}
}

// count is how many were made in conversations that are still open.
func (s *capabilities) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, k := range s.byUID {
		n += k
	}
	return n
}
