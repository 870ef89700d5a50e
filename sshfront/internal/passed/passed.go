// Package passed reads and writes descriptors that another process has passed:
// pipes, terminals and sockets in non-blocking mode. It waits for them by ppoll(2),
// and not by the runtime's epoll descriptor.
//
// The kernel counts the watches of epoll descriptors for all processes of a uid
// together (/proc/sys/fs/epoll/max_user_watches), and a watch lasts as long as the
// file is open anywhere. Whoever passes files, and has them watched, could use up
// the watches of all connections, so the sandbox lets a connection process add none.
// What ppoll watches is its own, and is gone when it returns.
//
// The client's socket is read and written so, too, after the login (NewOwn): what waits
// in one place for both ends of a session needs no second thread.
package passed

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"p9auth/internal/sys"
)

// A File is a descriptor in non-blocking mode.
type File struct {
	own bool // see NewOwn
	f   conn
	rc  syscall.RawConn
	err error // of New

	mu     sync.Mutex
	closed bool
	halted [2]bool   // by direction
	dry    bool      // the last read took all that was there; its reader's
	waits  [2]waiter // by direction: one goroutine reads, and one writes
}

// A conn is an *os.File, or a connection of package net.
type conn interface {
	SyscallConn() (syscall.RawConn, error)
	Close() error
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
func New(f conn) *File {
	p := &File{f: f}
	for d := range p.waits {
		p.waits[d] = waiter{events: events[d], ready: make(chan struct{}, 1)}
	}
	if p.err = Prepare(); p.err == nil {
		p.rc, p.err = f.SyscallConn()
	}
	return p
}

// NewOwn makes a File of a descriptor that nobody else can have set to blocking mode.
// Go's scheduler hears of no system call with it, which would else look after each
// whether it waits.
func NewOwn(f conn) *File {
	p := New(f)
	p.own = true
	return p
}

// ReadNow reads what is there. The error is EAGAIN if nothing is, and
// os.ErrDeadlineExceeded after HaltReads.
func (p *File) ReadNow(b []byte) (int, error) {
	n, err := p.now(reading, b)
	p.dry = n < len(b)
	return n, err
}

// WaitToRead waits until ReadNow may find something, or until HaltReads or Close.
func (p *File) WaitToRead() { p.wait(reading) }

// WaitIfDry is WaitToRead if the last read took all that was there, so that another
// would find nothing.
func (p *File) WaitIfDry() {
	if p.dry {
		p.wait(reading)
	}
}

// Read reads what is there, and waits until something is. At the end it returns 0 and no
// error, as read(2) does.
func (p *File) Read(b []byte) (int, error) {
	p.WaitIfDry()
	for {
		n, err := p.ReadNow(b)
		if err != unix.EAGAIN {
			return n, err
		}
		p.WaitToRead()
	}
}

// Write writes all of b, unless an error comes or HaltWrites, which makes it
// os.ErrDeadlineExceeded.
func (p *File) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := p.now(writing, b[done:])
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

// EndOfReads reports whether an error of Read says no more than that nobody is at the other
// end, or that the File is halted or closed. A terminal whose other end nobody has open says
// EIO when there is nothing more to read, and hangs up for poll(2).
func (p *File) EndOfReads(err error) bool {
	return isEnd(err) || errors.Is(err, unix.EIO) && p.poll()&(unix.POLLIN|unix.POLLHUP) == unix.POLLHUP
}

// EndOfWrites is EndOfReads for an error of Write.
func (p *File) EndOfWrites(err error) bool {
	return isEnd(err) || errors.Is(err, unix.EIO) && p.poll()&unix.POLLHUP != 0
}

func isEnd(err error) bool {
	for _, e := range []error{os.ErrClosed, os.ErrDeadlineExceeded, unix.EPIPE, unix.ECONNRESET} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// poll is what poll(2) says at once. A File that is closed has hung up.
func (p *File) poll() int16 {
	fds := [1]unix.PollFd{{Events: unix.POLLIN}}
	if p.rc.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		sys.Again(func() error { _, err := unix.Ppoll(fds[:], &unix.Timespec{}, nil); return err })
	}) != nil {
		return unix.POLLHUP
	}
	return fds[0].Revents
}

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

// calls lets one system call at a time be made, however many files there are that were
// passed: each that is interrupted takes a thread, of which a sandboxed process can make
// no more.
var calls sync.Mutex

// now makes one system call.
func (p *File) now(d direction, b []byte) (n int, err error) {
	if p.err != nil {
		return 0, p.err
	}
	p.mu.Lock()
	halted := p.halted[d]
	p.mu.Unlock()
	if halted {
		return 0, os.ErrDeadlineExceeded
	}
	if !p.own {
		calls.Lock()
		defer calls.Unlock()
	}
	if e := p.rc.Control(func(fd uintptr) {
		for {
			switch {
			case p.own:
				n, err = raw(traps[d], fd, b)
			case d == reading:
				n, err = unix.Read(int(fd), b)
			default:
				n, err = unix.Write(int(fd), b)
			}
			if err != unix.EINTR {
				return
			}
		}
	}); e != nil {
		return 0, os.ErrClosed
	}
	return max(n, 0), err
}

// traps are system calls, by direction.
var traps = [2]uintptr{unix.SYS_READ, unix.SYS_WRITE}

// raw makes a system call that does not wait.
func raw(trap, fd uintptr, b []byte) (int, error) {
	n, _, e := unix.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
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
	for d := range p.waits {
		thePoller.forget(&p.waits[d])
	}
}

// wait waits until a call may do more than before.
func (p *File) wait(d direction) {
	p.mu.Lock()
	if p.err != nil || p.closed || p.halted[d] {
		p.mu.Unlock()
		return
	}
	w := &p.waits[d]
	if p.rc.Control(func(fd uintptr) { thePoller.add(w, int32(fd)) }) != nil {
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	<-w.ready
}

// Prepare makes what the package needs of the kernel. A process calls it before it
// enters a sandbox that lets it make no descriptor. Others need not call it.
func Prepare() error { return thePoller.prepare() }

// A poller waits for all files of the process.
type poller struct {
	made, begun sync.Once
	err         error // of prepare
	r, w        int   // a pipe that interrupts ppoll

	mu      sync.Mutex
	waits   []*waiter
	polling bool // ppoll waits for those that were in waits when it began
}

// A waiter waits for one event of one descriptor, for one goroutine at a time.
type waiter struct {
	fd     int32
	events int16
	ready  chan struct{} // has one when the poller has forgotten it
	place  int           // in the poller's waits, from 1 on; 0 if it is not there
}

var thePoller poller

func (p *poller) prepare() error {
	p.made.Do(func() {
		var fds [2]int
		if p.err = unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); p.err != nil {
			p.err = fmt.Errorf("pipe: %w", p.err)
			return
		}
		p.r, p.w = fds[0], fds[1]
	})
	return p.err
}

// add has the poller wait for w, too, at that descriptor.
func (p *poller) add(w *waiter, fd int32) {
	p.begun.Do(func() { go p.run() })
	p.mu.Lock()
	defer p.mu.Unlock()
	w.fd = fd
	p.waits = append(p.waits, w)
	w.place = len(p.waits)
	p.interrupt()
}

// interrupt has ppoll return and begin again, if it waits. A pipe that is full does
// it, too.
func (p *poller) interrupt() {
	if p.polling {
		sys.Again(func() error { _, err := unix.Write(p.w, []byte{0}); return err })
	}
}

// forget has whoever waits for w go on. ppoll holds the files that it waits for, and
// a terminal that is held does not hang up.
func (p *poller) forget(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.remove(w) {
		p.interrupt()
	}
}

// remove reports whether anybody waited.
func (p *poller) remove(w *waiter) bool {
	if w.place == 0 {
		return false
	}
	last := len(p.waits) - 1
	p.waits[w.place-1] = p.waits[last]
	p.waits[last].place = w.place
	p.waits[last] = nil
	p.waits = p.waits[:last]
	w.place = 0
	w.ready <- struct{}{}
	return true
}

const (
	// shortly is how long ppoll waits after something has happened. A garbage
	// collection may begin in the very moment in which ppoll does, and wait for it:
	// see sys.BoundStops. In a process that has been idle for so long none begins.
	shortly = 20 * time.Millisecond
	// busyAfter is after how many waits in a row, each of them short, the process is
	// busy, and briefly how long it then waits without a word to Go's scheduler.
	busyAfter = 64
	briefly   = 5 * time.Millisecond
)

// run is the goroutine that waits. Of descriptors that were closed meanwhile the
// kernel says so, and of one that has got the number of another, somebody looks in
// vain.
//
// If Go's scheduler knows of a wait, its monitor thread takes the processor away from
// it, for others, and each wait costs some futexes. Where data flow it is over before
// it would be worth that, and all that could have been done was done before it began.
// What comes meanwhile from elsewhere, such as a timer, comes briefly later.
func (p *poller) run() {
	var fds []unix.PollFd
	var waits []*waiter
	var drain [64]byte
	inRow := 0 // short waits
	for timeout := shortly; ; {
		// Who was woken finds nothing more, mostly, and waits again before ppoll begins,
		// which need not be interrupted for it then. Of every 61 times that the scheduler
		// chooses, it chooses once without regard to who has waited for longest.
		runtime.Gosched()
		if inRow >= busyAfter {
			timeout = briefly
			runtime.Gosched()
		}
		p.mu.Lock()
		waits = append(waits[:0], p.waits...)
		fds = append(fds[:0], unix.PollFd{Fd: int32(p.r), Events: unix.POLLIN})
		for _, w := range waits {
			fds = append(fds, unix.PollFd{Fd: w.fd, Events: w.events})
		}
		p.polling = true
		p.mu.Unlock()
		n, err := ppoll(fds, timeout)
		p.mu.Lock()
		p.polling = false
		for i, w := range waits {
			if n > 0 && fds[i+1].Revents != 0 {
				p.remove(w)
			}
		}
		p.mu.Unlock()
		if n > 0 && fds[0].Revents != 0 {
			unix.Read(p.r, drain[:])
		}
		switch {
		case n > 0 && timeout != forever:
			inRow++
		case n == 0 && err == nil && timeout == shortly:
			inRow, timeout = 0, forever
			clear(waits)
			continue
		default:
			inRow = 0
		}
		timeout = shortly
		clear(waits)
	}
}

// forever is a time for ppoll, as for poll(2).
const forever = -1

// ppoll waits for a time. The kernel writes what is left of it where it found it.
func ppoll(fds []unix.PollFd, timeout time.Duration) (int, error) {
	if timeout == forever {
		return unix.Ppoll(fds, nil, nil)
	}
	t := unix.NsecToTimespec(int64(timeout))
	if timeout != briefly {
		return unix.Ppoll(fds, &t, nil)
	}
	n, _, e := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(&t)), 0, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
