package daemon

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// newConversation makes a conversation over w, which peer has made, under that
// generation of the configuration.
func newConversation(core *core, gen *generation, w wire, peer *unix.Ucred) *conversation {
	return &conversation{
		core: core, gen: gen, wire: w, peer: peer, log: core.log, state: idle, asked: map[string]bool{},
		requests: make(chan capproto.Packet), gone: make(chan error, 1),
	}
}

// run carries on the conversation until one side ends it.
func (c *conversation) run() {
	defer contain(c.log, func() {})
	defer c.end()
	quit := make(chan struct{})
	defer close(quit)
	c.leaving.Go(func() { c.receive(quit) })
	c.grace = time.NewTimer(c.gen.conf.LoginGraceTime)
	defer c.grace.Stop()
	for {
		var err error
		select {
		case p := <-c.requests:
			err = c.request(p)
		case <-c.grace.C:
			if c.state&(open|handedOver|become) == 0 {
				err = errGrace
			}
		case err := <-c.gone:
			// os.ErrClosed: factotum itself has closed, as it ends.
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
				c.fail(violation("%v", err))
			}
			return
		}
		if err != nil && !c.fail(err) {
			return
		}
	}
}

// receive passes on what the front end sends, until it stops or quit is closed.
func (c *conversation) receive(quit <-chan struct{}) {
	defer c.wire.Wait()
	defer contain(c.log, func() { c.gone <- os.ErrClosed })
	for {
		p, err := c.wire.Recv()
		if err != nil {
			c.gone <- err
			return
		}
		select {
		case c.requests <- p:
		case <-quit:
			p.Close()
			return
		}
	}
}

// request answers one packet.
func (c *conversation) request(p capproto.Packet) (err error) {
	defer p.Close()
	defer contain(c.log, func() { err = &fatal{errInternal} })
	m, err := c.answer(p)
	if err != nil {
		return err
	}
	return c.reply(m)
}
