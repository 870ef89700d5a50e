package sys

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAStopOfTheWorldIsShort stops the world while other goroutines begin to wait in a
// system call. Without BoundStops about one stop in fifty thousand lasts for a minute, so
// that about every second run of the test meets one.
func TestAStopOfTheWorldIsShort(t *testing.T) {
	const rounds, stops, readers = 12000, 8, 6
	worst := time.Duration(0)
	for range rounds {
		var waiting sync.WaitGroup
		var pipes [readers][2]int
		for i := range pipes {
			if err := unix.Pipe2(pipes[i][:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			waiting.Go(func() { unix.Read(pipes[i][0], make([]byte, 1)) })
		}
		done := BoundStops()
		for range stops {
			start := time.Now()
			runtime.ReadMemStats(new(runtime.MemStats))
			worst = max(worst, time.Since(start))
		}
		done()
		for i := range pipes {
			unix.Close(pipes[i][1])
		}
		waiting.Wait()
		for i := range pipes {
			unix.Close(pipes[i][0])
		}
	}
	t.Logf("%d stops, the longest %v", rounds*stops, worst)
	if worst > 20*time.Second { // a stop that is met lasts for 60 s
		t.Errorf("a stop of the world lasted for %v", worst)
	}
}
