package loglimit

import (
	"testing"
	"time"
)

func TestOneUserFillsNothingAndHidesNobody(t *testing.T) {
	var l Limiter
	now := time.Unix(1000, 0)
	logged := 0
	for range 1000 {
		if ok, _ := l.Allow(1, now); ok {
			logged++
		}
	}
	if logged != PerUID {
		t.Errorf("%d lines of one user", logged)
	}
	if ok, dropped := l.Allow(2, now); !ok || dropped != 1000-PerUID {
		t.Errorf("another's line: %v, %d dropped before", ok, dropped)
	}
	if ok, dropped := l.Allow(1, now.Add(time.Second)); !ok || dropped != 0 {
		t.Errorf("a second later: %v, %d", ok, dropped)
	}
}

func TestALimiterMayHaveLimitsOfItsOwn(t *testing.T) {
	l := Limiter{PerUID: 30, InAll: 40}
	for uid, want := range []int{30, 10, 0} {
		logged := 0
		for range 100 {
			if ok, _ := l.Allow(uint32(uid), time.Unix(1000, 0)); ok {
				logged++
			}
		}
		if logged != want {
			t.Errorf("%d lines of user %d", logged, uid)
		}
	}
}

func TestManyUsersFillNothing(t *testing.T) {
	var l Limiter
	logged := 0
	for uid := range uint32(10000) {
		if ok, _ := l.Allow(uid, time.Unix(1000, 0)); ok {
			logged++
		}
	}
	if logged != InAll {
		t.Errorf("%d lines", logged)
	}
}
