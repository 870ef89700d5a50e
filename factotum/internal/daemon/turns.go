package daemon

import (
	"sync"
	"time"

	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/logindefs"
)

// turns let each calling uid have one proof judged at a time: whoever guesses the
// passwords of others gets no more guesses by more conversations. After a wrong proof
// the next one of that uid has to wait. The zero value is ready.
type turns struct {
	mu sync.Mutex
	of map[uint32]*queue
}

// A queue is those of one uid who wait for their turn, with who has it.
type queue struct {
	free chan struct{}
	n    int
}

// A turn is a place in a queue. The nil turn is none.
type turn struct {
	all  *turns
	uid  uint32
	q    *queue
	once sync.Once
}

// enter enters the queue of a uid: the turn is had once a value comes from q.free.
func (t *turns) enter(uid uint32) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.of[uid]
	if q == nil {
		if t.of == nil {
			t.of = map[uint32]*queue{}
		}
		q = &queue{free: make(chan struct{}, 1)}
		q.free <- struct{}{}
		t.of[uid] = q
	}
	q.n++
	return &turn{all: t, uid: uid, q: q}
}

// leave leaves the queue without having had the turn.
func (x *turn) leave() {
	x.once.Do(x.forget)
}

// end ends the turn. The next one comes after the time.
func (x *turn) end(after time.Duration) {
	if x == nil {
		return
	}
	x.once.Do(func() {
		time.AfterFunc(after, func() {
			x.q.free <- struct{}{}
			x.forget()
		})
	})
}

func (x *turn) forget() {
	x.all.mu.Lock()
	defer x.all.mu.Unlock()
	if x.q.n--; x.q.n == 0 {
		delete(x.all.of, x.uid)
	}
}

// takeTurn waits for the turn of the caller, before an answer goes to the worker.
func (c *conversation) takeTurn() error {
	x := c.turns.enter(c.sender.Uid)
	select {
	case <-x.q.free:
		c.turn = x
		return nil
	case <-c.grace.C:
		x.leave()
		return errGrace
	case err := <-c.gone:
		x.leave()
		return err
	}
}

// judged ends the turn when the worker has said something, late if that is a no.
func (c *conversation) judged(e pamwire.Event) error {
	x := c.turn
	if x == nil {
		return nil
	}
	if p, ok := e.(pamwire.Prompt); ok && !p.Style.Question() {
		return nil // what a module says before its verdict
	}
	if _, no := e.(pamwire.Refused); !no {
		c.turn = nil
		x.end(0)
		return nil
	}
	// The person waits as long as the next one. Who does not, leaves that to end.
	timer := time.NewTimer(failDelay())
	defer timer.Stop()
	select {
	case <-timer.C:
		c.turn = nil
		x.end(0)
		return nil
	case err := <-c.gone:
		return err
	}
}

// unjudged is how long a turn lasts in which somebody has left before the verdict:
// as long as that would have taken, and more.
const unjudged = 5 * time.Second

// failDelay is how long who was refused waits: FAIL_DELAY of login.defs(5).
func failDelay() time.Duration {
	d, err := logindefs.Read(logindefs.Path)
	if err != nil {
		return unjudged
	}
	return time.Duration(min(max(d.Int("FAIL_DELAY", 1), 1), 10)) * time.Second
}
