package passed

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pipe makes one that the runtime knows nothing of.
func pipe(t *testing.T) (r, w *File) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	var files [2]*File
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pipe") // blocking, so that no poller is asked
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		files[i] = New(f)
		t.Cleanup(func() { files[i].Close() })
	}
	return files[0], files[1]
}

func readAll(p *File) ([]byte, error) {
	var all []byte
	b := make([]byte, 5000)
	for {
		n, err := p.Read(b)
		switch {
		case err != nil:
			return all, err
		case n == 0:
			return all, io.EOF
		}
		all = append(all, b[:n]...)
	}
}

// waiting is how many wait for p.
func waiting(p *File) (n int) {
	thePoller.mu.Lock()
	defer thePoller.mu.Unlock()
	for d := range p.waits {
		n += min(p.waits[d].place, 1)
	}
	return n
}

func TestWhatIsWrittenIsReadByManyAtOnce(t *testing.T) {
	var all sync.WaitGroup
	for i := range 100 {
		r, w := pipe(t)
		want := bytes.Repeat([]byte{byte(i)}, 300000) // more than a pipe holds
		all.Go(func() {
			if n, err := w.Write(want); n != len(want) || err != nil {
				t.Errorf("%d bytes written, %v", n, err)
			}
			w.Close()
		})
		all.Go(func() {
			if got, err := readAll(r); err != io.EOF || !bytes.Equal(got, want) {
				t.Errorf("%d bytes read, %v", len(got), err)
			}
		})
	}
	all.Wait()
	thePoller.mu.Lock()
	defer thePoller.mu.Unlock()
	if n := len(thePoller.waits); n != 0 {
		t.Errorf("the poller waits for %d files that nobody reads", n)
	}
}

func TestWhoWaitsIsWokenByHaltAndClose(t *testing.T) {
	for _, c := range []struct {
		name  string
		write bool
		wake  func(*File)
		want  error
	}{
		{"HaltReads", false, (*File).HaltReads, os.ErrDeadlineExceeded},
		{"HaltWrites", true, (*File).HaltWrites, os.ErrDeadlineExceeded},
		{"Close, of one who reads", false, func(p *File) { p.Close() }, os.ErrClosed},
		{"Close, of one who writes", true, func(p *File) { p.Close() }, os.ErrClosed},
	} {
		r, w := pipe(t)
		ended := make(chan error, 1)
		p := r
		if c.write {
			p = w
		}
		go func() {
			var err error
			if c.write {
				_, err = w.Write(make([]byte, 1<<20))
			} else {
				_, err = readAll(r)
			}
			ended <- err
		}()
		for waits := 0; waits == 0; time.Sleep(time.Millisecond) {
			waits = waiting(p)
		}
		c.wake(p)
		if err := <-ended; !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestReadsGoOnAfterResume(t *testing.T) {
	r, w := pipe(t)
	if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2)
	r.HaltReads()
	if n, err := r.ReadNow(b); n != 0 || err != os.ErrDeadlineExceeded {
		t.Errorf("halted: %d, %v", n, err)
	}
	r.ResumeReads()
	if n, err := r.ReadNow(b); n != 1 || err != nil {
		t.Errorf("resumed: %d, %v", n, err)
	}
	if n, err := r.ReadNow(b); n != 0 || err != unix.EAGAIN {
		t.Errorf("empty: %d, %v", n, err)
	}
}

func TestAWriteToWhatNobodyReadsFails(t *testing.T) {
	r, w := pipe(t)
	r.Close()
	if n, err := w.Write([]byte("x")); n != 0 || err != unix.EPIPE {
		t.Errorf("%d, %v", n, err)
	}
}

func TestAFileThatIsClosedIsClosedForItsOtherEnd(t *testing.T) {
	r, w := pipe(t)
	ended := make(chan error, 1)
	go func() { _, err := readAll(r); ended <- err }()
	for waits := 0; waits == 0; time.Sleep(time.Millisecond) {
		waits = waiting(r)
	}
	time.Sleep(20 * time.Millisecond) // until ppoll waits for it
	r.Close()
	<-ended
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := w.Write([]byte("x")); err == unix.EPIPE {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the pipe still has a reader")
		}
	}
}
