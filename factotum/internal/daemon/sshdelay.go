package daemon

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Whether a user exists must not be read off how long it takes to refuse a key:
// only for a user who does are files looked into. As sshd does it, a refusal
// takes at least a time that depends on the user's name and a secret, and where
// the work took longer, twice that, or four times.

// delaySecret is made anew at each start.
var delaySecret = func() (s [32]byte) {
	rand.Read(s[:])
	return s
}()

const (
	minRefusal = 5 * time.Millisecond
	maxSpread  = 4200 * time.Microsecond
	maxRefusal = 5 * time.Second // what takes longer tells nothing worth hiding
)

// refusalTime is the least time for a refusal of that user.
func refusalTime(user string) time.Duration {
	m := hmac.New(sha256.New, delaySecret[:])
	m.Write([]byte(user))
	n := binary.LittleEndian.Uint32(m.Sum(nil))
	return minRefusal + time.Duration(uint64(maxSpread)*uint64(n)>>32)
}

// stillToWait is how long a refusal has to wait after the work.
func stillToWait(least, worked time.Duration) time.Duration {
	if worked > maxRefusal {
		return 0
	}
	for least < worked {
		least *= 2
	}
	return least - worked
}
