package daemon

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/internal/proc"
)

// A state of a conversation.
type state uint

const (
	idle    state = 1 << iota // nothing is proven
	talking                   // a PAM worker authenticates
	proven                    // factotum is convinced of the user
	opening                   // a PAM worker opens the session
	open                      // capabilities are to be had

	// Of an SSH connection.
	offering // proofs are awaited
	admitted // factotum is convinced of the user
	spent    // another process has, or had, the login

	anySSH   = offering | talking | admitted | spent
	anyState = idle | proven | opening | open | anySSH
)

var stateNames = map[state]string{
	idle: "idle", talking: "talking", proven: "proven", opening: "opening", open: "open",
	offering: "ssh", admitted: "admitted", spent: "spent",
}

func (s state) String() string { return stateNames[s] }

// verbs is everything that a front end can ask for: in which states, only by
// one of ssh or not, with which attributes, how many descriptors, and who
// answers. Whatever is not here ends the conversation.
var verbs = map[string]struct {
	states  state
	onlySSH bool
	attrs   []string
	files   int // at most
	answer  func(*conv, capproto.Packet) (capproto.Msg, error)
}{
	capproto.VerbStart:    {idle, false, []string{"proto", "user", "host", "preauth"}, 1, (*conv).start},
	capproto.VerbRead:     {talking | opening, false, nil, 0, (*conv).read},
	capproto.VerbWrite:    {talking | opening, false, []string{"data"}, 0, (*conv).write},
	capproto.VerbSession:  {proven, false, nil, 0, (*conv).session},
	capproto.VerbAuthInfo: {open, false, nil, 0, (*conv).authinfo},
	capproto.VerbSign:     {anySSH, true, []string{"key", "alg", "data"}, 0, (*conv).sign},
	capproto.VerbUser:     {offering, true, []string{"name"}, 0, (*conv).nameUser},
	capproto.VerbAuth:     {offering | talking, true, []string{"user", "method", "data", "alg", "key", "sig"}, 0, (*conv).auth},
	capproto.VerbTicket:   {admitted, true, nil, 0, (*conv).giveTicket},
	capproto.VerbAttach:   {idle, true, []string{"ticket"}, 0, (*conv).attach},
	capproto.VerbAttr:     {anyState, false, nil, 0, (*conv).attr},
}

// answer checks a request against the table and the kernel's word on its
// sender, and has it answered. A request that the table does not allow is a
// protocol error, which ends the conversation.
func (c *conv) answer(p capproto.Packet) (capproto.Msg, error) {
	if err := c.checkSender(p.Cred); err != nil {
		return capproto.Msg{}, violation("%v", err)
	}
	c.first, c.heard = !c.heard, true
	v, ok := verbs[p.Verb]
	switch {
	case !ok:
		return capproto.Msg{}, violation("unknown request %s", p.Verb)
	case v.onlySSH && c.front.Proto != "ssh":
		return capproto.Msg{}, violation("%s from a front end that is not for ssh", p.Verb)
	case v.states&c.state == 0:
		return capproto.Msg{}, violation("%s in state %s", p.Verb, c.state)
	case len(p.Files) > v.files:
		return capproto.Msg{}, violation("%s with %d descriptors", p.Verb, len(p.Files))
	}
	if err := p.Only(v.attrs...); err != nil {
		return capproto.Msg{}, violation("%v", err)
	}
	return v.answer(c, p)
}

func violation(format string, args ...any) *capproto.Error {
	return &capproto.Error{Code: capproto.CodeProtocol, Text: fmt.Sprintf(format, args...)}
}

// checkSender finds out by the first packet which front end this is, and
// holds the later ones to it. The connection may have been made by root,
// before it became the front end.
func (c *conv) checkSender(cred *unix.Ucred) error {
	switch {
	case cred == nil || cred.Pid <= 0:
		return errors.New("packet without credentials")
	case c.sender == nil:
		front, ok := c.s.frontEnd(cred.Uid)
		if !ok {
			return fmt.Errorf("uid %d is no front end", cred.Uid)
		}
		if c.peer.Uid != cred.Uid && (c.peer.Uid != 0 || c.peer.Pid != cred.Pid) {
			return fmt.Errorf("connection made by uid %d, used by uid %d", c.peer.Uid, cred.Uid)
		}
		c.sender, c.front = cred, front
		c.log = c.log.With("service", front.Service)
	case c.sender.Uid != cred.Uid || c.sender.Pid != cred.Pid:
		return fmt.Errorf("packet from pid %d uid %d in the conversation of pid %d uid %d", cred.Pid, cred.Uid, c.sender.Pid, c.sender.Uid)
	}
	return nil
}

// start begins to authenticate. Which protocol a front end may start is
// configured: what sshd_config demands cannot be had for less by proto=pam.
func (c *conv) start(p capproto.Packet) (capproto.Msg, error) {
	proto := p.Get("proto")
	if proto != c.front.Proto {
		return capproto.Msg{}, violation("proto=%.40s, but this front end is for %s", proto, c.front.Proto)
	}
	if proto == "ssh" {
		return c.startSSH(p)
	}
	return c.startPAM(p)
}

func (c *conv) startPAM(p capproto.Packet) (capproto.Msg, error) {
	if c.tries >= c.conf.MaxAuthTries {
		return capproto.Msg{}, &capproto.Error{Code: capproto.CodeLimit, Text: "too many attempts"}
	}
	c.tries++
	c.userInLog = ""
	user := p.Get("user")
	if !possibleName(user) {
		return capproto.Msg{}, violation("impossible user name")
	}
	m := capproto.NewMsg("begin", "service", c.front.Service, "user", user)
	if dir := c.conf.PAMConfDir; dir != "" {
		m.Add("confdir", dir)
	}
	preauth := false
	switch v, ok := p.Lookup("preauth"); {
	case !ok:
	case v != "yes":
		return capproto.Msg{}, violation("preauth=%.40s", v)
	case c.peer.Uid != 0 || !c.first || user == "":
		// A front end that has had time to read something is not believed any
		// more, even if root has started it.
		reason := "preauth without root"
		if c.peer.Uid == 0 && !c.first {
			reason = "preauth is not the first request"
		}
		c.log.Warn("login refused", "user", user, "reason", reason)
		return capproto.Msg{}, &capproto.Error{Code: capproto.CodeDenied, Text: "only root may log in a user without a password"}
	default:
		preauth = true
	}
	// login -h says where a call came from; only a login that root started
	// (telnetd and the like) is believed.
	if host := p.Get("host"); host != "" && c.peer.Uid == 0 && len(host) <= 1024 {
		m.Add("rhost", host)
		c.rhost = host
	}
	if len(p.Files) > 0 {
		t, err := checkTTY(p.Files[0], int(p.Cred.Pid))
		if err != nil {
			return capproto.Msg{}, violation("%v", err)
		}
		c.setTTY(t)
		m.Add("tty", t.name)
	}
	if err := c.startWorker(); err != nil {
		return capproto.Msg{}, err
	}
	if err := c.begin(m); err != nil {
		return capproto.Msg{}, err
	}
	next := "authenticate"
	if preauth {
		next = "account"
	}
	if err := c.tell(capproto.NewMsg(next)); err != nil {
		return capproto.Msg{}, err
	}
	c.state = talking
	return capproto.NewMsg(capproto.VerbOK), nil
}

func possibleName(user string) bool {
	return len(user) <= 256 && !strings.ContainsAny(user, "\n\r")
}

// begin has the worker start its PAM transaction.
func (c *conv) begin(m capproto.Msg) error {
	if err := c.worker.begin(m); err != nil {
		return c.workerFailed(err)
	}
	answer, err := c.await()
	if err != nil {
		return err
	}
	if answer.Verb != capproto.VerbOK {
		return c.workerFailed(errors.New("it cannot begin: " + answer.Get("text")))
	}
	if name, ok := answer.Lookup("log"); ok {
		c.userInLog = name
	}
	return nil
}

// read answers with the next thing that the worker says.
func (c *conv) read(capproto.Packet) (capproto.Msg, error) {
	if c.question {
		return capproto.Msg{}, violation("read before the answer")
	}
	for {
		m, err := c.await()
		if err != nil {
			return m, err
		}
		switch {
		case m.Verb == "prompt":
			return c.prompt(m), nil
		case m.Verb == "proven" && c.state == talking && c.ssh != nil:
			return c.succeeded("keyboard-interactive", "keyboard-interactive/pam")
		case m.Verb == "proven" && c.state == talking:
			if err := c.tell(capproto.NewMsg("account")); err != nil {
				return m, err
			}
		case m.Verb == capproto.VerbDone && c.state == talking && c.ssh != nil:
			return c.admit(m)
		case m.Verb == capproto.VerbDone && c.state == talking:
			c.user = &person{name: m.Get("user")}
			c.state = proven
			c.log.Info("user authenticated", "user", c.user.name, "rhost", c.rhost, "tty", c.ttyName())
			return capproto.NewMsg(capproto.VerbDone), nil
		case m.Verb == "opened" && c.state == opening:
			if err := c.opened(m); err != nil {
				return m, c.workerFailed(err)
			}
			c.state = open
			c.s.nowOpen(c.worker, sessionInfo{c.user.name, c.front.Service, c.ttyName(), c.rhost, c.worker.leader.PID, time.Now()})
			c.log.Info("session opened", "user", c.user.name, "to", c.user.uid, "tty", c.ttyName(), "rhost", c.rhost, "worker", c.worker.pid())
			return capproto.NewMsg(capproto.VerbDone), nil
		case m.Verb == capproto.VerbError && c.ssh != nil && c.state == talking:
			return c.refusedSSH("keyboard-interactive", "keyboard-interactive/pam", m)
		case m.Verb == capproto.VerbError:
			return m, c.refused(m)
		default:
			return m, c.workerFailed(errors.New("it says " + m.Verb + " in state " + c.state.String()))
		}
	}
}

// write passes an answer to the worker.
func (c *conv) write(p capproto.Packet) (capproto.Msg, error) {
	if !c.question {
		return capproto.Msg{}, violation("an answer to no question")
	}
	c.question = false
	data := p.Get("data")
	if c.ssh != nil && !c.ssh.changing && c.ssh.noPassword() {
		data = junk
	}
	if err := c.tell(capproto.NewMsg("answer", "data", data)); err != nil {
		return capproto.Msg{}, err
	}
	return capproto.NewMsg(capproto.VerbOK), nil
}

// session has the PAM session opened for the sender's process, which the
// kernel has named, and which from now on is known by its pidfd.
func (c *conv) session(p capproto.Packet) (capproto.Msg, error) {
	h, err := proc.Open(int(p.Cred.Pid))
	if err != nil {
		return capproto.Msg{}, violation("the sender has ended")
	}
	st, err := proc.ReadStatus(h.PID)
	if err != nil || st.PID != h.PID || st.UID != p.Cred.Uid || !h.Alive() {
		h.Close()
		return capproto.Msg{}, violation("the sender has ended")
	}
	if err := c.stillHas(h.PID); err != nil {
		h.Close()
		return capproto.Msg{}, err
	}
	if err := c.s.addSession(p.Cred.Uid); err != nil {
		h.Close()
		return capproto.Msg{}, err
	}
	c.worker.leader, c.worker.uid = h, p.Cred.Uid
	m := capproto.NewMsg("session", "pid", fmt.Sprint(h.PID))
	if err := c.worker.conn.Send(m, h.File()); err != nil {
		return capproto.Msg{}, c.workerFailed(err)
	}
	c.state = opening
	return capproto.NewMsg(capproto.VerbOK), nil
}

// stillHas makes sure that the terminal, which will be made the user's, is still
// the process's own: in the meantime somebody else may have logged in there.
func (c *conv) stillHas(pid int) error {
	if c.tty == nil {
		return nil
	}
	if ps, err := proc.ReadStat(pid); err == nil && uint64(ps.TTY) == c.tty.rdev {
		return nil
	}
	c.log.Warn("login refused", "user", c.user.name, "reason", "the terminal is no longer that of the process", "tty", c.tty.name)
	return &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: "the terminal was taken over by another process; log in again"}}
}

// authinfo makes a capability for the sender.
func (c *conv) authinfo(p capproto.Packet) (capproto.Msg, error) {
	if len(c.caps) >= config.MaxCapsPerConversation {
		c.logNoCaps("too many in one conversation")
		return capproto.Msg{}, &capproto.Error{Code: capproto.CodeLimit, Text: "too many capabilities are outstanding"}
	}
	grant := capproto.Grant{From: p.Cred.Uid, To: c.user.uid, Groups: c.user.groups}
	key, err := c.s.makeCap(grant)
	if err != nil {
		if capproto.CodeOf(err) != "" {
			c.logNoCaps(err.Error())
		}
		return capproto.Msg{}, err
	}
	c.caps = append(c.caps, key.Hash())
	c.log.Info("capability given", "user", c.user.name, "capability", key)
	m := capproto.NewMsg(capproto.VerbOK)
	for _, a := range c.user.info.Attrs {
		if a.Name != "groups" {
			m.Attrs = append(m.Attrs, a)
		}
	}
	m.Attrs = append(m.Attrs, c.user.ssh...)
	m.Add("cap", key.Reveal())
	return m, nil
}

// logNoCaps logs that a capability is refused, once: the front end may ask on.
func (c *conv) logNoCaps(reason string) {
	if !c.noCaps {
		c.noCaps = true
		c.log.Warn("capability refused", "user", c.user.name, "reason", reason)
	}
}

// attr says what factotum holds true of the conversation.
func (c *conv) attr(capproto.Packet) (capproto.Msg, error) {
	m := capproto.NewMsg(capproto.VerbOK, "state", c.state.String(), "service", c.front.Service)
	if c.user != nil {
		m.Add("user", c.user.name)
	}
	return m, nil
}
