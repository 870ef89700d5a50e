package daemon

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"time"

	"p9auth/capproto"
)

// ticketLife is how long a ticket may lie about.
const ticketLife = time.Minute

// A ticket hands a login over from the process that speaks SSH to the one that
// becomes the user. Only its hash is kept.
type ticket struct {
	uid    uint32
	user   *person
	worker *worker
	rhost  string
	timer  *time.Timer
}

// giveTicket makes the conversation's one ticket.
func (c *conv) giveTicket(capproto.Packet) (capproto.Msg, error) {
	var b [32]byte
	rand.Read(b[:])
	text := base64.RawURLEncoding.EncodeToString(b[:])
	id := sha256.Sum256([]byte(text))
	t := &ticket{uid: c.sender.Uid, user: c.user, worker: c.worker, rhost: c.rhost}
	c.s.mu.Lock()
	c.s.tickets[id] = t
	c.s.mu.Unlock()
	t.timer = time.AfterFunc(ticketLife, func() { c.s.dropTicket(&id) })
	c.worker, c.ssh.ticket, c.state = nil, &id, spent
	return capproto.NewMsg(capproto.VerbOK, "ticket", text), nil
}

// attach takes over the login of a ticket.
func (c *conv) attach(p capproto.Packet) (capproto.Msg, error) {
	id := sha256.Sum256([]byte(p.Get("ticket")))
	t := c.s.takeTicket(id, c.sender.Uid)
	if t == nil {
		return capproto.Msg{}, violation("attach: no such ticket")
	}
	c.user, c.worker, c.rhost, c.userInLog = t.user, t.worker, t.rhost, t.user.name
	c.state = proven
	return capproto.NewMsg(capproto.VerbOK), nil
}

// takeTicket returns a ticket of the uid, once, or nil.
func (s *Server) takeTicket(id [32]byte, uid uint32) *ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tickets[id]
	if t == nil || t.uid != uid {
		return nil
	}
	t.timer.Stop()
	delete(s.tickets, id)
	return t
}

// dropTicket ends a ticket that nobody took.
func (s *Server) dropTicket(id *[32]byte) {
	s.mu.Lock()
	t := s.tickets[*id]
	delete(s.tickets, *id)
	s.mu.Unlock()
	if t != nil {
		t.timer.Stop()
		t.worker.abandon()
	}
}
