package daemon

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
	"p9auth/internal/becomerecord"
	"p9auth/internal/proc"
)

// The session of a user who is proven, and its capabilities: the same for each
// protocol.

// openSession has the PAM session opened for the sender's process, which the
// kernel has named, and which from now on is known by its pidfd.
func (c *conversation) openSession(p capproto.Packet) (capproto.Msg, error) {
	x, err := c.display(p)
	if err != nil {
		return capproto.Msg{}, err
	}
	leader, err := c.leader(int(p.Cred.Pid), p.Cred.Uid)
	if err != nil {
		return capproto.Msg{}, violation("%v", err)
	}
	// The terminal, which will be made the user's, must still be the process's own:
	// in the meantime somebody else may have logged in there.
	if c.tty != nil && !c.tty.isOf(leader.PID) {
		leader.Close()
		c.log.Event(status.Refused, "user", c.user.name, "reason", "the terminal is no longer that of the process", "tty", c.tty.name)
		return capproto.Msg{}, &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: "the terminal was taken over by another process; log in again"}}
	}
	s, err := c.addSession(p.Cred.Uid, leader)
	if err != nil {
		leader.Close()
		return capproto.Msg{}, err
	}
	c.session = s
	s.x = x
	if l, ok := c.proto.(*suProto); ok {
		s.groups = l.groups()
	}
	if err := c.worker.Open(s); err != nil {
		return capproto.Msg{}, c.workerFailed(err)
	}
	c.state = opening
	return capproto.NewMsg(capproto.VerbOK), nil
}

// addSession counts the session of the sender.
func (c *conversation) addSession(uid uint32, leader *proc.Handle) (*session, error) {
	if c.local {
		return c.locals.addLocal(uid, c.user, leader)
	}
	return c.sessions.add(uid, c.user, leader, c.gen.conf)
}

// openLeader opens a handle on the process of that pid, which is of that uid.
func openLeader(pid int, uid uint32) (*proc.Handle, error) {
	h, err := proc.Open(pid)
	if err != nil {
		return nil, errSenderEnded
	}
	st, err := proc.ReadStatus(h.PID)
	if err != nil || st.PID != h.PID || st.UID != uid || !h.Alive() {
		h.Close()
		return nil, errSenderEnded
	}
	return h, nil
}

var errSenderEnded = errors.New("the sender has ended")

// opens judges what the worker says while it opens the session, but for prompts.
func (c *conversation) opens(e pamwire.Event) (*capproto.Msg, error) {
	switch e := e.(type) {
	case pamwire.Opened:
		if e.User != c.user.name || e.UID != c.user.uid {
			return nil, c.workerFailed(fmt.Errorf("it opened a session for %s, uid %d", e.User, e.UID))
		}
		if (e.Root != nil) != (c.user.root != "") {
			return nil, c.workerFailed(errors.New("it opened a session with another root directory than ChrootDirectory"))
		}
		if err := c.mayBeUnbound(&e); err != nil {
			return nil, err
		}
		if err := c.keepContext(&e); err != nil {
			return nil, err
		}
		c.user.opened = &e
		c.state = open
		if c.speaker != nil {
			c.speaker.joins(c.session)
			c.stays = &speaker{place: c.place}
			c.stays.joins(c.session)
		}
		if c.local {
			c.stays = &speaker{place: c.place}
			c.stays.joins(c.session)
			c.grace.Stop() // su goes on for as long as the shell
		}
		c.session.opened(c.user.name, c.binding.Service, c.ttyName(), c.rhost)
		c.log.Event(status.SessionOpened, "user", c.user.name, "to", e.UID, "tty", c.ttyName(), "rhost", c.rhost, "worker", c.worker.PID())
		m := capproto.NewMsg(capproto.VerbDone)
		return &m, nil
	case pamwire.Refused:
		c.log.Event(status.Refused, "user", c.userInLog, "reason", e.Text, "code", e.Code, "rhost", c.rhost, "tty", c.ttyName())
		return nil, &fatal{&capproto.Error{Code: e.Code, Text: e.Text}}
	}
	return nil, c.unexpected(e)
}

// authinfo makes a capability for the sender, and says who the user is.
func (c *conversation) authinfo(p capproto.Packet) (capproto.Msg, error) {
	if len(c.given) >= config.MaxCapsPerConversation {
		return capproto.Msg{}, c.noCapability(&capproto.Error{Code: capproto.CodeLimit, Text: "too many capabilities are outstanding"},
			"too many in one conversation")
	}
	o := c.user.opened
	m := describeSession(o, c.proto.environment(o), c.user.ptys)
	m.Attrs = append(m.Attrs, c.proto.describe()...)
	login, err := m.Encode()
	if err != nil {
		return capproto.Msg{}, err
	}
	bound, err := c.proto.bound(o, c.user.ptys, string(login))
	if err != nil {
		return capproto.Msg{}, err
	}
	capability, err := c.caps.make(capproto.Grant{From: p.Cred.Uid, To: o.UID, Groups: o.Groups}, bound, c.mostCaps())
	if err != nil {
		return capproto.Msg{}, c.noCapability(err, err.Error())
	}
	c.given = append(c.given, capability.Hash())
	c.log.Event(status.CapabilityGiven, "user", c.user.name, "capability", capability)
	m.Add("cap", capability.Reveal())
	return m, nil
}

// mostCaps is how many the sender's uid may have.
func (c *conversation) mostCaps() int {
	if c.local && c.sender.Uid != 0 {
		return localCapsPerUID
	}
	return c.caps.most
}

// describeSession is what the user's process is to become: each attribute that
// passes from the worker to the front end is named here.
func describeSession(o *pamwire.Opened, env []string, ptys uint32) capproto.Msg {
	m := capproto.NewMsg(capproto.VerbOK, "user", o.User, "uid", id(o.UID), "gid", id(o.GID), "home", o.Home, "shell", o.Shell)
	for _, kv := range env {
		m.Add("env", kv)
	}
	if o.Umask != nil {
		m.Add("umask", fmt.Sprintf("%03o", *o.Umask))
	}
	if o.NoFile != nil {
		m.Add("nofile", o.NoFile.String())
	}
	if o.NProc != nil {
		m.Add("nproc", o.NProc.String())
	}
	if o.NoHome != "" {
		m.Add("nohome", o.NoHome)
	}
	if o.Hush {
		m.Add("hush", "yes")
	}
	if o.Root != nil {
		m.Add("root", o.Root.Path)
		m.Add("ptys", id(ptys))
	}
	return m
}

// bind is what a bound capability does in any case, by what the modules of the
// session have set.
func bind(o *pamwire.Opened, worker int) *becomerecord.Bound {
	b := &becomerecord.Bound{Umask: 0o22, Limits: map[int]becomerecord.Limit{}}
	addSession(b, o, worker)
	for n, l := range o.Limits {
		b.Limits[n] = becomerecord.Limit(l)
	}
	return b
}

// addSession adds what the modules have set: mask, limits, and what only the user's
// process can take on. The mount namespace is that of the worker.
func addSession(b *becomerecord.Bound, o *pamwire.Opened, worker int) {
	p := o.Process
	b.Process = becomerecord.Process{Context: p.Context, Keyring: p.Keyring, Inheritable: p.Inheritable, Ambient: p.Ambient, TTYAudit: p.TTYAudit}
	if m := p.Mounts; m != nil {
		b.Mounts = &becomerecord.Mounts{Path: fmt.Sprintf("/proc/%d/ns/mnt", worker), Dev: m.Dev, Ino: m.Ino}
	}
	if o.Umask != nil {
		b.Umask = *o.Umask
	}
	if o.NoFile != nil {
		b.Limits[unix.RLIMIT_NOFILE] = becomerecord.Limit(*o.NoFile)
	}
	if o.NProc != nil {
		b.Limits[unix.RLIMIT_NPROC] = becomerecord.Limit(*o.NProc)
	}
}

func id(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// noCapability logs that a capability is refused, once: the front end may ask
// on. It returns the error that the front end gets.
func (c *conversation) noCapability(err error, reason string) error {
	if capproto.CodeOf(err) != "" && !c.noCaps {
		c.noCaps = true
		c.log.Event(status.CapabilityRefused, "user", c.user.name, "reason", reason)
	}
	return err
}
