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
