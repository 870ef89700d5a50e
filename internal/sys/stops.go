package sys

import "time"

// The stops of the world that a program asks for itself (syscall.AllThreadsSyscall,
// syscall.Setresuid, runtime.GOMAXPROCS) come while it starts, and are over long
// before stopsWithin.
const (
	stopsWithin = 2 * time.Second
	stopsEvery  = 100 * time.Millisecond
)

// BoundStops keeps a stop of the world from lasting a minute; it is over within a
// tenth of a second until the function that BoundStops returns is called.
//
// Go 1.26 does not see a goroutine that begins a system call in the very moment in
// which another one stops the world (runtime/proc.go: reentersyscall looks at
// gcwaiting before it says that it is in a system call, and stopTheWorldWithSema looks
// once). The stop then waits for the system call to end, which may be a read that
// nobody answers, or for the runtime's monitor thread, which sleeps for up to a minute,
// but not past the next timer. About one start in a few thousand met this.
func BoundStops() (done func()) {
	var timers []*time.Timer
	for after := stopsEvery; after <= stopsWithin; after += stopsEvery {
		timers = append(timers, time.AfterFunc(after, func() {}))
	}
	return func() {
		for _, t := range timers {
			t.Stop()
		}
	}
}
