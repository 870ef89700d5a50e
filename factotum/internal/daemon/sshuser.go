package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
	"p9auth/internal/words"
)

// nameUser takes the user's name before there is a proof, and says what holds
// for the user. An account that does not exist differs in nothing but the Match
// blocks that hold, as with sshd.
func (l *sshProto) nameUser(p capproto.Packet) (capproto.Msg, error) {
	if l.sessionID == nil {
		return capproto.Msg{}, violation("user before the key exchange")
	}
	name, given := p.Lookup("name")
	switch {
	case l.identified:
		return capproto.Msg{}, violation("the user is named already")
	case !given:
		return capproto.Msg{}, violation("user without a name")
	}
	if err := l.identify(name); err != nil {
		return capproto.Msg{}, err
	}
	m := capproto.NewMsg(capproto.VerbOK, "settings", capproto.B64(sshdconf.ConnectionFormat.Encode(l.conf.Connection())), "methods", joinMethods(l.methods.Next()))
	if b := l.banner(); b != "" {
		m.Add("banner", b)
	}
	if l.barred {
		m.Add("invalid", "yes") // for the penalties: it must not show otherwise
	}
	return m, nil
}

// maxBanner bounds the file of Banner, in bytes, and the text as a packet has it, where
// an apostrophe counts twice. Clients of OpenSSH take 256 KiB.
const maxBanner = 128 << 10

// banner reads the file of Banner, as root: the administrator named it. sshd's
// monitor does the same.
func (l *sshProto) banner() string {
	if l.conf.Banner == "" {
		return ""
	}
	b, err := sys.ReadFile(l.conf.Banner, maxBanner)
	if err == nil && bytes.IndexByte(b, 0) >= 0 {
		err = errors.New(l.conf.Banner + " has a NUL byte")
	}
	if n := len(b) + bytes.Count(b, []byte("'")); err == nil && n > maxBanner {
		err = fmt.Errorf("%s has more than %d bytes, with each apostrophe counted twice", l.conf.Banner, maxBanner)
	}
	if err != nil {
		l.log.Error("the banner is not shown", "error", err.Error())
		return ""
	}
	return string(b)
}

// identify takes the user's name, finds out about the account and with which
// settings it may log in.
func (l *sshProto) identify(user string) error {
	l.signedName, l.identified = user, true
	l.name = withoutStyle(user)
	l.userInLog = l.name[:min(maxUserName, len(l.name))]
	if err := l.lookup(l.conf.UseDNS); err != nil {
		return err
	}
	l.valid = l.account != nil
	conf, err := l.gen.ssh.conf.For(l.connInfo())
	var groups []string
	if err == nil && len(conf.AllowGroups)+len(conf.DenyGroups) > 0 {
		groups, err = l.groups()
	}
	unknown := err
	if unknown != nil {
		l.account = nil
		if conf, err = l.gen.ssh.conf.For(l.connInfo()); err != nil {
			return err
		}
	}
	l.use(conf)
	l.admits(groups, unknown)
	if conf.RefuseConnection {
		l.sshlog(slog.LevelInfo, "administratively prohibited connection for %s%s %s", l.invalidUser(), l.visName(), l.from())
		return errConnectionRefused
	}
	return nil
}

// withoutStyle is a user's name without the style of BSD's authentication, which
// begins with the first colon and which sshd(8) leaves to systems that have styles.
func withoutStyle(user string) string {
	name, _, _ := strings.Cut(user, ":")
	return name
}

// nobodyName goes to NSS and PAM in place of a name that no account can have. It is
// one itself: passwd(5) separates its fields by colons.
const nobodyName = "NOUSER:"

// pamName is the user's name as NSS and PAM may have it.
func (l *sshProto) pamName() string {
	if l.name == "" || !possibleName(l.name) {
		return nobodyName
	}
	return l.name
}

// visName is the user's name as sshd's log has it.
func (l *sshProto) visName() string {
	const most = 100 // sshd's, in bytes
	return words.Vis(l.name[:min(most, len(l.name))])
}

// admits decides whether the account may log in at all, by AllowUsers and the
// like, and logs why not. unknown is why the user's groups are not known, or nil.
func (l *sshProto) admits(groups []string, unknown error) {
	from := l.host
	if from == "" {
		from = sockets.Host(l.remote.Addr())
	}
	user := l.visName()
	if l.account != nil {
		user = words.Vis(l.account.Name)
	}
	if unknown != nil {
		l.sshlog(slog.LevelError, "User %s from %s not allowed because the user's groups cannot be had: %v", user, from, unknown)
		l.valid = false
	} else if !l.valid {
		l.sshlog(slog.LevelInfo, "Invalid user %s %s", user, l.from())
	} else if bad := l.account.BadShell; bad != "" && l.conf.ChrootDirectory == "" { // sshd cannot know, either, what is in a root
		shell := l.account.Shell
		if shell == "" {
			shell = "/bin/sh"
		}
		l.sshlog(slog.LevelInfo, "User %s not allowed because shell %s %s", user, words.Vis(shell), bad)
		l.valid = false
	} else if why := l.conf.Admits(l.account.Name, l.host, l.remote.Addr(), groups); why != "" {
		l.sshlog(slog.LevelInfo, "User %s from %s not allowed because %s", user, from, why)
		l.valid = false
	}
	l.barred = !l.valid
}

// lookup starts a worker and has it look up the account, and the client's name if
// dns.
func (l *sshProto) lookup(dns bool) error {
	if err := l.startWorker(); err != nil {
		return err
	}
	q := pamwire.Lookup{User: l.pamName()}
	if dns {
		q.Addr = l.remote.Addr()
	}
	if err := l.tell(q); err != nil {
		return err
	}
	e, err := l.await()
	if err != nil {
		return err
	}
	host := ""
	switch e := e.(type) {
	case pamwire.Account:
		if q.User == nobodyName {
			return l.workerFailed(errors.New("it knows an account of a name that is impossible"))
		}
		l.account, host = &e, e.Host
	case pamwire.NoUser:
		l.account, host = nil, e.Host
	default:
		return l.unexpected(e)
	}
	if host != "" {
		l.host, l.rhost = host, host
	}
	return nil
}

// needWorker makes sure that there is a worker that has looked up the account. An
// account that is another one than before is not valid any more.
func (l *sshProto) needWorker() error {
	if l.worker != nil {
		return nil
	}
	before := l.account
	if err := l.lookup(false); err != nil {
		return err
	}
	if l.valid && (l.account == nil || before == nil || l.account.UID != before.UID || l.account.Name != before.Name) {
		l.valid, l.barred = false, true
	}
	return nil
}
