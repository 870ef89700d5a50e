package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/proc"
)

// A worker is a factotum-pam process. It authenticates for one conversation,
// and then belongs to the session.
type worker struct {
	s      *Server
	log    *slog.Logger
	conf   config.Config
	conn   *capproto.Conn
	cmd    *exec.Cmd
	ended  chan error        // how the process has ended
	said   chan capproto.Msg // closed when it has ended
	start  capproto.Msg      // with what its PAM transaction began
	tty    *tty
	uid    uint32       // of the front end whose session it is
	leader *proc.Handle // the session's process, once there is one

	mu      sync.Mutex
	session *capproto.Msg // what it opened
	closing bool          // it has begun to close the session
	adopts  bool          // it has taken over a session; said is closed
	over    bool          // the session has ended; under the server's lock
}

// startWorker starts a worker for the conversation.
func (c *conv) startWorker() error {
	w := &worker{s: c.s, log: c.log, conf: c.conf, tty: c.tty, said: make(chan capproto.Msg, maxQueue)}
	if err := w.spawn(); err != nil {
		return c.workerFailed(err)
	}
	c.worker = w
	go w.listen()
	return nil
}

// begin has the worker begin its PAM transaction.
func (w *worker) begin(m capproto.Msg) error {
	w.start = m
	if w.tty != nil {
		return w.conn.Send(m, w.tty.f)
	}
	return w.conn.Send(m)
}

// spawn starts the process.
func (w *worker) spawn() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "worker")
	defer theirs.Close()
	if w.conn, err = capproto.FileConn(os.NewFile(uintptr(fds[0]), "worker"), capproto.MaxReply); err != nil {
		return err
	}
	w.cmd = exec.Command(w.conf.PAMWorker)
	w.cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=1"}
	w.cmd.Dir = "/"
	w.cmd.Stderr = os.Stderr
	w.cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := w.cmd.Start(); err != nil {
		w.conn.Close()
		return fmt.Errorf("start the PAM worker: %w", err)
	}
	w.ended = make(chan error, 1)
	w.s.workers.Add(1)
	go func(cmd *exec.Cmd, conn *capproto.Conn, ended chan<- error) {
		err := cmd.Wait()
		w.s.workers.Add(-1)
		// What it said last is still to be heard, but not what a child that
		// a module has left behind might say, or the silence of one.
		conn.Unix().CloseRead()
		ended <- err
	}(w.cmd, w.conn, w.ended)
	return w.conn.Send(pamwire.Hello{Version: pamwire.Version}.Encode())
}

func (w *worker) pid() int { return w.cmd.Process.Pid }

// listen passes on what the worker says until it ends, and sees to the
// session that it may leave behind.
func (w *worker) listen() {
	w.hear()
	err := <-w.ended
	w.conn.Close()
	close(w.said)
	w.adopts = true
	for w.orphaned() {
		w.log.Error("the session's PAM worker has ended before the session; another takes over", "error", fmt.Sprint(err))
		if err := w.adopt(); err != nil {
			w.log.Error("no PAM worker takes over: the PAM session will not be closed", "error", err.Error())
			break
		}
		known := w.hear()
		err = <-w.ended
		w.conn.Close()
		if !known {
			w.log.Error("no PAM worker takes over: the PAM session will not be closed")
			break
		}
		time.Sleep(100 * time.Millisecond) // a worker that always dies must not take the machine along
	}
	if w.leader != nil {
		if w.session != nil {
			w.log.Info("session closed")
		}
		w.leader.Close()
		w.s.sessionEnded(w)
	}
	if w.tty != nil {
		w.tty.f.Close()
	}
}

// hear passes on what the worker says. It returns false, and ends the worker, if
// that is of another version.
func (w *worker) hear() bool {
	for greeted := false; ; {
		p, err := w.conn.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				w.log.Error("the PAM worker sends nonsense", "error", err.Error())
				w.cmd.Process.Kill()
			}
			return true
		}
		p.Close()
		if !greeted {
			if err := pamwire.CheckWorker(p.Msg); err != nil {
				w.log.Error("the PAM worker cannot be used", "error", err.Error())
				w.cmd.Process.Kill()
				return false
			}
			greeted = true
			continue
		}
		if w.note(p.Msg) || w.adopts { // what modules say at the end of a session is for nobody
			continue
		}
		select {
		case w.said <- p.Msg:
		default:
			w.log.Error("the PAM worker says too much")
			w.cmd.Process.Kill()
		}
	}
}

// note notes what becomes of the PAM session. It returns true for what only
// the worker's end is about.
func (w *worker) note(m capproto.Msg) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch m.Verb {
	case "opened":
		w.session = &m
	case "closing", "closed":
		w.closing = true
		return true
	}
	return false
}

// orphaned says whether the worker left a PAM session open. One that died
// while closing it is not replaced: the session is closed once at most.
func (w *worker) orphaned() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.session != nil && !w.closing
}

// adopt starts a worker that takes the session over.
func (w *worker) adopt() error {
	m := capproto.NewMsg("adopt", "user", w.session.Get("user"), "pid", strconv.Itoa(w.leader.PID))
	for _, name := range []string{"service", "tty", "rhost", "confdir"} {
		if v, ok := w.start.Lookup(name); ok {
			m.Add(name, v)
		}
	}
	for _, kv := range w.session.All("env") { // begin's among them
		m.Add("env", kv)
	}
	files := []*os.File{w.leader.File()}
	if w.tty != nil {
		m.Add("owner", w.tty.owner)
		files = append(files, w.tty.f)
	}
	if err := w.spawn(); err != nil {
		return err
	}
	return w.conn.Send(m, files...)
}

// abandon ends a worker that nobody needs any more. One that has a session
// open closes it when the session's process ends.
func (w *worker) abandon() {
	w.conn.Unix().CloseWrite()
	// A module that hangs does not notice. One that opens a session may be at
	// work that had better not be broken off.
	patience := 10 * time.Second
	if w.leader != nil {
		patience = w.conf.LoginGraceTime
	}
	time.AfterFunc(patience, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.session == nil {
			w.cmd.Process.Kill()
		}
	})
}

// addSession counts a session of a front end, if there may be one more.
func (s *Server) addSession(uid uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions >= s.conf.MaxSessions || s.sessOf[uid] >= s.conf.MaxSessionsPerUID() {
		return &capproto.Error{Code: capproto.CodeLimit, Text: "too many sessions"}
	}
	s.sessions++
	s.sessOf[uid]++
	return nil
}

// nowOpen notes a session for the status.
func (s *Server) nowOpen(w *worker, i sessionInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !w.over {
		s.live[w] = i
	}
}

func (s *Server) sessionEnded(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions--
	if s.sessOf[w.uid]--; s.sessOf[w.uid] <= 0 {
		delete(s.sessOf, w.uid)
	}
	w.over = true
	delete(s.live, w)
}
