package sshauth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Delays says how long the refusal of a key or a password takes. Whether a user exists
// must not be read off it: factotum looks into files only for a user who does, and a PAM
// module that knows no such user may compute no hash. As in
// sshd, a refusal takes at least a time that depends on the user's name and a
// secret, and where the work took longer, twice that, or four times
// (ensure_minimum_time_since in OpenSSH's auth2.c).
type Delays struct{ secret [32]byte }

// NewDelays takes 32 random bytes, made anew at each start.
func NewDelays(secret [32]byte) Delays { return Delays{secret} }

const (
	minRefusal = 5 * time.Millisecond
	maxSpread  = 4200 * time.Microsecond
	maxRefusal = 5 * time.Second // work that takes longer tells nothing worth hiding
)

// Least is the least time for a refusal of that user.
func (d Delays) Least(user string) time.Duration {
	m := hmac.New(sha256.New, d.secret[:])
	m.Write([]byte(user))
	n := binary.LittleEndian.Uint32(m.Sum(nil))
	return minRefusal + time.Duration(uint64(maxSpread)*uint64(n)>>32)
}

// Rest is how long a refusal of that user has to wait after the work.
func (d Delays) Rest(user string, worked time.Duration) time.Duration {
	return rest(d.Least(user), worked)
}

func rest(least, worked time.Duration) time.Duration {
	if worked > maxRefusal {
		return 0
	}
	for least < worked {
		least *= 2
	}
	return least - worked
}
