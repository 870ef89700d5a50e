package channels

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/crypto/ssh"

	sshuser "p9auth/sshfront/internal/user"
)

const (
	maxEnv      = 128       // as sshd(8)
	maxEnvBytes = 100 << 10 // of all of them; a packet of the link is larger
)

// A session is a channel of RFC 4254 section 6. Its requests are handled one
// after the other.
type session struct {
	s    *server
	ch   ssh.Channel
	act  *activity
	pty  *sshuser.PTY
	x11  *sshuser.X11
	env  []string
	size int // of env, in bytes

	started bool   // a program was asked for
	then    func() // to be done after the reply to that
	kind    string // of ChannelTimeout
	proc    *sshuser.Session
	stdin   *os.File
	outputs []*output
	fed     chan struct{} // the input has ended
	eow     sync.Once
}

// session serves a channel until it is closed.
func (s *server) session(nc ssh.NewChannel) {
	if why := s.enterSession(); why != "" {
		nc.Reject(ssh.Prohibited, why)
		return
	}
	defer s.leaveSession()
	ch, reqs, err := nc.Accept()
	if err != nil {
		s.grown()
		return
	}
	x := &session{s: s, ch: ch, fed: make(chan struct{})}
	defer x.close()
	for r := range reqs {
		r.Reply(x.request(r), nil)
		if x.then != nil {
			x.then()
			x.then = nil
			s.grown()
		}
	}
}

// enterSession counts a session, or says why there may be none. With MaxSessions
// of 0 the user process refuses what would run in it, so that the first one
// need not wait for the settings.
func (s *server) enterSession() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noMore {
		return "no more sessions"
	}
	if s.sessions > 0 {
		s.mu.Unlock()
		set := s.settings()
		s.mu.Lock()
		if set == nil || s.sessions >= set.MaxSessions {
			return "too many sessions"
		}
	}
	s.sessions++
	s.larval++
	return ""
}

// grown says that a session has asked for its program, or never will.
func (s *server) grown() {
	s.mu.Lock()
	s.larval--
	s.mu.Unlock()
	s.noMoreSessions()
}

// noMoreSessions passes on what the client said, once the sessions that it had
// opened before have their programs: whoever takes this process over later has
// none started.
func (s *server) noMoreSessions() {
	s.mu.Lock()
	tell := s.noMore && s.larval == 0
	s.mu.Unlock()
	if tell {
		s.user.NoMoreSessions()
	}
}

func (s *server) leaveSession() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions--
}

// request handles one request and says whether it was granted.
func (x *session) request(r *ssh.Request) bool {
	switch r.Type {
	case "window-change":
		size, ok := parseSize(r.Payload)
		return ok && x.pty != nil && x.pty.Resize(size) == nil
	case "break":
		return x.pty != nil && x.pty.Break() == nil
	case "signal":
		var m struct{ Name string }
		return ssh.Unmarshal(r.Payload, &m) == nil && x.proc != nil && x.proc.Signal(m.Name) == nil
	case "eow@openssh.com":
		// The client wants no more output: PROTOCOL of OpenSSH, section 2.1.
		for _, o := range x.outputs {
			o.stop()
			if !o.tty {
				o.f.Close()
			}
		}
		return true
	}
	if x.started {
		return false
	}
	switch r.Type {
	case "pty-req":
		return x.ptyReq(r.Payload)
	case "env":
		var m struct{ Name, Value string }
		if ssh.Unmarshal(r.Payload, &m) != nil || len(x.env) >= maxEnv || x.size+len(m.Name)+len(m.Value) > maxEnvBytes {
			return false
		}
		x.env = append(x.env, m.Name+"="+m.Value)
		x.size += len(m.Name) + len(m.Value)
		if !r.WantReply {
			return true
		}
		set := x.s.settings()
		return set != nil && set.AcceptsEnv(m.Name)
	case "auth-agent-req@openssh.com":
		return x.s.forwardAgent()
	case "x11-req":
		return x.x11Req(r.Payload)
	case "shell":
		return x.start("shell", sshuser.Exec{})
	case "exec":
		var m struct{ Command string }
		return ssh.Unmarshal(r.Payload, &m) == nil && x.start("command", sshuser.Exec{HasCommand: true, Command: m.Command})
	case "subsystem":
		var m struct{ Name string }
		return ssh.Unmarshal(r.Payload, &m) == nil && m.Name != "" && x.start("subsystem:"+m.Name, sshuser.Exec{Subsystem: m.Name})
	}
	return false
}

func parseSize(payload []byte) (sshuser.Size, bool) {
	var m struct{ Cols, Rows, Width, Height uint32 }
	err := ssh.Unmarshal(payload, &m)
	return sshuser.Size(m), err == nil
}

// ptyReq answers pty-req: RFC 4254 section 6.2.
func (x *session) ptyReq(payload []byte) bool {
	var m struct {
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}
	if x.pty != nil || ssh.Unmarshal(payload, &m) != nil {
		return false
	}
	p, err := x.s.user.PTY(m.Term, sshuser.Size{Cols: m.Cols, Rows: m.Rows, Width: m.Width, Height: m.Height}, []byte(m.Modes))
	if err != nil {
		x.s.log("No terminal: %v", err)
		return false
	}
	x.pty = p
	return true
}

// x11Req answers x11-req: RFC 4254 section 6.3.1.
func (x *session) x11Req(payload []byte) bool {
	var m struct {
		Single        bool
		Proto, Cookie string
		Screen        uint32
	}
	if x.x11 != nil || ssh.Unmarshal(payload, &m) != nil {
		return false
	}
	d, err := x.s.user.X11(m.Single, m.Proto, m.Cookie, m.Screen)
	if err != nil {
		x.s.log("X11 is not forwarded: %v", err)
		return false
	}
	x.x11 = d
	go x.s.serveX11(d.Listener())
	return true
}

// start starts a program; kind is a type of ChannelTimeout, without "session:".
func (x *session) start(kind string, e sshuser.Exec) bool {
	e.PTY, e.X11, e.Env = x.pty, x.x11, x.env
	proc, err := x.s.user.Exec(e)
	if err != nil {
		select {
		case <-x.s.user.Done():
			// There is no user process; nobody else would tell the client.
			x.started, x.then = true, func() { x.apologize(err) }
			return true
		default:
		}
		x.s.log("No session: %v", err)
		return false
	}
	x.started, x.proc, x.env, x.then = true, proc, nil, x.begin
	x.kind = "session:" + kind
	x.s.mu.Lock()
	first := !x.s.started
	x.s.started = true
	x.s.mu.Unlock()
	if first && x.s.opt.Interactive != nil {
		x.s.opt.Interactive(x.pty != nil)
	}
	return true
}

func (x *session) apologize(err error) {
	fmt.Fprintf(x.ch.Stderr(), "%v\r\n", err)
	x.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ N uint32 }{254}))
	x.ch.CloseWrite()
	x.ch.Close()
}

// abort ends the channel for having been idle.
func (x *session) abort() {
	for _, o := range x.outputs {
		o.stop()
	}
	x.ch.Close()
}

// begin starts to move data.
func (x *session) begin() {
	add := func(f *os.File, w io.Writer, tty bool) {
		if o, err := newOutput(f, w, tty, func() { x.act.touch() }); err == nil {
			x.outputs = append(x.outputs, o)
		}
	}
	if x.pty != nil {
		x.stdin = x.pty.Master
		add(x.pty.Master, x.ch, true)
	} else {
		x.stdin = x.proc.Stdin
		add(x.proc.Stdout, x.ch, false)
		add(x.proc.Stderr, x.ch.Stderr(), false)
	}
	x.act = x.s.watch(x.kind, x.abort)
	for _, o := range x.outputs {
		go func() {
			o.run()
			if !o.tty {
				o.f.Close() // who still writes is to know
			}
		}()
	}
	go x.feed()
	go x.finish()
}

// feed moves the client's data to the program. A terminal has no end of file
// to be told of.
func (x *session) feed() {
	defer close(x.fed)
	err := input(x.stdin, x.ch, x.act.touch)
	if x.pty == nil {
		x.stdin.Close()
	}
	if err != nil {
		x.unwanted()
		// As sshd(8): take what is on its way, so that the client never waits.
		io.Copy(io.Discard, x.ch)
	}
}

// unwanted tells the client that the program reads no more: PROTOCOL of
// OpenSSH, section 2.1.
func (x *session) unwanted() {
	if !bytes.HasPrefix(x.s.conn.ClientVersion(), []byte("SSH-2.0-OpenSSH")) {
		return
	}
	x.eow.Do(func() { x.ch.SendRequest("eow@openssh.com", false, nil) })
}

// finish waits for the program's end and closes the channel: RFC 4254 section
// 6.10. All output of the program goes before its exit status; then comes what
// programs write that it left behind. The end of the output is told last, even
// if it was earlier: a client may answer it by closing the channel, and
// x/crypto/ssh would close it too, before the exit status is known.
func (x *session) finish() {
	exit, err := x.proc.Wait()
	if err != nil {
		// The channel was closed meanwhile, or the link is.
		if gone := new(sshuser.Error); !errors.As(err, &gone) {
			x.ch.Close()
		}
		return
	}
	for _, o := range x.outputs {
		o.ended()
		<-o.drained
	}
	x.stdin.SetWriteDeadline(past)
	x.unwanted()
	if exit.Signal != "" {
		x.ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name      string
			Core      bool
			Text, Tag string
		}{exit.Signal, exit.Core, "", ""}))
	} else {
		x.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ N uint32 }{exit.Status}))
	}
	for _, o := range x.outputs {
		<-o.eof
	}
	x.ch.CloseWrite()
	x.ch.Close()
}

// close lets go of everything; the client has closed the channel.
func (x *session) close() {
	if !x.started {
		x.s.grown()
	}
	if x.act != nil {
		x.s.unwatch(x.act)
	}
	for _, o := range x.outputs {
		o.stop()
	}
	if x.outputs != nil {
		// What the client had sent is still for the program.
		<-x.fed
	}
	if x.proc != nil {
		x.proc.Drop()
		for _, f := range []*os.File{x.proc.Stdin, x.proc.Stdout, x.proc.Stderr} {
			if f != nil {
				f.Close()
			}
		}
	}
	if x.pty != nil {
		x.pty.Close()
	}
	if x.x11 != nil {
		x.x11.Listener().Close()
	}
	x.ch.Close()
}
