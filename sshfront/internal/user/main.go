// Package user is the user process of sshfront, and the connection
// process's client for it.
//
// The user process runs as the user who logged in, one for each SSH
// connection, from the moment that the capability is redeemed. It is the
// process that the PAM session belongs to. On the link (link.go) it is asked
// for terminals, programs, and sockets, and hands their descriptors over, so
// that the data does not pass through it. sftp alone is served in a child,
// which is the same program again.
//
// It trusts what factotum said (Info) and the kernel. It does not trust the
// connection process, which could have been taken over: it enforces what the
// settings and the options of the user's key permit. It needs no right of its
// own and may do nothing that the user may not; no_new_privs is not set, as
// people use sudo.
//
// When the link closes, terminals are hung up, sockets are removed and the
// process ends; programs without a terminal go on if they like, as with
// sshd(8).
package user

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"p9auth/capproto"
	"p9auth/internal/privs"
	"p9auth/internal/sys"
)

// Main is the user process: descriptor 3 is the link, descriptor 4 the Info.
// It never returns.
func Main() {
	log.SetFlags(0)
	log.SetPrefix("sshfront user: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
	os.Exit(0)
}

func run() error {
	// A user who may have sftp only must not reach our memory by it, nor what
	// the link carries.
	if err := privs.Undumpable(); err != nil {
		return err
	}
	// Programs get their descriptors one by one.
	if err := sys.CloseOnExec(); err != nil {
		return err
	}
	f := os.NewFile(4, "info")
	info, err := readInfo(f)
	if err != nil {
		return err
	}
	f.Close()
	conn, err := capproto.FileConn(os.NewFile(3, "link"), MaxPacket)
	if err != nil {
		return fmt.Errorf("descriptor 3: %w", err)
	}
	if err := info.Apply(); err != nil {
		log.Print(err)
	}
	// Nothing of ours keeps a file system busy.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// Caught rather than ignored: what is ignored stays so in programs.
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-ends
		conn.Close()
	}()
	s := newServer(info, conn)
	defer s.close()
	return s.serve()
}

// A request is one packet from the connection process.
type request struct {
	capproto.Msg
	id uint32
}

// An answer is what a handler has to say: attributes of ok, and descriptors.
type answer struct {
	attrs []string // names and values
	files []*os.File
}

// A verb says how a request is handled.
type verb struct {
	handle  func(*server, request) (answer, error)
	session bool // refused after no-more-sessions
	names   []string
}

// verbs is everything that can be asked of the user process. exec may give
// env= several times.
var verbs map[string]verb

func init() {
	verbs = map[string]verb{
		verbHello:      {(*server).hello, false, nil},
		verbPTY:        {(*server).pty, true, []string{"term", "cols", "rows", "width", "height", "modes"}},
		verbExec:       {(*server).exec, true, []string{"command", "subsystem", "pty", "x11", "env"}},
		verbWait:       {(*server).wait, false, []string{"session"}},
		verbWinch:      {(*server).winch, false, []string{"pty", "cols", "rows", "width", "height"}},
		verbBreak:      {(*server).sendBreak, false, []string{"pty"}},
		verbSignal:     {(*server).signal, false, []string{"session", "name"}},
		verbDrop:       {(*server).drop, false, []string{"session", "pty"}},
		verbDial:       {(*server).dial, false, []string{"host", "port"}},
		verbDialUnix:   {(*server).dialUnix, false, []string{"path"}},
		verbListen:     {(*server).listen, false, []string{"host", "port"}},
		verbListenUnix: {(*server).listenUnix, false, []string{"path"}},
		verbAgent:      {(*server).agent, true, nil},
		verbX11:        {(*server).x11, true, []string{"single", "proto", "cookie", "screen"}},
		verbAccept:     {(*server).accept, false, []string{"listener"}},
		verbCancel:     {(*server).cancel, false, []string{"listener"}},
		verbNoMore:     {(*server).noMore, false, nil},
	}
}

// A server is the user process at work.
type server struct {
	info *Info
	conn *capproto.Conn
	send sync.Mutex

	// forks is held for writing while the umask is another one, or while a
	// descriptor is about that must not be inherited.
	forks sync.RWMutex

	mu        sync.Mutex
	last      uint32
	running   int // requests
	closed    bool
	noMoreSet bool
	ptys      map[uint32]*ptyPair
	sessions  map[uint32]*session
	listeners map[uint32]*listener
	agentPath string
	authInfo  string   // file of SSH_USER_AUTH
	remove    []string // files and directories, at the end, last first
}

func newServer(info *Info, conn *capproto.Conn) *server {
	return &server{info: info, conn: conn, ptys: map[uint32]*ptyPair{}, sessions: map[uint32]*session{}, listeners: map[uint32]*listener{}}
}

// serve answers requests until the link closes.
func (s *server) serve() error {
	for {
		p, err := s.conn.Recv()
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		p.Close() // requests carry no files
		r, v, err := s.check(p.Msg)
		if err != nil {
			return err
		}
		s.mu.Lock()
		busy := s.running >= maxRequests
		refused := v.session && s.noMoreSet
		s.running++
		s.mu.Unlock()
		go func() {
			var a answer
			var err error
			switch {
			case busy:
				err = &Error{CodeLimit, "too many requests"}
			case refused:
				err = prohibited("the client said that there would be no more sessions")
			default:
				a, err = v.handle(s, r)
			}
			s.mu.Lock()
			s.running--
			s.mu.Unlock()
			s.reply(r, a, err)
		}()
		if busy {
			return errors.New("the connection process asks for too much at once")
		}
	}
}

// check says what a packet asks for.
func (s *server) check(m capproto.Msg) (request, verb, error) {
	v, ok := verbs[m.Verb]
	if !ok {
		return request{}, v, fmt.Errorf("%w: there is no request %s", capproto.ErrPacket, m.Verb)
	}
	once := m
	if m.Verb == verbExec {
		once.Attrs = nil
		for _, a := range m.Attrs {
			if a.Name != "env" {
				once.Attrs = append(once.Attrs, a)
			}
		}
	}
	if err := once.Only(append([]string{"id"}, v.names...)...); err != nil {
		return request{}, v, err
	}
	id, err := parseUint(m, "id")
	if err != nil {
		return request{}, v, err
	}
	if id <= s.last {
		return request{}, v, fmt.Errorf("%w: id %d again", capproto.ErrPacket, id)
	}
	s.last = id
	return request{m, id}, v, nil
}

func (s *server) reply(r request, a answer, err error) {
	m := capproto.NewMsg(capproto.VerbOK, "id", utoa(r.id))
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{CodeFailed, err.Error()}
		}
		m = capproto.NewMsg(capproto.VerbError, "id", utoa(r.id), "code", e.Code, "text", e.Text)
	}
	for i := 0; i+1 < len(a.attrs); i += 2 {
		m.Add(a.attrs[i], a.attrs[i+1])
	}
	s.send.Lock()
	err = s.conn.Send(m, a.files...)
	s.send.Unlock()
	for _, f := range a.files {
		f.Close()
	}
	if err != nil {
		s.conn.Close()
	}
}

// close takes away what would stay behind.
func (s *server) close() {
	s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, p := range s.ptys {
		p.close()
	}
	for _, x := range s.sessions {
		x.killRC()
	}
	for _, l := range s.listeners {
		l.close()
	}
	for i := len(s.remove) - 1; i >= 0; i-- {
		os.Remove(s.remove[i])
	}
}

func (s *server) hello(request) (answer, error) {
	j, err := s.settingsJSON()
	return answer{attrs: []string{"user", s.info.User, "settings", j}}, err
}

func (s *server) noMore(request) (answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noMoreSet = true
	return answer{}, nil
}

// object returns what an earlier request made.
func object[T any](s *server, r request, name string, m map[uint32]T) (T, error) {
	var none T
	id, err := parseUint(r.Msg, name)
	if err != nil {
		return none, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := m[id]
	if !ok {
		return none, errNoSuch
	}
	return x, nil
}

// keep registers what a request made, unless it is too late.
func keep[T any](s *server, id uint32, m map[uint32]T, x T, max int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errNoSuch
	}
	if len(m) >= max {
		return &Error{CodeLimit, "too many at once"}
	}
	m[id] = x
	return nil
}
