package listener

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"p9auth/internal/sshdconf"
)

// clocked is limits by a configuration, with a clock that the test sets and
// chance that is always r.
func clocked(t *testing.T, r int, lines ...string) (*limits, *time.Time) {
	t.Helper()
	c, err := sshdconf.Parse("/dev/null", lines)
	if err != nil {
		t.Fatal(err)
	}
	l := newLimits(c.Global().Listen())
	now := time.Now()
	l.now = func() time.Time { return now }
	l.random = func(int) int { return r }
	return l, &now
}

func from(s string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(s), 1000) }

var here = from("192.0.2.99")

func TestMaxStartupsDropsMoreAndMore(t *testing.T) {
	for _, c := range []struct{ r, want int }{
		{0, 10},   // the unlucky one is dropped as soon as anybody is
		{29, 10},  // the rate is 30 of 100 at 10
		{30, 13},  // and rises: 30 + 70*2/90 = 31 at 12
		{65, 57},  // 30 + 70*46/90 = 65 at 56, 66 at 57
		{99, 100}, // nobody is let in from 100 on
	} {
		l, _ := clocked(t, c.r, "MaxStartups 10:30:100")
		n := 0
		for i := range 200 {
			if _, ok := l.admit(from(fmt.Sprintf("10.0.0.%d", i)), here); !ok {
				break
			}
			n++
		}
		// Where the rate passes r lies within one connection of the
		// quotient, as sshd rounds.
		if n < c.want-1 || n > c.want+1 {
			t.Errorf("with chance %d the first drop is at %d, want %d", c.r, n, c.want)
		}
	}
}

func TestPerSourceMaxStartupsCountsNetworks(t *testing.T) {
	l, _ := clocked(t, 0, "PerSourceMaxStartups 2", "PerSourceNetBlockSize 24:64")
	a, ok1 := l.admit(from("10.0.0.1"), here)
	_, ok2 := l.admit(from("10.0.0.2"), here)
	_, ok3 := l.admit(from("10.0.0.3"), here)
	_, other := l.admit(from("10.0.1.3"), here)
	if !ok1 || !ok2 || ok3 || !other {
		t.Errorf("%v %v %v %v", ok1, ok2, ok3, other)
	}
	for i, want := range []bool{true, true, false} {
		if _, ok := l.admit(from(fmt.Sprintf("2001:db8::%d", i)), here); ok != want {
			t.Errorf("IPv6 %d: %v", i, ok)
		}
	}
	l.done(a)
	if _, ok := l.admit(from("10.0.0.4"), here); !ok {
		t.Error("a place that was given back is not free")
	}
}

func TestTheTablesAreEmptyWhenEverybodyHasLeft(t *testing.T) {
	l, now := clocked(t, 99, "PerSourcePenalties min:600")
	for i := range 50 {
		p, ok := l.admit(from(fmt.Sprintf("10.0.0.%d", i)), here)
		if !ok {
			t.Fatal(i)
		}
		// A new size of networks must not confuse what was counted before.
		l.conf.PerSourceNetBlockSize.V4 = 8 + i%24
		l.penalize(p.source.Addr(), offenceCrash)
		l.done(p)
	}
	*now = now.Add(time.Hour)
	l.penalized(here.Addr())
	if l.startups != 0 || len(l.perSource) != 0 || len(l.penalties[0].heap) != 0 || len(l.penalties[0].bySource) != 0 {
		t.Errorf("left: %+v", l)
	}
}

func TestPenaltiesAddUpAndExpire(t *testing.T) {
	l, now := clocked(t, 0, "PerSourcePenalties authfail:5 min:15 max:60")
	a := netip.MustParseAddr("10.0.0.1")
	for i := range 3 { // 15 seconds are not more than min
		l.penalize(a, offenceAuthFail)
		if got := l.penalized(a); got != "" {
			t.Errorf("after %d: %s", i+1, got)
		}
	}
	l.penalize(a, offenceAuthFail)
	if got := l.penalized(a); got != "penalty: failed authentication" {
		t.Errorf("after 20 seconds' worth: %q", got)
	}
	if got := l.penalized(netip.MustParseAddr("10.0.0.2")); got != "" {
		t.Errorf("the neighbour: %s", got)
	}
	*now = now.Add(21 * time.Second)
	if got := l.penalized(a); got != "" {
		t.Errorf("it does not expire: %s", got)
	}
	for range 1000 {
		l.penalize(a, offenceAuthFail)
	}
	*now = now.Add(61 * time.Second)
	if got := l.penalized(a); got != "" {
		t.Errorf("it is more than max: %s", got)
	}
}

func TestTheExemptHaveNoPenalty(t *testing.T) {
	l, _ := clocked(t, 0, "PerSourcePenalties crash:100", "PerSourcePenaltyExemptList 10.0.0.0/8,!10.9.0.0/16")
	for addr, want := range map[string]bool{"10.0.0.1": false, "10.9.0.1": true, "192.0.2.1": true} {
		a := netip.MustParseAddr(addr)
		l.penalize(a, offenceCrash)
		if got := l.penalized(a) != ""; got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	l, _ = clocked(t, 0, "PerSourcePenalties no")
	l.penalize(here.Addr(), offenceCrash)
	if l.penalized(here.Addr()) != "" || len(l.penalties[0].heap) > 0 {
		t.Error("there are penalties without PerSourcePenalties")
	}
}

func TestAFullPenaltyTableForgetsOrDeniesAll(t *testing.T) {
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	l, _ := clocked(t, 0, "PerSourcePenalties crash:100 authfail:50 min:1 max-sources4:10 overflow:permissive")
	l.penalize(addr(0), offenceAuthFail)
	for i := 1; i <= 10; i++ {
		l.penalize(addr(i), offenceCrash)
	}
	if n := len(l.penalties[0].heap); n != 10 || len(l.penalties[0].bySource) != 10 {
		t.Errorf("%d penalties", n)
	}
	if l.penalized(addr(0)) != "" {
		t.Error("not the one that expires first was forgotten")
	}
	if l.penalized(addr(10)) == "" {
		t.Error("the newest was forgotten")
	}

	l, now := clocked(t, 0, "PerSourcePenalties crash:100 min:1 max-sources4:10 overflow:deny-all overflow6:permissive")
	for i := range 20 {
		l.penalize(addr(i), offenceCrash)
	}
	if n := len(l.penalties[0].heap); n != 10 {
		t.Errorf("%d penalties", n)
	}
	if got := l.penalized(addr(5000)); got != "too many penalised addresses" {
		t.Errorf("a stranger: %q", got)
	}
	if got := l.penalized(netip.MustParseAddr("2001:db8::1")); got != "" {
		t.Errorf("a stranger with IPv6: %q", got)
	}
	*now = now.Add(101 * time.Second)
	if got := l.penalized(addr(5000)); got != "" {
		t.Errorf("a stranger, later: %q", got)
	}
}
