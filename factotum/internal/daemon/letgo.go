package daemon

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/sys"
)

const (
	// closeTime is after what time a close(2) counts as one that waits.
	closeTime = 100 * time.Millisecond
	// maxWaiting is how many may wait, each of which keeps a thread. From then on a child
	// closes, which waits for nothing, but takes a fork(2) of factotum.
	maxWaiting = 4
)

// A letGo closes the connections of those with whom factotum does not talk. They may have
// sent what nobody reads, with descriptors that take hours to close, and whoever accepts
// connections must not wait for that.
type letGo struct {
	fds     chan int // one goroutine takes from it that does not wait
	waiting atomic.Int32
}

// startLetGo starts the goroutine that does so.
func startLetGo() *letGo {
	l := &letGo{fds: make(chan int, sys.MaxLetGo)}
	go l.closeEach()
	return l
}

// closeEach closes descriptors. Where one takes long, another goroutine goes on in its place.
func (l *letGo) closeEach() {
	for fd := range l.fds {
		late := time.AfterFunc(closeTime, func() {
			if l.waiting.Add(1) < maxWaiting {
				l.closeEach()
			} else {
				l.closeByChildren()
			}
		})
		unix.Close(fd)
		if !late.Stop() {
			l.waiting.Add(-1)
			return
		}
	}
}

// closeByChildren closes descriptors, those that are there by one child, until fewer wait.
func (l *letGo) closeByChildren() {
	for fd := range l.fds {
		fds := []int{fd}
		for len(l.fds) > 0 && len(fds) < sys.MaxLetGo {
			fds = append(fds, <-l.fds)
		}
		if sys.LetGo(fds) != nil {
			go func() { // there is no process to be had: at worst this keeps a thread
				for _, fd := range fds {
					unix.Close(fd)
				}
			}()
		}
		if l.waiting.Load() < maxWaiting {
			l.closeEach()
			return
		}
	}
}

// wire closes a wire.
func (l *letGo) wire(w wire) {
	c, ok := w.(*capproto.Conn)
	if !ok {
		w.Close()
		return
	}
	fd, err := -1, error(nil)
	if raw, e := c.Socket().SyscallConn(); e == nil {
		raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) })
	}
	if fd < 0 || err != nil {
		go c.Close()
		return
	}
	c.Close() // at once, as this is not the last descriptor
	l.fds <- fd
}
