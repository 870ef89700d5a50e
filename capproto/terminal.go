package capproto

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A session by SSH opens terminals as its user. The process that has become the user
// keeps the conversation in which it got the capability, to tell factotum of them.

// File makes a copy of the conversation's descriptor, for the process that the
// capability is redeemed for.
func (c *Client) File() (*os.File, error) { return c.c.File() }

// A Terminals is what is left of a conversation when the capability is redeemed.
type Terminals struct{ c *Client }

// ResumeTerminals goes on with a conversation of which somebody else has handed down the
// descriptor. The error says that it is not one with a process of root's: then the
// descriptor, which may be anything of this process's own, stays as it is.
func ResumeTerminals(fd int) (*Terminals, error) {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("the conversation with factotum: %w", err)
	}
	if peer.Uid != 0 {
		return nil, fmt.Errorf("%w: a conversation with uid %d in place of factotum", ErrPacket, peer.Uid)
	}
	f := os.NewFile(uintptr(fd), "factotum")
	defer f.Close()
	c, err := FileConn(f, MaxReply)
	if err != nil {
		return nil, fmt.Errorf("%w: the conversation with factotum: %w", ErrPacket, err)
	}
	return &Terminals{&Client{c: c, answered: true}}, nil
}

// Redeemed tells factotum that the capability is redeemed, so that it does not count as
// outstanding for as long as the conversation lasts.
func (t *Terminals) Redeemed() error {
	_, err := t.ask(NewMsg(VerbAttr))
	return err
}

// recordTime is how long factotum may take to record a terminal. A session does not wait
// for it any longer.
const recordTime = 10 * time.Second

// Begin has factotum record a terminal, by its master, in utmp(5) and the like, and make it
// one that others can write to. line is its name without /dev/; lastLogin, if it is not
// empty, tells the user of their last login.
func (t *Terminals) Begin(master *os.File) (line, lastLogin string, err error) {
	m, err := t.ask(NewMsg(VerbTerminal), master)
	return m.Get("line"), m.Get("last"), err
}

// End has factotum record that a terminal is no more.
func (t *Terminals) End(line string) error {
	_, err := t.ask(NewMsg(VerbHangup, "line", line))
	return err
}

// ask asks in time. Without an answer there are no more.
func (t *Terminals) ask(m Msg, files ...*os.File) (Msg, error) {
	t.c.c.c.SetDeadline(time.Now().Add(recordTime))
	answer, err := t.c.rpc(m, files...)
	if err != nil && CodeOf(err) == "" {
		t.c.Close()
	}
	return answer, err
}
