// Package loglimit limits the log lines about processes that a daemon turns away.
// Any user of the machine can cause such lines: they must not fill the log, nor
// keep lines about other users out of it.
package loglimit

import (
	"cmp"
	"sync"
	"time"
)

// How many lines a second are logged of one user, and of all together, unless a
// Limiter says otherwise.
const (
	PerUID = 20
	InAll  = 200
)

// A Limiter counts lines. Its zero value is ready.
type Limiter struct {
	PerUID, InAll int // 0: the constants of that name

	mu      sync.Mutex
	second  time.Time
	n       map[uint32]int // lines in this second, by uid
	all     int
	dropped int
}

// Allow reports whether a line about a user may be logged now, and if so, how many
// lines were left out since the last one that was logged.
func (l *Limiter) Allow(uid uint32, now time.Time) (ok bool, dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Truncate(time.Second); l.n == nil || !s.Equal(l.second) {
		l.second, l.n, l.all = s, map[uint32]int{}, 0
	}
	if l.all >= cmp.Or(l.InAll, InAll) || l.n[uid] >= cmp.Or(l.PerUID, PerUID) {
		l.dropped++
		return false, 0
	}
	l.n[uid]++
	l.all++
	dropped, l.dropped = l.dropped, 0
	return true, dropped
}
