package user

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"p9auth/capproto"
	"p9auth/internal/sshdconf"
)

// A Client is the connection process's side of a link. Its methods may be
// called by many goroutines. An error answer is returned as *Error; after any
// other error the link is of no more use.
type Client struct {
	conn *capproto.Conn
	send sync.Mutex

	mu      sync.Mutex
	last    uint32 // id
	pending map[uint32]chan capproto.Packet
	err     error // set once, before done is closed
	done    chan struct{}

	helloOnce sync.Once
	settings  *sshdconf.Settings
	helloErr  error
}

// NewClient makes a Client of a link, on which the ticket has been sent. It
// does not wait for the user process; the first answer will.
func NewClient(conn *capproto.Conn) *Client {
	c := &Client{conn: conn, pending: map[uint32]chan capproto.Packet{}, done: make(chan struct{})}
	go c.receive()
	return c
}

// Close closes the link, and with it ends the user process.
func (c *Client) Close() error {
	c.fail(errors.New("the session is closed"))
	return c.conn.Close()
}

// Done is closed when the link is of no more use; Err says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the link is of no more use, once Done is closed.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.done)
}

func (c *Client) receive() {
	for {
		p, err := c.conn.Recv()
		if err != nil {
			c.fail(fmt.Errorf("the user's process has gone: %w", err))
			return
		}
		if _, has := p.Lookup("id"); !has && p.Verb == capproto.VerbError {
			p.Close()
			c.fail(&Error{CodeFailed, p.Get("text")})
			return
		}
		id, err := parseUint(p.Msg, "id")
		c.mu.Lock()
		answer := c.pending[id]
		delete(c.pending, id)
		c.mu.Unlock()
		if err != nil || answer == nil {
			p.Close()
			c.fail(fmt.Errorf("%w: an answer to nothing", capproto.ErrPacket))
			return
		}
		answer <- p
	}
}

// call sends a request and waits for its answer, which must carry n files.
func (c *Client) call(n int, m capproto.Msg) (id uint32, p capproto.Packet, err error) {
	answer := make(chan capproto.Packet, 1)
	c.send.Lock() // the numbers go out in order
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		c.send.Unlock()
		return 0, p, c.Err()
	}
	c.last++
	id = c.last
	c.pending[id] = answer
	c.mu.Unlock()
	m.Add("id", utoa(id))
	err = c.conn.Send(m)
	c.send.Unlock()
	if err != nil {
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
		if errors.Is(err, capproto.ErrPacket) {
			return 0, p, &Error{CodeLimit, err.Error()}
		}
		// What the session process said before it ended is the better reason.
		<-c.done
		return 0, p, c.Err()
	}
	select {
	case p = <-answer:
	case <-c.done:
		select {
		case p = <-answer:
		default:
			return 0, p, c.Err()
		}
	}
	if p.Verb == capproto.VerbError {
		p.Close()
		return 0, p, &Error{p.Get("code"), p.Get("text")}
	}
	if p.Verb != capproto.VerbOK || len(p.Files) != n {
		p.Close()
		return 0, p, fmt.Errorf("%w: answer %s with %d files to %s", capproto.ErrPacket, p.Verb, len(p.Files), m.Verb)
	}
	return id, p, nil
}

func (c *Client) do(m capproto.Msg) error {
	_, _, err := c.call(0, m)
	return err
}

// Settings waits for the user process and returns the settings that hold for
// the user.
func (c *Client) Settings() (*sshdconf.Settings, error) {
	c.helloOnce.Do(func() {
		_, p, err := c.call(0, capproto.NewMsg(verbHello))
		if err == nil {
			err = json.Unmarshal([]byte(p.Get("settings")), &c.settings)
		}
		c.helloErr = err
	})
	return c.settings, c.helloErr
}

// A PTY is a terminal of the user process.
type PTY struct {
	Master *os.File
	c      *Client
	id     uint32
}

// PTY allocates a terminal. The modes are those of a pty-req, RFC 4254 section
// 8.
func (c *Client) PTY(term string, size Size, modes []byte) (*PTY, error) {
	m := capproto.NewMsg(verbPTY, "term", term, "modes", capproto.B64(modes))
	size.add(&m)
	id, p, err := c.call(1, m)
	if err != nil {
		return nil, err
	}
	return &PTY{p.Files[0], c, id}, nil
}

// Resize changes the size of the window.
func (p *PTY) Resize(size Size) error {
	m := capproto.NewMsg(verbWinch, "pty", utoa(p.id))
	size.add(&m)
	return p.c.do(m)
}

// Break sends a break, RFC 4335.
func (p *PTY) Break() error { return p.c.do(capproto.NewMsg(verbBreak, "pty", utoa(p.id))) }

// Close lets go of the terminal; what runs on it is hung up.
func (p *PTY) Close() error {
	p.Master.Close()
	return p.c.do(capproto.NewMsg(verbDrop, "pty", utoa(p.id)))
}

// Exec is what to run: Subsystem if it is not empty, else the command if
// HasCommand, else the login shell.
type Exec struct {
	HasCommand bool
	Command    string
	Subsystem  string
	PTY        *PTY     // nil: pipes
	X11        *X11     // nil: none
	Env        []string // NAME=VALUE, as the client asked
}

// A Session is a process that was started.
type Session struct {
	Stdin, Stdout, Stderr *os.File // nil with a terminal
	c                     *Client
	id                    uint32
}

// Exec runs a program as the user.
func (c *Client) Exec(e Exec) (*Session, error) {
	m := capproto.NewMsg(verbExec)
	switch {
	case e.Subsystem != "":
		m.Add("subsystem", e.Subsystem)
	case e.HasCommand:
		m.Add("command", e.Command)
	}
	n := 3
	if e.PTY != nil {
		m.Add("pty", utoa(e.PTY.id))
		n = 0
	}
	if e.X11 != nil {
		m.Add("x11", utoa(e.X11.l.id))
	}
	for _, kv := range e.Env {
		m.Add("env", kv)
	}
	id, p, err := c.call(n, m)
	if err != nil {
		return nil, err
	}
	s := &Session{c: c, id: id}
	if n == 3 {
		s.Stdin, s.Stdout, s.Stderr = p.Files[0], p.Files[1], p.Files[2]
	}
	return s, nil
}

// Exit is how a process ended: by a signal if Signal is not empty, a name of
// RFC 4254 section 6.10.
type Exit struct {
	Status uint32
	Signal string
	Core   bool
}

// Wait waits until the process has ended.
func (s *Session) Wait() (Exit, error) {
	_, p, err := s.c.call(0, capproto.NewMsg(verbWait, "session", utoa(s.id)))
	if err != nil {
		return Exit{}, err
	}
	if name := p.Get("signal"); name != "" {
		return Exit{Signal: name, Core: p.Get("core") == "yes"}, nil
	}
	n, err := parseUint(p.Msg, "status")
	return Exit{Status: n}, err
}

// Signal sends a signal, by its name in RFC 4254 section 6.10.
func (s *Session) Signal(name string) error {
	return s.c.do(capproto.NewMsg(verbSignal, "session", utoa(s.id), "name", name))
}

// Drop tells the user process that the session's channel is closed.
func (s *Session) Drop() error {
	return s.c.do(capproto.NewMsg(verbDrop, "session", utoa(s.id)))
}

// Dial connects to a TCP port.
func (c *Client) Dial(host string, port uint32) (*os.File, error) {
	return c.dial(capproto.NewMsg(verbDial, "host", host, "port", utoa(port)))
}

// DialUnix connects to a unix socket.
func (c *Client) DialUnix(path string) (*os.File, error) {
	return c.dial(capproto.NewMsg(verbDialUnix, "path", path))
}

func (c *Client) dial(m capproto.Msg) (*os.File, error) {
	_, p, err := c.call(1, m)
	if err != nil {
		return nil, err
	}
	return p.Files[0], nil
}

// A Listener is a socket that the user process listens on.
type Listener struct {
	Port uint32 // of Listen: the port, chosen if 0 was asked for
	c    *Client
	id   uint32
}

// Listen listens on a TCP port; where is up to GatewayPorts.
func (c *Client) Listen(host string, port uint32) (*Listener, error) {
	id, p, err := c.call(0, capproto.NewMsg(verbListen, "host", host, "port", utoa(port)))
	if err != nil {
		return nil, err
	}
	l := &Listener{c: c, id: id}
	l.Port, err = parseUint(p.Msg, "port")
	return l, err
}

// ListenUnix listens on a unix socket.
func (c *Client) ListenUnix(path string) (*Listener, error) {
	return c.listen(capproto.NewMsg(verbListenUnix, "path", path))
}

// Agent makes the socket of the agent for the sessions that follow.
func (c *Client) Agent() (*Listener, error) { return c.listen(capproto.NewMsg(verbAgent)) }

func (c *Client) listen(m capproto.Msg) (*Listener, error) {
	id, _, err := c.call(0, m)
	if err != nil {
		return nil, err
	}
	return &Listener{c: c, id: id}, nil
}

// An X11 is a display to be named in Exec.
type X11 struct{ l *Listener }

// X11 makes a display, see RFC 4254 section 6.3.1.
func (c *Client) X11(single bool, proto, cookie string, screen uint32) (*X11, error) {
	one := "no"
	if single {
		one = "yes"
	}
	l, err := c.listen(capproto.NewMsg(verbX11, "single", one, "proto", proto, "cookie", cookie, "screen", utoa(screen)))
	if err != nil {
		return nil, err
	}
	return &X11{l}, nil
}

// Listener is where the programs connect.
func (x *X11) Listener() *Listener { return x.l }

// Accept waits until somebody connects. Of a TCP listener it returns the peer's
// address.
func (l *Listener) Accept() (f *os.File, host string, port uint32, err error) {
	_, p, err := l.c.call(1, capproto.NewMsg(verbAccept, "listener", utoa(l.id)))
	if err != nil {
		return nil, "", 0, err
	}
	if host = p.Get("host"); net.ParseIP(host) != nil {
		port, _ = parseUint(p.Msg, "port")
	}
	return p.Files[0], host, port, nil
}

// Close stops listening.
func (l *Listener) Close() error {
	return l.c.do(capproto.NewMsg(verbCancel, "listener", utoa(l.id)))
}

// NoMoreSessions has the user process refuse to start programs from now on.
func (c *Client) NoMoreSessions() error { return c.do(capproto.NewMsg(verbNoMore)) }
