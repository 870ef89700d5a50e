package daemon

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
)

// handoverLife is how long a handover token works.
const handoverLife = time.Minute

// handovers are the logins that wait for another process to take them over. Of a
// token only the hash is kept. The zero value is ready.
type handovers struct {
	mu sync.Mutex
	m  map[tokenHash]*handover
}

type tokenHash [sha256.Size]byte

// A person is the user who was proven.
type person struct {
	name string // the account's
	uid  uint32
	root string // ChrootDirectory of sshd_config(5), or ""
	ptys uint32 // terminals that the user is to find in that root
	// restricted is what restricts the login by SSH, besides the shell, or "".
	restricted string
	opened     *pamwire.Opened // once the session is open
}

// A handover is a login on its way from the process that speaks SSH to the one
// that becomes the user.
type handover struct {
	uid    uint32 // of the front end, to whose processes it may go
	user   *person
	worker Worker
	rhost  string
	proof  []capproto.Attr // what authinfo says of how the user was proven
	from   *speaker
	timer  *time.Timer
}

// give makes the token of a handover, which is a secret, and its hash.
func (s *handovers) give(h *handover) (token string, id tokenHash) {
	var b [32]byte
	rand.Read(b[:])
	token = base64.RawURLEncoding.EncodeToString(b[:])
	id = sha256.Sum256([]byte(token))
	h.timer = time.AfterFunc(handoverLife, func() { s.drop(id) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[tokenHash]*handover{}
	}
	s.m[id] = h
	return token, id
}

// take returns the handover of a token to a process of its uid, once. Otherwise
// it returns nil.
func (s *handovers) take(token string, uid uint32) *handover {
	id := tokenHash(sha256.Sum256([]byte(token)))
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.m[id]
	if h == nil || h.uid != uid {
		return nil
	}
	h.timer.Stop()
	delete(s.m, id)
	return h
}

// drop ends a login that nobody has taken over.
func (s *handovers) drop(id tokenHash) {
	s.mu.Lock()
	h := s.m[id]
	delete(s.m, id)
	s.mu.Unlock()
	if h != nil {
		h.timer.Stop()
		h.worker.Abandon()
	}
}
