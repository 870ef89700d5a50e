package sockets

import (
	"testing"
	"time"
)

// TestABackoffGrowsToItsBoundAndSaysOnceThatAcceptFails until accept has worked.
func TestABackoffGrowsToItsBoundAndSaysOnceThatAcceptFails(t *testing.T) {
	var b Backoff
	for row := range 2 {
		for i := range 7 { // 5, 10, 20, 40, 80, 100, 100 ms
			if first := b.Wait(); first != (i == 0) {
				t.Errorf("row %d, wait %d: first is %v", row, i, first)
			}
		}
		if b.d != maxBackoff {
			t.Errorf("row %d: the last wait took %v, not %v", row, b.d, maxBackoff)
		}
		b.Reset()
	}
	if began := time.Now(); b.Wait() && time.Since(began) < 5*time.Millisecond {
		t.Error("it does not wait")
	}
}
