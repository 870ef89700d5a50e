package daemon

import (
	"os"

	"p9auth/factotum/internal/pamwire"
)

// A Worker authenticates for one conversation, opens one session and belongs to
// it from then on. workerProc is the one that runs PAM; a test has others.
type Worker interface {
	// Tell sends a request. It does not wait for the answer, which is an event.
	Tell(pamwire.Request) error
	// Signal has a signal sent to the process of a pidfd.
	Signal(number int, pidfd *os.File) error
	// Open has the PAM session opened for the process that leads it. The session
	// is the worker's from then on, also when Open fails: it ends it.
	Open(*session) error
	// Events has what the worker says. It is closed when the worker has ended.
	Events() <-chan pamwire.Event
	// Abandon ends a worker that nobody needs any more. One that has a session
	// open closes it when the session's process ends.
	Abandon()
	// PID is the worker's process, for the log.
	PID() int
}

// discard hears a worker out whom nobody listens to. A terminal that comes along is closed.
func discard(events <-chan pamwire.Event) {
	for e := range events {
		if b, ok := e.(pamwire.Begun); ok && b.TTY != nil {
			b.TTY.Close()
		}
	}
}

// dropFresh closes the terminal's descriptor that no reply has taken along.
func (c *conversation) dropFresh() {
	if f := c.fresh; f != nil {
		c.fresh = nil
		c.leaving.Go(func() { f.Close() }) // as in reply
	}
}
