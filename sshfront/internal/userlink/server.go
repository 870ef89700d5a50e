package userlink

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"p9auth/capproto"
)

// A Server is the user process's side of a link. Next is for one goroutine,
// Answer for any.
type Server struct {
	conn *capproto.Conn
	send sync.Mutex
	last uint32 // id
}

// NewServer makes a Server of a link, off which the ticket has been read.
func NewServer(conn *capproto.Conn) *Server { return &Server{conn: conn} }

// Next waits for the next request. After an error the link is of no more use:
// io.EOF or os.ErrClosed says that it is closed, and one that wraps
// capproto.ErrPacket that the connection process does not keep to the protocol.
func (s *Server) Next() (id uint32, r Request, err error) {
	p, err := s.conn.Recv()
	if err != nil {
		return 0, nil, err
	}
	p.Close() // requests carry no files
	return s.take(p.Msg)
}

func (s *Server) take(m capproto.Msg) (id uint32, r Request, err error) {
	if id, r, err = decode(m); err != nil {
		return 0, nil, err
	}
	if id <= s.last {
		return 0, nil, fmt.Errorf("%w: id %d again", capproto.ErrPacket, id)
	}
	s.last = id
	return id, r, nil
}

// An Answer is what the user process says to a request that it grants. Which
// fields are set depends on the request.
type Answer struct {
	// Files are the master of OpenPTY, the three of Exec without a terminal, the
	// socket of Dial, DialUnix and Accept.
	Files []*os.File
	Exit  *Exit  // of Wait
	Host  string // of Accept for TCP: the peer
	Port  uint32 // of Listen: the port; of Accept: the peer's
}

// Answer answers a request, and closes the answer's files. An err that is not an
// *Error is one of CodeFailed.
func (s *Server) Answer(id uint32, a Answer, err error) {
	m := capproto.NewMsg(capproto.VerbOK, "id", utoa(id))
	switch {
	case err != nil:
		e := &Error{CodeFailed, err.Error()}
		errors.As(err, &e)
		m = capproto.NewMsg(capproto.VerbError, "id", utoa(id), "code", e.Code, "text", e.Text)
	case a.Exit != nil && a.Exit.Signal != "":
		m.Add("signal", a.Exit.Signal)
		m.Add("core", yesNo(a.Exit.Core))
	case a.Exit != nil:
		m.Add("status", utoa(a.Exit.Status))
	case a.Host != "":
		m.Add("host", a.Host)
		m.Add("port", utoa(a.Port))
	case a.Port != 0:
		m.Add("port", utoa(a.Port))
	}
	s.send.Lock()
	err = s.conn.Send(m, a.Files...)
	s.send.Unlock()
	for _, f := range a.Files {
		f.Close()
	}
	if err != nil {
		s.conn.Close()
	}
}

// Close closes the link.
func (s *Server) Close() error { return s.conn.Close() }

// SendTicket sends the first packet of a link.
func SendTicket(link *capproto.Conn, ticket string) error {
	return link.Send(capproto.NewMsg("ticket", "version", strconv.Itoa(Version), "ticket", ticket))
}

// ReceiveTicket reads the first packet of a link, in the redeemer.
func ReceiveTicket(link *capproto.Conn) (ticket string, err error) {
	p, err := link.Recv()
	if err != nil {
		return "", fmt.Errorf("the ticket: %w", err)
	}
	p.Close()
	if p.Verb != "ticket" {
		return "", fmt.Errorf("%w: %s in place of the ticket", capproto.ErrPacket, p.Verb)
	}
	if v := p.Get("version"); v != strconv.Itoa(Version) {
		return "", fmt.Errorf("the connection process speaks version %.20q of the link and its session process version %d: restart sshfront", v, Version)
	}
	return p.Get("ticket"), p.Only("version", "ticket")
}

// Refuse says why there is no user process, to a connection process whose
// requests nobody will answer.
func Refuse(link *capproto.Conn, text string) error {
	return link.Send(capproto.NewMsg(capproto.VerbError, "text", text))
}

// IsClosed reports whether an error of Next only says that the link is closed.
func IsClosed(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) }
