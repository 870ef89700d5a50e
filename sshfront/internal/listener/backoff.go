package listener

import "time"

// A backoff waits longer and longer while accept(2) fails, for instance with
// EMFILE, so that the listener does not spin.
type backoff struct{ d time.Duration }

const maxBackoff = time.Second

func (b *backoff) wait() (first bool) {
	first = b.d == 0
	b.d = max(5*time.Millisecond, min(2*b.d, maxBackoff))
	time.Sleep(b.d)
	return first
}

func (b *backoff) reset() { b.d = 0 }
