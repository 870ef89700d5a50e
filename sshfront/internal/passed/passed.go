// Package passed reads and writes descriptors that another process has passed:
// pipes, terminals and sockets in non-blocking mode. It waits for them by ppoll(2),
// and not by the runtime's epoll descriptor.
//
// The kernel counts the watches of epoll descriptors for all processes of a uid
// together (/proc/sys/fs/epoll/max_user_watches), and a watch lasts as long as the
// file is open anywhere. Whoever passes files, and has them watched, could use up
// the watches of all connections, so the sandbox lets a connection process add none.
// What ppoll watches is its own, and is gone when it returns.
package passed

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A File is a descriptor in non-blocking mode.
type File struct {
	f   *os.File
	rc  syscall.RawConn
	err error // of New

	mu     sync.Mutex
	closed bool
	halted [2]bool              // by direction
	waits  map[*waiter]struct{} // who waits for it
}

// A direction is that in which data goes.
type direction int

const (
	reading direction = iota
	writing
)

var events = [2]int16{unix.POLLIN, unix.POLLOUT}

// New makes a File of f, which is closed by it, or by its owner when nobody uses
// the File any longer.
func New(f *os.File) *File {
	p := &File{f: f, waits: map[*waiter]struct{}{}}
	if p.err = Start(); p.err == nil {
		p.rc, p.err = f.SyscallConn()
	}
	return p
}

// ReadNow reads what is there. The error is EAGAIN if nothing is, and
// os.ErrDeadlineExceeded after HaltReads.
func (p *File) ReadNow(b []byte) (int, error) { return p.now(reading, unix.Read, b) }

// WaitToRead waits until ReadNow may find something, or until HaltReads or Close.
func (p *File) WaitToRead() { p.wait(reading) }

// Write writes all of b, unless an error comes or HaltWrites, which makes it
// os.ErrDeadlineExceeded.
func (p *File) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := p.now(writing, unix.Write, b[done:])
		if err == unix.EAGAIN {
			p.wait(writing)
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// HaltReads has reads fail, those that wait included, until ResumeReads.
func (p *File) HaltReads() { p.halt(reading, true) }

// ResumeReads ends what HaltReads began.
func (p *File) ResumeReads() { p.halt(reading, false) }

// HaltWrites has writes fail, those that wait included.
func (p *File) HaltWrites() { p.halt(writing, true) }

// ShutdownWrites ends the sending half of a socket.
func (p *File) ShutdownWrites() {
	if p.err == nil {
		p.rc.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_WR) })
	}
}

// Close closes the descriptor. Whoever waits for it gets an error.
func (p *File) Close() error {
	p.mu.Lock()
	p.closed = true
	p.wake()
	p.mu.Unlock()
	return p.f.Close()
}

// now makes one system call.
func (p *File) now(d direction, call func(int, []byte) (int, error), b []byte) (n int, err error) {
	if p.err != nil {
		return 0, p.err
	}
	p.mu.Lock()
	halted := p.halted[d]
	p.mu.Unlock()
	if halted {
		return 0, os.ErrDeadlineExceeded
	}
	if e := p.rc.Control(func(fd uintptr) {
		for {
			if n, err = call(int(fd), b); err != unix.EINTR {
				return
			}
		}
	}); e != nil {
		return 0, os.ErrClosed
	}
	return max(n, 0), err
}

func (p *File) halt(d direction, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.halted[d] = on
	if on {
		p.wake()
	}
}

// wake wakes whoever waits for the file, in either direction: they look again.
func (p *File) wake() {
	for w := range p.waits {
		thePoller.forget(w)
	}
	if len(p.waits) > 0 {
		thePoller.interrupt() // ppoll holds what it waits for: a terminal would not hang up
	}
}

// wait waits until a call may do more than before.
func (p *File) wait(d direction) {
	p.mu.Lock()
	if p.err != nil || p.closed || p.halted[d] {
		p.mu.Unlock()
		return
	}
	w := &waiter{events: events[d], ready: make(chan struct{})}
	if p.rc.Control(func(fd uintptr) { w.fd = int32(fd) }) != nil {
		p.mu.Unlock()
		return
	}
	p.waits[w] = struct{}{}
	thePoller.add(w)
	p.mu.Unlock()
	<-w.ready
	p.mu.Lock()
	delete(p.waits, w)
	p.mu.Unlock()
}

// Start makes what the package needs of the kernel. A sandboxed process calls it
// before it enters the sandbox. Others need not call it.
func Start() error { return thePoller.start() }

// A poller waits for all files of the process.
type poller struct {
	once sync.Once
	err  error
	r, w int // a pipe that interrupts ppoll

	mu    sync.Mutex
	waits map[*waiter]struct{}
}

// A waiter waits for one event of one descriptor.
type waiter struct {
	fd     int32
	events int16
	ready  chan struct{} // closed when the poller has forgotten it
}

var thePoller = poller{waits: map[*waiter]struct{}{}}

func (p *poller) start() error {
	p.once.Do(func() {
		var fds [2]int
		if p.err = unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); p.err != nil {
			p.err = fmt.Errorf("pipe: %w", p.err)
			return
		}
		p.r, p.w = fds[0], fds[1]
		go p.run()
	})
	return p.err
}

// add has the poller wait for w, too.
func (p *poller) add(w *waiter) {
	p.mu.Lock()
	p.waits[w] = struct{}{}
	p.mu.Unlock()
	p.interrupt()
}

// interrupt has ppoll return and begin again. A pipe that is full does it, too.
func (p *poller) interrupt() { unix.Write(p.w, []byte{0}) }

// forget has whoever waits for w go on.
func (p *poller) forget(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.waits[w]; ok {
		delete(p.waits, w)
		close(w.ready)
	}
}

// run is the goroutine that waits. Of descriptors that were closed meanwhile the
// kernel says so, and of one that has got the number of another, somebody looks in
// vain.
func (p *poller) run() {
	var fds []unix.PollFd
	var waits []*waiter
	var drain [64]byte
	for {
		fds = append(fds[:0], unix.PollFd{Fd: int32(p.r), Events: unix.POLLIN})
		waits = append(waits[:0], nil)
		p.mu.Lock()
		for w := range p.waits {
			fds = append(fds, unix.PollFd{Fd: w.fd, Events: w.events})
			waits = append(waits, w)
		}
		p.mu.Unlock()
		if _, err := unix.Ppoll(fds, nil, nil); err != nil {
			continue // EINTR
		}
		if fds[0].Revents != 0 {
			unix.Read(p.r, drain[:])
		}
		for i, w := range waits {
			if i > 0 && fds[i].Revents != 0 {
				p.forget(w)
			}
		}
		clear(waits)
	}
}
