package daemon

import (
	"testing"
	"time"
)

func TestARefusalTakesATimeThatTheUserNameDecides(t *testing.T) {
	differ := false
	for _, user := range []string{"alice", "bob", "root", "", "nobody-of-that-name"} {
		d := refusalTime(user)
		if d < minRefusal || d > minRefusal+maxSpread || d != refusalTime(user) {
			t.Errorf("%s: %v, then %v", user, d, refusalTime(user))
		}
		differ = differ || d != refusalTime("alice")
	}
	if !differ {
		t.Error("it is the same for all")
	}
	const ms = time.Millisecond
	for _, c := range []struct{ least, worked, want time.Duration }{
		{5 * ms, 0, 5 * ms}, {5 * ms, 1 * ms, 4 * ms}, {5 * ms, 5 * ms, 0}, {5 * ms, 6 * ms, 4 * ms},
		{5 * ms, 21 * ms, 19 * ms}, {5 * ms, 6 * time.Second, 0},
	} {
		if got := stillToWait(c.least, c.worked); got != c.want {
			t.Errorf("at least %v, after %v: %v, want %v", c.least, c.worked, got, c.want)
		}
	}
}
