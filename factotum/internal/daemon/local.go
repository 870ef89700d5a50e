package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
	"p9auth/internal/proc"
)

// The conversations of people who are logged in, who call su and the like: of any
// uid that is no front end of its own. Whoever speaks here is the caller, whom the
// kernel names, and every word of it is the caller's wish. They have limits of their
// own, so that nobody who is logged in keeps others from logging in.

// Limits of those conversations, of one calling uid and of all together.
const (
	localConversations, localConversationsPerUID = 256, 32
	localStartups, localStartupsPerUID           = 64, 8
	localSessions, localSessionsPerUID           = 2048, 256
	localCapsPerUID                              = 32
	localStartsPerMinute                         = 600 // of workers; those of a minute may come at once
)

// A localCore is what these conversations share.
type localCore struct {
	locals  sessions // by su and the like
	turns   turns    // of the callers' proofs
	starts  guesses  // of workers, by the calling uid
	tickets tickets  // of those who need not prove who they are again
}

// A localCall is what a conversation has where it is one of them.
type localCall struct {
	local   bool         // the peer is somebody who is logged in
	process *proc.Handle // of the sender
	turn    *turn        // whose proof is being judged, or nil
	line    string       // the caller's terminal without /dev/, or ""
}

// senderLives says of a local caller that what the kernel said of the sender's pid until
// this moment was of the sender: while it lives, nobody else gets the pid.
func (c *conversation) senderLives() error {
	if c.process == nil || !c.process.Alive() {
		return errSenderEnded
	}
	return nil
}

// hangUp frees what a local caller's conversation has.
func (l *localCall) hangUp() {
	l.turn.end(unjudged)
	if l.process != nil {
		l.process.Close()
	}
}

// localCaller is the key of what one calling uid has of these.
type localCaller uint32

// locals is the key of all of them together.
type locals struct{}

// isLocal says whether a uid may have such conversations: not one that has a FrontEnd
// line, so that who has taken a front end over gets nothing here.
func (g *generation) isLocal(uid uint32) bool {
	_, isFrontEnd := g.fronts[uid]
	return len(g.conf.Local) > 0 && !isFrontEnd
}

// bindLocal chooses the binding of a caller's conversation by its first request.
func (c *conversation) bindLocal(p capproto.Packet) error {
	name := p.Get("proto")
	b, ok := c.gen.conf.Local[name]
	if !ok {
		return &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: fmt.Sprintf("%.40s is not configured here; the administrator can add FrontEnd * %.40s %.40s to factotum.conf", name, name, name)}}
	}
	if c.caps.bind == nil && name != "passwd" && name != "chkpwd" { // which need no capability
		return &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: fmt.Sprintf("%.40s does not work with the kernel's capability device, which cannot bind a program to a capability", name)}}
	}
	c.binding = b
	c.log = c.log.With("service", b.Service)
	switch name {
	case "su":
		c.proto = &suProto{localProto: localProto{conversation: c}}
	case "passwd":
		c.proto = &passwdProto{passwordProto{localProto{conversation: c}}}
	case "chkpwd":
		c.proto = &chkpwdProto{passwordProto{localProto{conversation: c}}}
	case "doas":
		c.proto = &doasProto{localProto: localProto{conversation: c, bareTTY: true}}
	default:
		return &fatal{&capproto.Error{Code: capproto.CodeInternal, Text: fmt.Sprintf("this factotum does not have %.40s", name)}}
	}
	return nil
}

// A localProto is what the protocols of local callers have in common.
type localProto struct {
	*conversation
	caller       string // the name of the calling uid, "" if it has none
	shell        string // theirs
	accountAsked bool   // the user is proven, and PAM is asked about the account
	bareTTY      bool   // PAM_TTY is without /dev/, as opendoas has it; su(1) has the path
}

// paceWorkers holds back a caller who has had many workers in a short time: each costs
// as much as a program that the caller starts, and it is not the caller who pays.
func (c *conversation) paceWorkers() error {
	uid := c.sender.Uid
	if !c.local || uid == 0 {
		return nil
	}
	if err := c.pause(c.starts.wait(localCaller(uid), time.Now()), "too many conversations in a short time; try again later"); err != nil {
		return err
	}
	c.starts.wrong(localCaller(uid), time.Now(), localStartsPerMinute)
	return nil
}

// beginAs starts PAM's transaction for a user, or for the caller if user is "", in a
// worker with the caller's real uid. There is one in a conversation.
func (l *localProto) beginAs(service, user string, p capproto.Packet) error {
	if !possibleName(user) {
		return violation("impossible user name")
	}
	if len(p.FDs) > 0 {
		l.line = lineOf(p.FDs[0], int(p.Cred.Pid))
	}
	if err := l.startWorker(); err != nil {
		return err
	}
	return l.beginIn(service, user, p.Cred)
}

// beginIn starts the transaction in the worker that is there. User "" is the caller.
func (l *localProto) beginIn(service, user string, cred *unix.Ucred) error {
	caller := &pamwire.Caller{UID: cred.Uid, GID: cred.Gid}
	tty := l.line
	if tty != "" && !l.bareTTY {
		tty = "/dev/" + tty
	}
	if err := l.tell(pamwire.Begin{Service: service, User: user, TTY: tty, ConfDir: l.gen.conf.PAMConfDir, Caller: caller}); err != nil {
		return err
	}
	e, err := l.await()
	if err != nil {
		return err
	}
	switch e := e.(type) {
	case pamwire.Begun:
		l.caller, l.shell, l.userInLog = e.Caller, e.Shell, e.LogName
		l.log = l.log.With("caller", e.Caller)
		return nil
	case pamwire.Refused:
		return &fatal{&capproto.Error{Code: e.Code, Text: e.Text}}
	}
	return l.unexpected(e)
}

// lineOf is the name of a terminal in /dev, if it is the controlling terminal of the
// process that sent it, or "". It goes to PAM and the log, and nobody acts on it.
func lineOf(fd, pid int) string {
	st, err := statx(fd, "")
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return ""
	}
	ps, err := proc.ReadStat(pid)
	if err != nil || ps.TTY == 0 || uint64(ps.TTY) != rdev(st) {
		return ""
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	name, ok := strings.CutPrefix(path, "/dev/")
	if err != nil || !ok || path != filepath.Clean(path) || len(name) > 64 {
		return ""
	}
	if there, err := statx(unix.AT_FDCWD, path); err != nil || rdev(there) != rdev(st) || there.Mode&unix.S_IFMT != unix.S_IFCHR {
		return ""
	}
	return name
}

// answer passes on what was typed.
func (l *localProto) answer(typed string) string { return typed }

// heard judges PAM's verdict on the proof, and then on the account. After a no the
// conversation is over: the next attempt is another one.
func (l *localProto) heard(e pamwire.Event) (*capproto.Msg, error) {
	switch e := e.(type) {
	case pamwire.Proven:
		if l.accountAsked {
			return nil, l.unexpected(e)
		}
		l.accountAsked = true
		return nil, l.tell(pamwire.CheckAccount{})
	case pamwire.AccountValid:
		if !l.accountAsked {
			return nil, l.unexpected(e)
		}
		return l.accepted(e, "tty", l.line), nil
	case pamwire.Refused:
		l.log.Event(status.Refused, "user", l.userInLog, "reason", e.Text, "code", e.Code, "tty", l.line)
		return nil, &fatal{&capproto.Error{Code: e.Code, Text: e.Text}}
	}
	return nil, l.unexpected(e)
}

func (l *localProto) end() {}
