package sshauth

import (
	"testing"
	"time"
)

func TestARefusalTakesATimeThatTheUserNameDecides(t *testing.T) {
	delays := NewDelays([32]byte{1, 2, 3})
	differ := false
	for _, user := range []string{"alice", "bob", "root", "", "nobody-of-that-name"} {
		d := delays.Least(user)
		if d < minRefusal || d > minRefusal+maxSpread || d != delays.Least(user) || d != delays.Rest(user, 0) {
			t.Errorf("%s: %v, then %v", user, d, delays.Least(user))
		}
		if d == NewDelays([32]byte{3, 2, 1}).Least(user) {
			t.Errorf("%s: the secret does not matter", user)
		}
		differ = differ || d != delays.Least("alice")
	}
	if !differ {
		t.Error("it is the same for all")
	}
	const ms = time.Millisecond
	for _, c := range []struct{ least, worked, want time.Duration }{
		{5 * ms, 0, 5 * ms}, {5 * ms, 1 * ms, 4 * ms}, {5 * ms, 5 * ms, 0}, {5 * ms, 6 * ms, 4 * ms},
		{5 * ms, 21 * ms, 19 * ms}, {5 * ms, 6 * time.Second, 0},
	} {
		if got := rest(c.least, c.worked); got != c.want {
			t.Errorf("at least %v, after %v: %v, want %v", c.least, c.worked, got, c.want)
		}
	}
}
