package capfs

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/becomerecord"
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
	bound   *becomerecord.Record // what it is bound to, or nil
}

// add stores a hash. It returns ENOSPC when max hashes are alive, EEXIST when
// this one is there, as it would work twice then.
func (t *table) add(h capproto.Hash, bound *becomerecord.Record, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(now)
	alive := 0
	for _, e := range t.entries {
		if h.Equal(e.hash) {
			return unix.EEXIST
		}
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
	t.entries = append(t.entries, entry{h, now.Add(t.lifetime), bound})
	return nil
}

// take removes a hash and returns what it was bound to, or nil. The error is
// EPERM when the hash is not there, ETIMEDOUT when it was but has expired. The time it takes does not depend on how much of
// the hash agrees with one in the table.
func (t *table) take(h capproto.Hash, now time.Time) (*becomerecord.Record, error) {
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
		return nil, unix.EPERM
	}
	e := t.entries[found]
	t.entries = slices.Delete(t.entries, found, found+1)
	if !now.Before(e.expires) {
		return nil, unix.ETIMEDOUT
	}
	return e.bound, nil
}

// forget drops the entries that expired a lifetime ago.
func (t *table) forget(now time.Time) {
	i := 0
	for i < len(t.entries) && now.After(t.entries[i].expires.Add(t.lifetime)) {
		i++
	}
	t.entries = t.entries[i:]
}
