package capfs

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// A table holds the hashes of capabilities that may be redeemed. A hash that
// has expired is remembered for as long again, so that who comes late is told
// so.
type table struct {
	max      int
	lifetime time.Duration

	mu      sync.Mutex
	entries []entry // oldest first
}

type entry struct {
	hash    capproto.Hash
	expires time.Time
}

// add stores a hash. It returns ENOSPC when max hashes are alive.
func (t *table) add(h capproto.Hash, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(now)
	alive := 0
	for _, e := range t.entries {
		if now.Before(e.expires) {
			alive++
		}
	}
	if alive >= t.max {
		return unix.ENOSPC
	}
	if len(t.entries) >= 2*t.max {
		t.entries = t.entries[1:] // the oldest is one that has expired
	}
	t.entries = append(t.entries, entry{h, now.Add(t.lifetime)})
	return nil
}

// take removes a hash. It returns EPERM when it is not there, ETIMEDOUT when
// it was but has expired. The time it takes does not depend on how much of
// the hash agrees with one in the table.
func (t *table) take(h capproto.Hash, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(now)
	found := -1
	for i, e := range t.entries {
		if h.Equal(e.hash) {
			found = i
		}
	}
	if found < 0 {
		return unix.EPERM
	}
	expires := t.entries[found].expires
	t.entries = append(t.entries[:found], t.entries[found+1:]...)
	if !now.Before(expires) {
		return unix.ETIMEDOUT
	}
	return nil
}

// forget drops the entries that expired a lifetime ago.
func (t *table) forget(now time.Time) {
	i := 0
	for i < len(t.entries) && now.After(t.entries[i].expires.Add(t.lifetime)) {
		i++
	}
	t.entries = t.entries[i:]
}
