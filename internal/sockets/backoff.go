package sockets

import "time"

// A Backoff waits longer and longer while accept(2) fails, for instance with EMFILE, so
// that whoever accepts does not spin. Its zero value is ready.
type Backoff struct{ d time.Duration }

// maxBackoff is what sshd waits where it has no descriptor left.
const maxBackoff = 100 * time.Millisecond

// Wait waits after accept has failed. It says whether that is the first time since Reset.
func (b *Backoff) Wait() (first bool) {
	first = b.d == 0
	b.d = max(5*time.Millisecond, min(2*b.d, maxBackoff))
	time.Sleep(b.d)
	return first
}

// Reset says that accept has worked.
func (b *Backoff) Reset() { b.d = 0 }
