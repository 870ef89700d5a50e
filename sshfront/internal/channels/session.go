package channels

import (
	"sync"

	"golang.org/x/crypto/ssh"

	"p9auth/sshfront/internal/passed"
	"p9auth/sshfront/internal/userlink"
)

// maxEnvBytes bounds the variables that the client names, all together; a packet
// of the link is larger.
const maxEnvBytes = 100 << 10

// An sshChannel is a channel of RFC 4254 section 6. Its requests are handled one
// after the other.
type sshChannel struct {
	s    *service
	ch   ssh.Channel
	act  *activity
	pty  userlink.PTY
	x11  userlink.Listener
	env  []string
	size int // of env, in bytes

	started bool   // a program was asked for
	then    func() // to be done after the reply to that
	kind    string // of ChannelTimeout
	proc    userlink.Program
	stdin   *passed.File
	outputs []*output
	fed     chan struct{} // the input has ended
	eow     sync.Once
}

// session serves a channel until it is closed. enterSession has counted it.
func (s *service) session(nc ssh.NewChannel) {
	defer s.leaveSession()
	ch, reqs, err := nc.Accept()
	if err != nil {
		s.grown()
		return
	}
	x := &sshChannel{s: s, ch: ch, fed: make(chan struct{})}
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
// of 0 a session may be opened, and the user process refuses what would run in
// it: so the client learns why.
func (s *service) enterSession() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noMore {
		return "no more sessions"
	}
	if s.sessions > 0 && s.sessions >= s.set.MaxSessions {
		return "too many sessions"
	}
	s.sessions++
	s.larval++
	return ""
}

// grown says that a session has asked for its program, or never will.
func (s *service) grown() {
	s.mu.Lock()
	s.larval--
	s.mu.Unlock()
	s.noMoreSessions()
}

// noMoreSessions passes on what the client said, once the sessions that it had
// opened before have their programs. An attacker who takes this process over later
// cannot start a program any more.
func (s *service) noMoreSessions() {
	s.mu.Lock()
	tell := s.noMore && s.larval == 0
	s.mu.Unlock()
	if tell {
		s.user.NoMoreSessions()
	}
}

func (s *service) leaveSession() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions--
}

// request handles one request and says whether it was granted.
func (x *sshChannel) request(r *ssh.Request) bool {
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
		// The client wants no more output: PROTOCOL of OpenSSH, section 2.1. A program
		// may still write to standard error, as with sshd(8), and not die of that.
		if len(x.outputs) > 0 {
			out := x.outputs[0]
			out.stop()
			if !out.tty {
				out.f.Close()
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
		if ssh.Unmarshal(r.Payload, &m) != nil || len(x.env) >= userlink.MaxEnv || x.size+len(m.Name)+len(m.Value) > maxEnvBytes {
			return false
		}
		x.env = append(x.env, m.Name+"="+m.Value)
		x.size += len(m.Name) + len(m.Value)
		if !r.WantReply {
			return true
		}
		return x.s.set.AcceptsEnv(m.Name)
	case "auth-agent-req@openssh.com":
		return x.s.forwardAgent()
	case "x11-req":
		return x.x11Req(r.Payload)
	case "shell":
		return x.start("shell", userlink.Exec{})
	case "exec":
		var m struct{ Command string }
		return ssh.Unmarshal(r.Payload, &m) == nil && x.start("command", userlink.Exec{HasCommand: true, Command: m.Command})
	case "subsystem":
		var m struct{ Name string }
		return ssh.Unmarshal(r.Payload, &m) == nil && m.Name != "" && x.start("subsystem:"+m.Name, userlink.Exec{Subsystem: m.Name})
	}
	return false
}

func parseSize(payload []byte) (userlink.Size, bool) {
	var m struct{ Cols, Rows, Width, Height uint32 }
	err := ssh.Unmarshal(payload, &m)
	return userlink.Size(m), err == nil
}

// ptyReq answers pty-req: RFC 4254 section 6.2.
func (x *sshChannel) ptyReq(payload []byte) bool {
	var m struct {
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}
	if x.pty != nil || ssh.Unmarshal(payload, &m) != nil {
		return false
	}
	p, err := x.s.user.PTY(m.Term, userlink.Size{Cols: m.Cols, Rows: m.Rows, Width: m.Width, Height: m.Height}, []byte(m.Modes))
	if err != nil {
		x.s.failed("No terminal", err)
		// Where there is no user process, start tells the client why.
		return x.s.userGone()
	}
	x.pty = p
	return true
}

// x11Req answers x11-req: RFC 4254 section 6.3.1.
func (x *sshChannel) x11Req(payload []byte) bool {
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
	go x.s.serveX11(d)
	return true
}
