package daemon

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/proc"
)

// verbs is everything that a front end can ask for: in which states, only by
// one of ssh or not, how often, with which attributes, how many descriptors, and
// who answers. Whatever is not here ends the conversation.
var verbs = map[string]struct {
	states  state
	onlySSH bool
	once    bool // in a conversation
	attrs   []string
	files   int // at most
	answer  func(*conversation, capproto.Packet) (capproto.Msg, error)
}{
	capproto.VerbStart:    {idle, false, false, []string{"proto", "version", "user", "host", "preauth", "login", "forget", "status", "expired", "quiet", "option", "password"}, 1, (*conversation).start},
	capproto.VerbEnviron:  {idle, false, true, []string{"env..."}, 0, byPAM((*pamProto).passOn)},
	capproto.VerbRun:      {proven | asking, false, false, []string{"shell", "path", "dir", "preserve", "umask", "group...", "fd...", "arg...", "env...", "more..."}, 0, (*conversation).runLocal},
	capproto.VerbPermit:   {asking, false, true, nil, 0, byDoas((*doasProto).permit)},
	capproto.VerbSignal:   {open, false, false, []string{"pid", "signal"}, 0, bySU((*suProto).signal)},
	capproto.VerbRead:     {talking | opening, false, false, nil, 0, (*conversation).read},
	capproto.VerbWrite:    {talking | opening, false, false, []string{"data", "fail"}, 0, (*conversation).write},
	capproto.VerbSession:  {proven, false, true, []string{"display", "authority"}, 0, (*conversation).openSession},
	capproto.VerbAuthInfo: {open, false, false, nil, 0, (*conversation).authinfo},
	capproto.VerbSign:     {anySSH, true, false, []string{"key", "alg", "hash", "transcript"}, 0, bySSH((*sshProto).sign)},
	capproto.VerbNonce:    {admitted | handedOver, true, false, nil, 0, bySSH((*sshProto).nextNonce)},
	capproto.VerbProve:    {admitted | handedOver, true, false, []string{"key"}, 0, bySSH((*sshProto).prove)},
	capproto.VerbUser:     {offering, true, true, []string{"name"}, 0, bySSH((*sshProto).nameUser)},
	capproto.VerbAuth:     {offering | talking | accepting, true, false, []string{"user", "method", "data", "alg", "key", "sig", "hostbound"}, 0, bySSH((*sshProto).auth)},
	capproto.VerbToken:    {accepting, true, false, []string{"data", "more"}, 0, bySSH((*sshProto).gssToken)},
	capproto.VerbMIC:      {accepting, true, false, []string{"data"}, 0, bySSH((*sshProto).gssMIC)},
	capproto.VerbTicket:   {admitted, true, true, nil, 0, bySSH((*sshProto).giveToken)},
	capproto.VerbAttach:   {idle, true, true, []string{"ticket"}, 0, bySSH((*sshProto).attach)},
	capproto.VerbTerminal: {become, true, false, nil, 1, bySSH((*sshProto).beginTerminal)},
	capproto.VerbHangup:   {become, true, false, []string{"line"}, 0, bySSH((*sshProto).endTerminal)},
	capproto.VerbAttr:     {anyState, false, false, nil, 0, (*conversation).attr},
}

// bySSH is the answer to a verb that only a front end for ssh can ask for.
func bySSH(answer func(*sshProto, capproto.Packet) (capproto.Msg, error)) func(*conversation, capproto.Packet) (capproto.Msg, error) {
	return func(c *conversation, p capproto.Packet) (capproto.Msg, error) {
		return answer(c.proto.(*sshProto), p)
	}
}

// byPAM is the answer to a verb that only a front end for pam can ask for.
func byPAM(answer func(*pamProto, capproto.Packet) (capproto.Msg, error)) func(*conversation, capproto.Packet) (capproto.Msg, error) {
	return func(c *conversation, p capproto.Packet) (capproto.Msg, error) {
		l, ok := c.proto.(*pamProto)
		if !ok {
			return capproto.Msg{}, violation("%s from a front end that is not for pam", p.Verb)
		}
		return answer(l, p)
	}
}

// bySU is the answer to a verb that only su can ask for.
func bySU(answer func(*suProto, capproto.Packet) (capproto.Msg, error)) func(*conversation, capproto.Packet) (capproto.Msg, error) {
	return func(c *conversation, p capproto.Packet) (capproto.Msg, error) {
		l, ok := c.proto.(*suProto)
		if !ok {
			return capproto.Msg{}, violation("%s from a front end that is not for su", p.Verb)
		}
		return answer(l, p)
	}
}

// byDoas is the answer to a verb that only doas can ask for.
func byDoas(answer func(*doasProto, capproto.Packet) (capproto.Msg, error)) func(*conversation, capproto.Packet) (capproto.Msg, error) {
	return func(c *conversation, p capproto.Packet) (capproto.Msg, error) {
		l, ok := c.proto.(*doasProto)
		if !ok {
			return capproto.Msg{}, violation("%s from a front end that is not for doas", p.Verb)
		}
		return answer(l, p)
	}
}

// runLocal takes what su is to execute once the user is proven, and doas before it asks.
func (c *conversation) runLocal(p capproto.Packet) (capproto.Msg, error) {
	switch l := c.proto.(type) {
	case *suProto:
		return l.run(p)
	case *doasProto:
		if l.state == asking {
			if l.asked == nil {
				l.asked = newAsked()
			}
			return l.asked.add(p)
		}
	}
	return capproto.Msg{}, violation("%s in state %s of this protocol", p.Verb, c.state)
}

// answer checks a request against the table and the kernel's word on its
// sender, and has it answered. A request that the table does not allow is a
// protocol error, which ends the conversation.
func (c *conversation) answer(p capproto.Packet) (capproto.Msg, error) {
	if err := c.checkSender(p.Cred); err != nil {
		return capproto.Msg{}, violation("%v", err)
	}
	c.count++
	if c.local && c.proto == nil && p.Verb == capproto.VerbStart {
		if err := c.bindLocal(p); err != nil {
			return capproto.Msg{}, err
		}
	}
	v, ok := verbs[p.Verb]
	switch {
	case !ok:
		return capproto.Msg{}, violation("unknown request %s", p.Verb)
	case c.proto == nil && p.Verb != capproto.VerbAttr:
		return capproto.Msg{}, violation("%s before start", p.Verb)
	case v.onlySSH && c.binding.Proto != "ssh":
		return capproto.Msg{}, violation("%s from a front end that is not for ssh", p.Verb)
	case v.states&c.state == 0:
		return capproto.Msg{}, violation("%s in state %s", p.Verb, c.state)
	case v.once && c.asked[p.Verb]:
		return capproto.Msg{}, violation("%s for the second time", p.Verb)
	case len(p.FDs) > v.files:
		return capproto.Msg{}, violation("%s with %d descriptors", p.Verb, len(p.FDs))
	}
	if err := p.Only(v.attrs...); err != nil {
		return capproto.Msg{}, violation("%v", err)
	}
	c.asked[p.Verb] = true
	return v.answer(c, p)
}

// checkSender finds out by the first packet which front end this is, and
// holds the later ones to it. The connection may have been made by root,
// before it became the front end.
func (c *conversation) checkSender(cred *unix.Ucred) error {
	switch {
	case cred == nil || cred.Pid <= 0:
		return errors.New("packet without credentials")
	case c.sender == nil:
		binding, ok := c.gen.fronts[cred.Uid]
		if !ok && isSelf(c.peer) && isSelf(cred) {
			c.sender = cred // without a protocol
			return nil
		}
		if !ok && c.gen.isLocal(cred.Uid) && c.peer.Uid == cred.Uid && c.peer.Pid == cred.Pid {
			c.sender, c.local = cred, true // the protocol is that of start
			c.process, _ = proc.Open(int(cred.Pid))
			return c.senderLives()
		}
		if !ok {
			return fmt.Errorf("uid %d is not a front end", cred.Uid)
		}
		if c.peer.Uid != cred.Uid && (c.peer.Uid != 0 || c.peer.Pid != cred.Pid) {
			return fmt.Errorf("connection made by uid %d, used by uid %d", c.peer.Uid, cred.Uid)
		}
		c.sender, c.binding = cred, binding
		c.log = c.log.With("service", binding.Service)
		switch binding.Proto {
		case "pam":
			c.proto = &pamProto{conversation: c}
		case "ssh":
			c.proto = &sshProto{conversation: c}
		}
	case c.becomes(cred):
		c.caps.revoke(c.sender.Uid, c.given) // one is used up, and the others must not count any longer
		c.sender, c.state, c.given = cred, become, nil
		c.grace.Stop()
	case c.sender.Uid != cred.Uid || c.sender.Pid != cred.Pid:
		return fmt.Errorf("packet from pid %d uid %d in the conversation of pid %d uid %d", cred.Pid, cred.Uid, c.sender.Pid, c.sender.Uid)
	case c.local:
		return c.senderLives()
	}
	return nil
}

// becomes reports whether a packet is the first one of a sender by ssh that has
// redeemed a capability since: of the same process, which is the user.
func (c *conversation) becomes(cred *unix.Ucred) bool {
	return c.state == open && c.binding.Proto == "ssh" && len(c.given) > 0 && cred.Pid == c.sender.Pid && cred.Uid != c.sender.Uid && cred.Uid == c.user.uid
}

// start begins to authenticate. Which protocol a front end may start is
// configured: otherwise proto=pam would bypass sshd_config.
func (c *conversation) start(p capproto.Packet) (capproto.Msg, error) {
	if proto := p.Get("proto"); proto != c.binding.Proto {
		return capproto.Msg{}, violation("proto=%.40s, but this front end is for %s", proto, c.binding.Proto)
	}
	if err := checkVersion(p, c.binding.Proto); err != nil {
		return capproto.Msg{}, err
	}
	m, err := c.proto.start(p)
	if err != nil {
		return capproto.Msg{}, err
	}
	m.Add("version", strconv.Itoa(capproto.Version))
	return m, nil
}

// checkVersion refuses a front end of another version of the rpc. One that says
// none is from before there were versions.
func checkVersion(p capproto.Packet, proto string) error {
	theirs := 0
	if v, ok := p.Lookup("version"); ok {
		n, err := strconv.ParseUint(v, 10, 31)
		if err != nil || strconv.FormatUint(n, 10) != v {
			return violation("version=%.40s", v)
		}
		theirs = int(n)
	}
	if theirs == capproto.Version {
		return nil
	}
	return (&capproto.VersionError{Proto: proto, FrontEnd: theirs, Factotum: capproto.Version}).Reply()
}

// read answers with the next thing that the worker says to the person, or with
// the verdict.
func (c *conversation) read(capproto.Packet) (capproto.Msg, error) {
	if c.question {
		return capproto.Msg{}, violation("read before the answer")
	}
	for {
		e, err := c.await()
		if err != nil {
			return capproto.Msg{}, err
		}
		if err := c.judged(e); err != nil {
			return capproto.Msg{}, err
		}
		var m *capproto.Msg
		if p, ok := e.(pamwire.Prompt); ok {
			m = c.prompt(p)
		} else if c.state == opening {
			m, err = c.opens(e)
		} else {
			m, err = c.proto.heard(e)
		}
		if err != nil {
			return capproto.Msg{}, err
		}
		if m != nil {
			return *m, nil
		}
	}
}

// write passes an answer to the worker.
func (c *conversation) write(p capproto.Packet) (capproto.Msg, error) {
	if !c.question {
		return capproto.Msg{}, violation("an answer to no question")
	}
	if v, ok := p.Lookup("fail"); ok {
		if _, both := p.Lookup("data"); both || v != "yes" {
			return capproto.Msg{}, violation("fail=%.40s with data=, or not yes", v)
		}
		c.question = false
		return capproto.NewMsg(capproto.VerbOK), c.tell(pamwire.Answer{Fail: true})
	}
	c.question = false
	data := p.Get("data")
	if c.state == talking {
		data = c.proto.answer(data)
		if c.local {
			if err := c.takeTurn(); err != nil {
				return capproto.Msg{}, err
			}
		}
	}
	if err := c.tell(pamwire.Answer{Data: data}); err != nil {
		return capproto.Msg{}, err
	}
	return capproto.NewMsg(capproto.VerbOK), nil
}

// attr says what factotum holds true of the conversation.
func (c *conversation) attr(capproto.Packet) (capproto.Msg, error) {
	m := capproto.NewMsg(capproto.VerbOK, "state", c.state.String(), "service", c.binding.Service)
	if c.user != nil {
		m.Add("user", c.user.name)
	}
	return m, nil
}
