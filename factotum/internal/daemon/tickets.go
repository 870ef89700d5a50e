package daemon

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/internal/proc"
)

// A ticket says that a caller has proven who they are, in a session and at a terminal:
// for a rule of doas.conf with persist. It is factotum's alone; the caller holds nothing.

// ticketLifetime is how long a ticket is good for after its last use, as with opendoas.
const ticketLifetime = 5 * time.Minute

// maxTickets bounds them, of all and of one uid.
const maxTickets, maxTicketsPerUID = 512, 16

// A ticketKey is whose a ticket is.
type ticketKey struct {
	uid    uint32
	leader int    // pid of the session's leader
	start  uint64 // when that started
	tty    uint32 // device number of the session's terminal
}

// A ticket is good while its session's leader lives.
type ticket struct {
	leader  *proc.Handle
	expires time.Duration // of the time since boot
	gone    *time.Timer
}

// tickets are all of them. The zero value is ready.
type tickets struct {
	mu sync.Mutex
	of map[ticketKey]*ticket
}

// sessionOf finds out in which session and at which terminal a caller is, from the
// kernel. It says false where there is no such thing to bind a ticket to: no terminal,
// or a leader that has ended or is in no pid namespace of ours. The handle is of the
// leader, and the caller's to close.
func sessionOf(caller *proc.Handle, uid uint32) (ticketKey, *proc.Handle, bool) {
	before, err := proc.ReadStat(caller.PID)
	if err != nil || before.Session <= 0 || before.TTY == 0 {
		return ticketKey{}, nil, false
	}
	h, err := proc.Open(before.Session)
	if err != nil {
		return ticketKey{}, nil, false
	}
	leader, err := proc.ReadStat(h.PID)
	after, err2 := proc.ReadStat(caller.PID)
	if err != nil || err2 != nil || leader.Session != h.PID || leader.TTY != before.TTY || after != before || !h.Alive() || !caller.Alive() {
		h.Close()
		return ticketKey{}, nil, false
	}
	return ticketKey{uid, h.PID, leader.Start, before.TTY}, h, true
}

// valid says whether a caller has a ticket.
func (t *tickets) valid(caller *proc.Handle, uid uint32) bool {
	key, h, ok := sessionOf(caller, uid)
	if !ok {
		return false
	}
	h.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.of[key]
	return x != nil && x.leader.Alive() && sinceBoot() < x.expires
}

// give gives a caller's session a ticket, or makes its ticket last longer. Where there
// are too many, there is none.
func (t *tickets) give(caller *proc.Handle, uid uint32) {
	key, h, ok := sessionOf(caller, uid)
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(key)
	n := 0
	for k := range t.of {
		if k.uid == uid {
			n++
		}
	}
	if len(t.of) >= maxTickets || n >= maxTicketsPerUID {
		h.Close()
		return
	}
	if t.of == nil {
		t.of = map[ticketKey]*ticket{}
	}
	x := &ticket{leader: h, expires: sinceBoot() + ticketLifetime}
	x.gone = time.AfterFunc(ticketLifetime, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.of[key] == x {
			t.remove(key)
		}
	})
	t.of[key] = x
}

// drop takes the ticket of a caller's session back (doas -L).
func (t *tickets) drop(caller *proc.Handle, uid uint32) {
	key, h, ok := sessionOf(caller, uid)
	if !ok {
		return
	}
	h.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(key)
}

// remove removes a ticket. The caller locks.
func (t *tickets) remove(key ticketKey) {
	if x := t.of[key]; x != nil {
		x.gone.Stop()
		x.leader.Close()
		delete(t.of, key)
	}
}

// sinceBoot is the time since the machine has started, with what it has slept.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 1<<63 - 1 // each ticket has expired
	}
	return time.Duration(ts.Nano())
}
