package channels

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"p9auth/sshfront/internal/passed"
)

const (
	smallBuffer = 2 << 10
	bigBuffer   = 64 << 10 // two packets of OpenSSH's client
)

var buffers = sync.Pool{New: func() any { b := make([]byte, bigBuffer); return &b }}

// An output moves what can be read from a descriptor to a channel. It holds no
// buffer while there is nothing to read.
type output struct {
	f  *passed.File
	w  io.Writer
	on func() // called for each piece that was moved

	// tty: nothing comes after the program that ended; else it may have left
	// others behind, which still write.
	tty bool

	broken error // of the read that ended run, but for the end of what there is to read

	drained chan struct{} // all that the program wrote before it ended is moved
	eof     chan struct{} // and there will be nothing else

	halt chan struct{} // closed by stop

	mu      sync.Mutex
	stopped bool
}

func newOutput(f *passed.File, w io.Writer, tty bool, on func()) *output {
	return &output{f: f, w: w, tty: tty, on: on, drained: make(chan struct{}), eof: make(chan struct{}), halt: make(chan struct{})}
}

// read reads into b's buffer, which it takes from the pool when there is
// something to read. With wait unset it returns EAGAIN if there is not.
func (o *output) read(wait bool) (b *[]byte, n int, err error) {
	if wait {
		o.f.WaitIfDry()
	}
	for {
		b = buffers.Get().(*[]byte)
		n, err = o.f.ReadNow(*b)
		if err == nil && n > 0 {
			return b, n, nil
		}
		buffers.Put(b)
		if err != unix.EAGAIN {
			o.broken = err
			return nil, 0, err
		}
		if !wait {
			return nil, 0, err
		}
		o.f.WaitToRead()
	}
}

// move moves one piece. It reports whether there may be more.
func (o *output) move(wait bool) error {
	b, n, err := o.read(wait)
	if err != nil {
		return err // of a terminal nobody has open: EIO
	}
	if n == 0 {
		return io.EOF
	}
	defer buffers.Put(b)
	o.on()
	_, err = o.w.Write((*b)[:n])
	return err
}

// run moves until there is nothing to come.
func (o *output) run() {
	defer close(o.eof)
	drained := false
	defer func() {
		if !drained {
			close(o.drained)
		}
	}()
	for {
		err := o.move(true)
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || drained || !o.resume() {
			return
		}
		// The program has ended, so what it wrote is all there.
		for err = nil; err == nil; {
			err = o.move(false)
		}
		if err != unix.EAGAIN || o.tty {
			return
		}
		drained = true
		close(o.drained)
	}
}

// resume undoes what ended did, unless stop was called, too.
func (o *output) resume() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.stopped {
		o.f.ResumeReads()
	}
	return !o.stopped
}

// ended says that the program has ended.
func (o *output) ended() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.f.HaltReads()
}

// wait waits for drained or eof, or for stop: run may be in the middle of writing
// to a client that takes no more.
func (o *output) wait(c <-chan struct{}) {
	select {
	case <-c:
	case <-o.halt:
	}
}

// stop ends run, whatever is still to come.
func (o *output) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.stopped {
		close(o.halt)
	}
	o.stopped = true
	o.f.HaltReads()
}

// input moves what comes from a channel to f, until the channel's end (then it
// returns nil) or until f cannot be written.
func input(f *passed.File, r io.Reader, on func()) error {
	buf := make([]byte, smallBuffer)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			on()
			if _, err := f.Write(buf[:n]); err != nil {
				return err
			}
			if n == len(buf) && n < bigBuffer {
				buf = make([]byte, bigBuffer)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// splice joins a channel and a socket until both directions have ended or the
// channel is closed; reqs is closed then. It closes both.
func (s *service) splice(typ string, ch ssh.Channel, reqs <-chan *ssh.Request, f *passed.File) {
	defer f.Close()
	defer ch.Close()
	act := s.watch(typ, func() { f.Close(); ch.Close() })
	defer s.unwatch(act)
	o := newOutput(f, ch, false, act.touch)
	go func() {
		for r := range reqs {
			r.Reply(false, nil)
		}
		o.stop()
	}()
	broken := make(chan bool, 1)
	go func() {
		err := input(f, ch, act.touch)
		f.ShutdownWrites()
		broken <- err != nil
		if err != nil {
			o.stop()
		}
	}()
	o.run()
	ch.CloseWrite()
	<-broken
}
