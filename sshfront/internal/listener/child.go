package listener

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/proc"
	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
	"p9auth/sshfront/internal/control"
	"p9auth/sshfront/internal/sshlog"
)

// A child is one connection process, as the listener sees it.
type child struct {
	l             *listener
	remote, local netip.AddrPort
	place         place
	began         time.Time
	grace         time.Duration // from began

	process *os.Process
	wire    *capproto.Conn // the control socket
	link    *os.File       // the session process's end of the link
	said    *os.File       // the process's standard error
	served  chan struct{}  // closed when the control socket is

	// Guarded by the listener's lock.
	early   bool // not authenticated: takes up its place
	timeout bool // LoginGraceTime is over

	killed   atomic.Bool // by us, which is logged
	redeemer bool        // it has asked for its session process; serve's alone
}

// id names the connection in sshd's words.
func (c *child) id() string {
	return fmt.Sprintf("connection from %s to %s", sockets.Host(c.remote.Addr()), sockets.Host(c.local.Addr()))
}

// start starts the process. The caller closes the files.
func (c *child) start(client stream, config *os.File) error {
	sock, err := client.File()
	if err != nil {
		return err
	}
	defer sock.Close()
	ours, theirs, err := sys.Socketpair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	if c.wire, err = capproto.FileConn(ours, control.MaxPacket); err != nil {
		return err
	}
	var link *os.File // for the life of the connection process
	if link, c.link, err = sys.Socketpair(); err == nil {
		defer link.Close()
		c.process, err = c.spawn("connection", sock, theirs, config, link)
	}
	if err != nil {
		c.link.Close()
		c.wire.Close()
		return err
	}
	sshlog.Printf(sshdconf.LogVerbose, "Connection from %s on %s", sockets.HostPort(c.remote), sockets.HostPort(c.local))
	c.l.children[c] = true
	c.l.wg.Add(2)
	go c.serve()
	go c.wait()
	return nil
}

// left gives the connection's place back. It returns false when that was done
// before.
func (c *child) left() bool {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if !c.early {
		return false
	}
	c.early = false
	c.l.limits.done(c.place)
	return true
}

func (c *child) isEarly() bool {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	return c.early
}

// wait waits for the process to end, ends it when LoginGraceTime is over, and
// says what its source is due.
func (c *child) wait() {
	defer c.l.wg.Done()
	defer c.forget()
	if c.grace > 0 {
		t := time.AfterFunc(c.grace, c.graceOver)
		defer t.Stop()
	}
	proc.AwaitEnd(c.process.Pid)
	st, err := c.process.Wait()
	if err != nil {
		sshlog.Printf(sshdconf.LogError, "wait: %v", err)
	}
	// It may have said that it is authenticated, and then ended. Nobody else
	// should have the socket's other end, and nobody is waited for.
	c.wire.Socket().SetReadDeadline(time.Now().Add(time.Second))
	<-c.served
	c.l.mu.Lock()
	early, timeout := c.early, c.timeout
	c.l.mu.Unlock()
	if !early && st != nil {
		c.crashed(st)
	}
	if early && st != nil {
		if o, offended := c.judge(st, timeout); offended {
			c.l.mu.Lock()
			c.l.limits.penalize(c.remote.Addr(), o)
			c.l.mu.Unlock()
		}
	}
	c.left()
}

// forget takes the connection off the list of those that another process may go on with.
func (c *child) forget() {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	delete(c.l.children, c)
}

// graceOver kills the process unless it has authenticated.
func (c *child) graceOver() {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if c.early {
		c.timeout = true
		c.process.Kill()
	}
}

// serve answers the process on the control socket: see package control.
func (c *child) serve() {
	defer c.l.wg.Done()
	defer close(c.served)
	defer c.wire.Wait()
	defer c.hangUp()
	for {
		p, err := c.wire.Recv()
		if err != nil {
			if errors.Is(err, capproto.ErrPacket) {
				c.violation(err)
			}
			return // it has ended
		}
		err = c.handle(p)
		p.Close()
		if err != nil {
			c.violation(err)
			return
		}
	}
}

// hangUp closes what serve has used, unless another process is to go on with it.
func (c *child) hangUp() {
	if !c.l.isLeaving() || c.redeemer {
		c.link.Close()
		c.wire.Close()
	}
}

// violation ends a process that does not keep to the protocol.
func (c *child) violation(err error) {
	sshlog.Printf(sshdconf.LogError, "session process %d for %s broke the rules and is killed: %v", c.process.Pid, c.id(), err)
	c.killed.Store(true)
	c.process.Kill()
}

// handle does what one message asks for. An error is a violation.
func (c *child) handle(p capproto.Packet) error {
	r, err := control.Decode(p)
	if err != nil {
		return err
	}
	switch r := r.(type) {
	case control.Authenticated:
		if !c.left() {
			return errors.New(`"authenticated" twice`)
		}
		c.l.mu.Lock()
		c.l.login = true
		c.l.mu.Unlock()
		sshlog.Printf(sshdconf.LogDebug1, "%s is authenticated as %s, pid = %d", c.id(), r.User, c.process.Pid)
	case control.Session:
		if c.isEarly() || c.redeemer {
			return errors.New(`"session" out of turn`)
		}
		c.redeemer = true
		pid, err := c.startRedeemer()
		answer := capproto.NewMsg(capproto.VerbOK, "pid", strconv.Itoa(pid))
		if err != nil {
			sshlog.Printf(sshdconf.LogError, "no session process for %s: %v", c.id(), err)
			answer = capproto.NewMsg(capproto.VerbError, "text", "the session process could not be started")
		}
		if err := c.wire.Send(answer); err != nil && !errors.Is(err, unix.EPIPE) {
			sshlog.Printf(sshdconf.LogError, "no answer to %s: %v", c.id(), err)
		}
	}
	return nil
}

// startRedeemer starts the session process, which outlives the connection
// process for as long as it wants. From here on nobody else has its end of the
// link.
func (c *child) startRedeemer() (pid int, err error) {
	defer c.link.Close()
	said, say, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	c.l.mu.Lock()
	process, err := c.spawn("session", c.link, c.l.config, say)
	c.l.mu.Unlock()
	say.Close()
	if err != nil {
		said.Close()
		return 0, err
	}
	c.l.wg.Add(2)
	go c.logSession(process.Pid, said)
	go func() {
		defer c.l.wg.Done()
		proc.AwaitEnd(process.Pid)
		st, err := process.Wait()
		switch {
		case err == nil:
			c.crashed(st) // perhaps of a file of this program that is damaged
		case !errors.Is(err, fs.ErrClosed):
			sshlog.Printf(sshdconf.LogError, "wait: %v", err)
		}
	}()
	return process.Pid, nil
}

// maxSaid bounds in bytes what one session can have logged.
const maxSaid = 4096

// logSession logs what become says in a session process, and a user process that
// cannot start: see package control. The process may be the user's by then, so
// each line says where it comes from, and more of them than a few ends it.
func (c *child) logSession(pid int, said *os.File) {
	defer c.l.wg.Done()
	defer said.Close()
	for lines := bufio.NewScanner(io.LimitReader(said, maxSaid)); lines.Scan(); {
		sshlog.Printf(sshdconf.LogError, "session process %d for %s says: %s", pid, c.id(), lines.Text())
	}
}
