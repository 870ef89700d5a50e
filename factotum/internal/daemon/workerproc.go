package daemon

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
	"p9auth/internal/proc"
	"p9auth/internal/sys"

	"golang.org/x/sys/unix"
)

// maxQueue bounds what a chatty module may say while nobody reads.
const maxQueue = 256

// A workerProc is the handle on a factotum-pam process, and on the one that
// takes its session over if it dies.
type workerProc struct {
	log     status.Log
	conf    config.Config
	tty     *tty          // or nil; closed when the worker has ended
	running *atomic.Int64 // how many processes there are, of all handles
	front   string        // the security context of the front end, or ""
	args    []string      // of the program: an acceptor has some, see package gss

	events chan pamwire.Event
	begun  pamwire.Begin // with what its PAM transaction began

	mu      sync.Mutex
	proc    process
	session *session        // that it was told to open
	opened  *pamwire.Opened // what it opened
	lines   map[string]bool // of terminals that it has recorded
	closing bool            // it has begun to close the session
	over    bool            // nobody hears it any more
}

// A process is one factotum-pam process.
type process struct {
	conn  *capproto.Conn
	cmd   *exec.Cmd
	ended chan error // how it has ended
}

// starting is held while a process starts, which takes a thread: see sys.KeepThreads.
var starting sync.Mutex

// startWorker starts a worker process for a front end in that security context. It has the
// terminal from then on.
func startWorker(c config.Config, log status.Log, t *tty, front string, running *atomic.Int64, args ...string) (*workerProc, error) {
	w := &workerProc{log: log, conf: c, tty: t, front: front, running: running, args: args, events: make(chan pamwire.Event, maxQueue)}
	if err := w.spawn(); err != nil {
		return nil, err
	}
	go w.serve()
	return w, nil
}

// spawn starts the process and greets it.
func (w *workerProc) spawn() error {
	context, err := transition(w.front, w.conf.PAMWorker)
	if err != nil {
		return fmt.Errorf("the PAM worker's security context: %w", err)
	}
	ours, theirs, err := sys.Socketpair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	conn, err := capproto.FileConn(ours, capproto.MaxReply)
	if err != nil {
		return err
	}
	p := process{conn, exec.Command(w.conf.PAMWorker, w.args...), make(chan error, 1)}
	p.cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, sys.SmallRuntime...)
	p.cmd.Dir = "/"
	p.cmd.Stderr = os.Stderr
	p.cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	starting.Lock()
	err = startIn(context, p.cmd)
	starting.Unlock()
	if err != nil {
		conn.Close()
		return fmt.Errorf("start the PAM worker: %w", err)
	}
	w.running.Add(1)
	go func() {
		proc.AwaitEnd(p.cmd.Process.Pid)
		err := p.cmd.Wait()
		w.running.Add(-1)
		// Keep what is already queued, but stop reading: a child left behind by a
		// PAM module may still hold the socket.
		conn.Shutdown(unix.SHUT_RD)
		p.ended <- err
	}()
	w.mu.Lock()
	w.proc = p
	w.mu.Unlock()
	// An error here is one of the process's end, which hear finds too.
	conn.Send(pamwire.Hello{Version: pamwire.Version}.Encode())
	return nil
}

func (w *workerProc) current() process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.proc
}

// Tell sends a request. The terminal goes along with Begin and BeginTerminal.
func (w *workerProc) Tell(r pamwire.Request) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	conn := w.proc.conn
	switch r := r.(type) {
	case pamwire.Begin:
		w.begun = r
		if w.tty != nil {
			return conn.Send(r.Encode(), w.tty.f)
		}
	case pamwire.BeginTerminal:
		if w.lines == nil {
			w.lines = map[string]bool{}
		}
		w.lines[r.Line] = true
		return conn.Send(r.Encode(), r.TTY)
	case pamwire.EndTerminal:
		delete(w.lines, r.Line)
	}
	return conn.Send(r.Encode())
}

// Signal has a signal sent to the process of a pidfd.
func (w *workerProc) Signal(number int, pidfd *os.File) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.proc.conn.Send(pamwire.Signal{Number: number}.Encode(), pidfd)
}

// Open has the session opened. The pidfd of its process goes along.
func (w *workerProc) Open(s *session) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		s.end()
		return errors.New("it has ended")
	}
	w.session = s
	return w.proc.conn.Send(s.request().Encode(), s.leader.File())
}

// Events has what the worker says.
func (w *workerProc) Events() <-chan pamwire.Event { return w.events }

// PID is the worker's process.
func (w *workerProc) PID() int { return w.current().cmd.Process.Pid }

// Abandon ends the worker, unless it has a session open.
func (w *workerProc) Abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proc.conn.Shutdown(unix.SHUT_WR)
	// A module that hangs does not notice. One that opens a session may be at
	// work that had better not be broken off. A program that looks up keys has
	// 10 s, and the worker has to end it and its children before it is killed.
	patience := 13 * time.Second
	if w.session != nil {
		patience = w.conf.LoginGraceTime
	}
	time.AfterFunc(patience, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.opened == nil {
			w.proc.cmd.Process.Kill()
		}
	})
}

// serve passes on what the worker says until it ends, and sees to the session
// that it may leave behind.
func (w *workerProc) serve() {
	defer w.release()
	noEvents := sync.OnceFunc(func() { close(w.events) })
	defer noEvents()
	defer contain(w.log, func() { w.current().cmd.Process.Kill() })
	err := w.hear(true)
	noEvents()
	for w.orphaned() {
		w.log.Event(status.WorkerLost, "error", fmt.Sprint(err))
		if err = w.adopt(); err == nil {
			err = w.hear(false)
		}
		if v := (*pamwire.VersionError)(nil); errors.As(err, &v) || errors.Is(err, errNotStarted) {
			w.log.Error("no PAM worker takes over: the PAM session will not be closed", "error", err.Error())
			return
		}
		time.Sleep(100 * time.Millisecond) // a worker that always dies must not take the machine along
	}
}

// release frees what the worker had.
func (w *workerProc) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.session != nil {
		if w.opened != nil {
			w.log.Event(status.SessionClosed, "user", w.opened.User)
		}
		w.session.end()
	}
	if w.tty != nil {
		w.tty.f.Close()
	}
}

// hear hears what one process says until it ends, and passes that on to the
// conversation, if it still belongs to one. It returns how the process has ended,
// or a *pamwire.VersionError.
func (w *workerProc) hear(pass bool) error {
	p := w.current()
	err := w.listen(p, pass)
	how := <-p.ended
	p.conn.Close()
	if v := (*pamwire.VersionError)(nil); errors.As(err, &v) {
		return err
	}
	return how
}

// listen hears what one process says until it has nothing more to say. One that
// says what it must not is killed.
func (w *workerProc) listen(p process, pass bool) error {
	greeted := false
	for {
		packet, err := p.conn.Recv()
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
			return nil
		}
		var e pamwire.Event
		switch {
		case err != nil:
		case !greeted:
			err = pamwire.CheckWorker(packet.Msg)
			greeted = true
		default:
			if e, err = pamwire.DecodeEvent(packet.Msg, packet.Files...); err == nil {
				packet.Files = nil // they are the event's
			}
		}
		packet.Close()
		if err == nil && e != nil && !w.note(e) && pass { // what modules say at the end of a session is for nobody
			select {
			case w.events <- e:
			default:
				err = errors.New("it says too much")
			}
		}
		if err != nil {
			w.log.Error("the PAM worker cannot be used", "error", err.Error())
			p.cmd.Process.Kill()
			return err
		}
	}
}

// note notes what becomes of the PAM session. It returns true for what is not for
// the conversation.
func (w *workerProc) note(e pamwire.Event) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e := e.(type) {
	case pamwire.Opened:
		w.opened = &e
	case pamwire.Closing, pamwire.Closed:
		w.closing = true
		return true
	}
	return false
}

// orphaned reports whether the worker left a PAM session open. One that died
// while closing it is not replaced: the session is closed once at most.
func (w *workerProc) orphaned() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.session != nil && w.opened != nil && !w.closing
}

var errNotStarted = errors.New("it cannot be started")

// adopt starts a process that takes the session over. The error is errNotStarted
// if there is none, otherwise hear finds how it ends.
func (w *workerProc) adopt() error {
	if err := w.spawn(); err != nil {
		return fmt.Errorf("%w: %w", errNotStarted, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	m := pamwire.Adopt{
		User: w.opened.PAMUser, Service: w.begun.Service, TTY: w.begun.TTY, RHost: w.begun.RHost, ConfDir: w.begun.ConfDir,
		Env:   w.opened.Env, // begin's among them
		PID:   w.session.leader.PID,
		Lines: slices.Collect(maps.Keys(w.lines)),
		Local: w.begun.Caller != nil,
		Cache: w.opened.Cache,
	}
	files := []*os.File{w.session.leader.File()}
	if w.tty != nil {
		m.Owner = &w.tty.owner
		files = append(files, w.tty.f)
	}
	w.proc.conn.Send(m.Encode(), files...)
	return nil
}
