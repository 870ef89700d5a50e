// Package loglimit keeps those whom a daemon turns away, which may be anybody
// on the machine, from filling its log, and from keeping others' lines out of
// it.
package loglimit

import (
	"sync"
	"time"
)

// How many lines a second are logged of one user, and of all together.
const (
	PerUID = 20
	InAll  = 200
)

// A Limiter counts lines. Its zero value is ready.
type Limiter struct {
	mu      sync.Mutex
	second  time.Time
	n       map[uint32]int // lines in this second, by uid
	all     int
	dropped int
}

// Allow says whether a line about a user may be logged now, and with yes how
// many lines could not since the last that was.
func (l *Limiter) Allow(uid uint32, now time.Time) (ok bool, dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Truncate(time.Second); l.n == nil || !s.Equal(l.second) {
		l.second, l.n, l.all = s, map[uint32]int{}, 0
	}
	if l.all >= InAll || l.n[uid] >= PerUID {
		l.dropped++
		return false, 0
	}
	l.n[uid]++
	l.all++
	dropped, l.dropped = l.dropped, 0
	return true, dropped
}
