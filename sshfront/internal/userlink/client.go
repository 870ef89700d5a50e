package userlink

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
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
	for started := false; ; started = true {
		p, err := c.conn.Recv()
		if err != nil {
			c.send.Lock() // a request that could not be sent is the better reason
			defer c.send.Unlock()
			if !started {
				// become failed, or the user process did: the listener logs why.
				c.fail(&Error{CodeFailed, NotOpened})
			} else {
				c.fail(fmt.Errorf("the user's process has gone: %w", err))
			}
			return
		}
		if _, has := p.Lookup("id"); !has && p.Verb == capproto.VerbError {
			p.Close()
			c.fail(&Error{CodeFailed, p.Get("text")})
			return
		}
		a := reader{m: p.Msg}
		id := a.object("id")
		c.mu.Lock()
		answer := c.pending[id]
		delete(c.pending, id)
		c.mu.Unlock()
		if a.err != nil || answer == nil {
			p.Close()
			c.fail(fmt.Errorf("%w: an answer to nothing", capproto.ErrPacket))
			return
		}
		answer <- p
	}
}

// call sends a request and waits for its answer, which must carry n files.
func (c *Client) call(n int, r Request) (id uint32, p capproto.Packet, err error) {
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
	err = c.conn.Send(encode(id, r))
	if err != nil && !errors.Is(err, capproto.ErrPacket) && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		c.fail(fmt.Errorf("the link to the user's process: %w", err))
	}
	c.send.Unlock()
	if err != nil {
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
		if errors.Is(err, capproto.ErrPacket) {
			return 0, p, &Error{CodeLimit, err.Error()}
		}
		// What the redeemer said before it ended is the better reason.
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
		return 0, p, fmt.Errorf("%w: answer %s with %d files to %T", capproto.ErrPacket, p.Verb, len(p.Files), r)
	}
	return id, p, nil
}

func (c *Client) do(r Request) error {
	_, _, err := c.call(0, r)
	return err
}

// A PTY is a terminal of the user process.
type PTY interface {
	Master() *os.File
	Resize(Size) error
	Break() error // RFC 4335
	// Close lets go of the terminal; what runs on it is hung up.
	Close() error
	ID() uint32 // for Exec
}

// A Program is a process that was started.
type Program interface {
	// Stdio are our ends of its pipes, or nil with a terminal.
	Stdio() (stdin, stdout, stderr *os.File)
	// Wait waits until the process has ended.
	Wait() (Exit, error)
	// Signal sends a signal, by its name in RFC 4254 section 6.10.
	Signal(name string) error
	// Drop tells the user process that the program's channel is closed.
	Drop() error
}

// A Listener is a socket that the user process listens on.
type Listener interface {
	Port() uint32 // of Listen: the port, chosen if 0 was asked for
	// Accept waits until somebody connects. Of a TCP listener it returns the
	// peer's address.
	Accept() (f *os.File, host string, port uint32, err error)
	Close() error
	ID() uint32 // for Exec
}

type pty struct {
	master *os.File
	c      *Client
	id     uint32
}

type program struct {
	files []*os.File // three, or none
	c     *Client
	id    uint32
}

type listener struct {
	port uint32
	c    *Client
	id   uint32
}

// PTY allocates a terminal. The modes are those of a pty-req, RFC 4254 section
// 8.
func (c *Client) PTY(term string, size Size, modes []byte) (PTY, error) {
	id, p, err := c.call(1, OpenPTY{term, size, modes})
	if err != nil {
		return nil, err
	}
	return &pty{p.Files[0], c, id}, nil
}

func (p *pty) Master() *os.File       { return p.master }
func (p *pty) Resize(size Size) error { return p.c.do(Winch{p.id, size}) }
func (p *pty) Break() error           { return p.c.do(Break{p.id}) }
func (p *pty) ID() uint32             { return p.id }

func (p *pty) Close() error {
	p.master.Close()
	return p.c.do(Drop{PTY: p.id})
}

// Exec runs a program as the user.
func (c *Client) Exec(e Exec) (Program, error) {
	n := 3
	if e.PTY != 0 {
		n = 0
	}
	id, p, err := c.call(n, e)
	if err != nil {
		return nil, err
	}
	return &program{p.Files, c, id}, nil
}

func (x *program) Stdio() (stdin, stdout, stderr *os.File) {
	if len(x.files) != 3 {
		return nil, nil, nil
	}
	return x.files[0], x.files[1], x.files[2]
}

func (x *program) Wait() (Exit, error) {
	_, p, err := x.c.call(0, Wait{x.id})
	if err != nil {
		return Exit{}, err
	}
	a := reader{m: p.Msg}
	a.text("id")
	if a.has("signal") {
		e := Exit{Signal: a.some("signal"), Core: a.flag("core")}
		return e, a.end()
	}
	e := Exit{Status: a.number("status")}
	return e, a.end()
}

func (x *program) Signal(name string) error { return x.c.do(Signal{x.id, name}) }
func (x *program) Drop() error              { return x.c.do(Drop{Program: x.id}) }

// Dial connects to a TCP port.
func (c *Client) Dial(host string, port uint32) (*os.File, error) {
	return c.dial(Dial{host, port})
}

// DialUnix connects to a unix socket.
func (c *Client) DialUnix(path string) (*os.File, error) { return c.dial(DialUnix{path}) }

func (c *Client) dial(r Request) (*os.File, error) {
	_, p, err := c.call(1, r)
	if err != nil {
		return nil, err
	}
	return p.Files[0], nil
}

// Listen listens on a TCP port; where is up to GatewayPorts.
func (c *Client) Listen(host string, port uint32) (Listener, error) {
	id, p, err := c.call(0, Listen{host, port})
	if err != nil {
		return nil, err
	}
	a := reader{m: p.Msg}
	l := &listener{c: c, id: id, port: a.number("port")}
	if a.err != nil {
		return nil, a.err
	}
	return l, nil
}

// ListenUnix listens on a unix socket.
func (c *Client) ListenUnix(path string) (Listener, error) { return c.listen(ListenUnix{path}) }

// Agent makes the socket of the agent for the programs that follow.
func (c *Client) Agent() (Listener, error) { return c.listen(ForwardAgent{}) }

// X11 makes a display, see RFC 4254 section 6.3.1. The listener is where the
// programs connect that are given its id.
func (c *Client) X11(single bool, proto, cookie string, screen uint32) (Listener, error) {
	return c.listen(ForwardX11{single, proto, cookie, screen})
}

func (c *Client) listen(r Request) (Listener, error) {
	id, _, err := c.call(0, r)
	if err != nil {
		return nil, err
	}
	return &listener{c: c, id: id}, nil
}

func (l *listener) Port() uint32 { return l.port }
func (l *listener) ID() uint32   { return l.id }
func (l *listener) Close() error { return l.c.do(Cancel{l.id}) }

func (l *listener) Accept() (f *os.File, host string, port uint32, err error) {
	_, p, err := l.c.call(1, Accept{l.id})
	if err != nil {
		return nil, "", 0, err
	}
	if host = p.Get("host"); net.ParseIP(host) != nil {
		a := reader{m: p.Msg}
		port = a.number("port")
	}
	return p.Files[0], host, port, nil
}

// NoMoreSessions has the user process refuse to start programs from now on.
func (c *Client) NoMoreSessions() error { return c.do(NoMoreSessions{}) }
