package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
	"p9auth/internal/becomerecord"
	"p9auth/internal/doasconf"
	"p9auth/internal/proc"
	"p9auth/internal/words"
)

// A doasProto is doas(1): doas.conf decides who may execute what as whom, PAM whether
// the caller is who they are, and the capability is bound to that command.
type doasProto struct {
	localProto
	target string         // as the caller has named them
	to     uint32         // the target's uid
	asked  *suAsked       // what is to be executed
	rule   *doasconf.Rule // which permits that
	named  bool           // PAM has admitted the caller, and the target is being looked up
}

// start begins PAM's transaction for the caller, or takes back their ticket.
func (l *doasProto) start(p capproto.Packet) (capproto.Msg, error) {
	if l.worker != nil {
		return capproto.Msg{}, violation("start for the second time")
	}
	if p.Get("forget") == "yes" {
		l.tickets.drop(l.process, p.Cred.Uid)
		return capproto.NewMsg(capproto.VerbOK), nil
	}
	if l.target = p.Get("user"); l.target == "" || !possibleName(l.target) {
		return capproto.Msg{}, violation("impossible user name")
	}
	if err := l.beginAs(l.binding.Service, "", p); err != nil {
		return capproto.Msg{}, err
	}
	l.state = asking
	m := capproto.NewMsg(capproto.VerbOK)
	if l.shell != "" {
		m.Add("shell", l.shell)
	}
	return m, nil
}

// permit reads the rules, and decides. What it decides holds to the end of the
// conversation.
func (l *doasProto) permit(p capproto.Packet) (capproto.Msg, error) {
	uid := p.Cred.Uid
	if l.asked == nil || len(l.asked.args) == 0 {
		return capproto.Msg{}, violation("permit before run")
	}
	rules, err := readRules(doasConf)
	if err != nil {
		return capproto.Msg{}, l.refuse(capproto.CodeAccount, err.Error())
	}
	if err := l.decide(rules, uid); err != nil {
		return capproto.Msg{}, err
	}
	if l.rule == nil || !l.rule.Permit {
		return capproto.Msg{}, l.refuse(capproto.CodeDenied, "Operation not permitted")
	}
	m := capproto.NewMsg(capproto.VerbOK)
	l.state = talking
	if l.rule.NoPass || l.rule.Persist && l.tickets.valid(l.process, uid) {
		m.Add("proof", "no")
		l.accountAsked = true
		return m, l.tell(pamwire.CheckAccount{})
	}
	m.Add("proof", "yes")
	return m, l.tell(pamwire.Authenticate{})
}

// decide finds the rule.
func (l *doasProto) decide(rules []doasconf.Rule, uid uint32) error {
	users, groups := doasconf.Mentioned(rules)
	n, err := l.resolve(append(users, l.target), groups)
	if err != nil {
		return err
	}
	var ok bool
	if l.to, ok = n.UID(l.target); !ok {
		if l.to, ok = doasconf.ParseID(l.target); !ok {
			return l.refuse(capproto.CodeAccount, "unknown user")
		}
	}
	q := doasconf.Request{UID: uid, Target: l.to, Argv: l.asked.args}
	if q.Groups, err = l.groups(); err != nil {
		return violation("%v", err)
	}
	l.rule = doasconf.Decide(rules, q, n)
	return nil
}

// groups are the groups of the process that sends, its real one too.
func (l *doasProto) groups() ([]uint32, error) {
	groups, err := proc.ReadGroups(l.process.PID)
	if err != nil {
		return nil, errSenderEnded
	}
	return groups, l.senderLives()
}

// refuse logs a command that is not executed, and ends the conversation.
func (l *doasProto) refuse(code, text string) error {
	l.log.Log(l.log.Counted(status.Refused), slog.LevelWarn, "command not permitted",
		"user", l.target, "reason", text, "command", l.command(), "tty", l.line, "from", l.asked.dir)
	return &fatal{&capproto.Error{Code: code, Text: text}}
}

// command is the command for the log.
func (l *doasProto) command() string { return words.Clip(strings.Join(l.asked.args, " "), 1024) }

// heard has the session made the target's once PAM has admitted the caller.
func (l *doasProto) heard(e pamwire.Event) (*capproto.Msg, error) {
	v, ok := e.(pamwire.AccountValid)
	switch {
	case !ok:
		return l.localProto.heard(e)
	case !l.accountAsked:
		return nil, l.unexpected(e)
	case !l.named && v.UID != l.sender.Uid:
		return nil, l.workerFailed(fmt.Errorf("PAM has admitted uid %d in place of the caller, uid %d", v.UID, l.sender.Uid))
	case !l.named:
		l.named = true
		return nil, l.tell(pamwire.Target{UID: l.to})
	case v.UID != l.to:
		return nil, l.workerFailed(fmt.Errorf("it looked up uid %d as uid %d", l.to, v.UID))
	}
	if l.rule.Persist {
		l.tickets.give(l.process, l.sender.Uid)
	}
	return l.localProto.heard(e)
}

// describe says which program it is, so that the caller can hear what is wrong with it.
func (l *doasProto) describe() []capproto.Attr {
	path, _ := l.path()
	return []capproto.Attr{{Name: "runs", Value: path}}
}

// environment is nothing that the front end needs to know.
func (l *doasProto) environment(*pamwire.Opened) []string { return nil }

// bound binds the capability to the command, in the directory that the process is in.
func (l *doasProto) bound(o *pamwire.Opened, _ uint32, _ string) (*becomerecord.Bound, error) {
	path, err := l.path()
	if err != nil {
		return nil, err
	}
	theirs := l.asked.env
	if l.sender.Uid != 0 {
		theirs = nil
		for _, kv := range l.asked.env {
			if !unsafeVariable(kv) {
				theirs = append(theirs, kv)
			}
		}
	}
	b := &becomerecord.Bound{Umask: l.asked.umask, Limits: map[int]becomerecord.Limit{}}
	addSession(b, o, l.worker.PID())
	b.Path, b.Argv, b.FDs = path, l.asked.args, []uint32{0, 1, 2}
	b.Env = l.rule.Environment(l.caller, doasconf.Person{Name: o.User, Home: o.Home, Shell: o.Shell}, theirs)
	b.KeepLoginUID = true // it says who has logged in, and that has not changed
	if err := l.fit(b, o); err != nil {
		return nil, err
	}
	if !l.rule.NoLog {
		l.log.Info("command permitted", "user", o.User, "command", l.command(), "path", path, "tty", l.line, "from", l.asked.dir, "line", l.rule.Line)
	}
	return b, nil
}

// path is the program. One that the rule names is looked for where its owner has said
// nothing, so that the caller cannot put another in its place.
func (l *doasProto) path() (string, error) {
	cmd, theirs := l.asked.args[0], l.asked.path
	notFound := &capproto.Error{Code: capproto.CodeAccount, Text: words.Clip(cmd, unix.PathMax) + ": command not found"}
	switch {
	case cmd == "":
		return "", notFound
	case len(cmd) >= unix.PathMax:
		return "", &capproto.Error{Code: capproto.CodeAccount, Text: words.Clip(cmd, 100) + "...: File name too long"}
	case strings.HasPrefix(cmd, "/"):
		return cmd, nil
	case l.rule.HasCmd && strings.Contains(cmd, "/"):
		return "", &capproto.Error{Code: capproto.CodeAccount, Text: cmd + ": a rule cannot permit a path that is relative to the caller's directory"}
	case l.rule.HasCmd:
		for dir := range strings.SplitSeq(doasconf.SafePath, ":") {
			path := filepath.Join(dir, cmd)
			if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return path, nil
			}
		}
		return "", notFound
	case theirs == "":
		return "", notFound
	case !strings.HasPrefix(theirs, "/") || !strings.HasSuffix(theirs, "/"+cmd):
		return "", violation("path=%.80s for another command", theirs)
	}
	return theirs, nil
}
