package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/sshauth"
	"p9auth/factotum/internal/status"
	"p9auth/internal/authkeys"
	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
)

// An sshProto proves a user by the proofs of RFC 4252 that an SSH client offers
// over one connection. Decisions are package sshauth's.
type sshProto struct {
	*conversation
	conf          *sshdconf.Settings // for the address, then for the user
	remote, local netip.AddrPort

	// Key exchanges.
	version   string            // that this server announces
	nonce     *sshauth.Nonce    // of the next one; nil: it is used, and no other is given
	sessionID []byte            // the first exchange hash that was signed
	hostKey   []byte            // or certificate, that signed it
	algorithm string            // of the last signature
	proved    map[string][]byte // what prove has answered, by the host key
	pace      sshauth.Pace
	hurried   bool // and that is in the log

	// The user.
	identified bool             // named, for good
	signedName string           // as the client named them, and signs
	name       string           // without the style that BSD's authentication takes: PAM's, and for the log
	host       string           // the client's name, or its address
	account    *pamwire.Account // nil: there is none of that name
	valid      bool             // the account exists and may log in
	barred     bool             // no proof is accepted: a wrong password takes the place of each
	lookedAt   []byte           // the key that allowed and options are of
	allowed    bool             // it may log the user in
	options    *authkeys.Options

	// The proofs.
	methods      sshauth.Methods
	offers       int               // proofs that were offered
	failures     int               // and refused
	givenUp      int               // contexts of GSSAPI that the client did not establish
	usedKeys     [][]byte          // a key counts once
	keyOptions   *authkeys.Options // of the keys that proved the user, merged
	proofs       []string          // for ExposeAuthInfo
	begun        bool              // PAM's transaction has begun
	accountAsked bool              // and its account stage: the user is proven
	accepted     sshauth.Detail    // the last proof, which waits for it
	gss          *gssContext       // that the client establishes, or nil
	delegated    []byte            // credentials that the client has delegated, for the session
	expired      bool              // a password has expired, and is changed in the session
	messages     []string          // what PAM has to say, until there is a session to say it in

	token    *tokenHash      // of the handover that was given
	speaks   *speaker        // from then on
	attached []capproto.Attr // after attach: what describe says
	lines    map[string]bool // of terminals that are recorded
}

// start begins an SSH conversation over a connection, of which the kernel says
// between which addresses it is, or that it has none.
func (l *sshProto) start(p capproto.Packet) (capproto.Msg, error) {
	if err := p.Only("proto", "version"); err != nil || len(p.FDs) > 1 {
		return capproto.Msg{}, violation("start proto=ssh wants one descriptor at most, and nothing else")
	}
	if len(p.FDs) == 0 && !l.gen.conf.UnknownAddresses {
		return capproto.Msg{}, violation("the client is not connected by TCP, and its address is unknown: see UnknownAddresses in factotum.conf(5)")
	}
	l.remote, l.local = sockets.Unknown, sockets.Unknown
	for _, fd := range p.FDs {
		err := l.gen.nets.believe(fd)
		if err != nil {
			return capproto.Msg{}, violation("%v", err)
		}
		if l.remote, l.local, err = sockets.TCPAddrs(fd); err != nil {
			return capproto.Msg{}, violation("%v", err)
		}
	}
	l.host = sockets.Host(l.remote.Addr())
	l.rhost = l.host
	conf, err := l.gen.ssh.conf.For(l.connInfo())
	if err != nil {
		return capproto.Msg{}, err
	}
	l.use(conf)
	if conf.RefuseConnection {
		l.sshlog(slog.LevelInfo, "Refusing connection from %s: RefuseConnection", sockets.HostPort(l.remote))
		return capproto.Msg{}, errConnectionRefused
	}
	l.grace.Stop()
	if conf.LoginGraceTime > 0 {
		l.grace.Reset(conf.LoginGraceTime)
	}
	m := capproto.NewMsg(capproto.VerbOK)
	for _, k := range l.gen.ssh.keys {
		m.Add("hostkey", capproto.B64(k.PublicKey().Marshal()))
	}
	for _, k := range l.gen.ssh.certs {
		m.Add("hostcert", capproto.B64(k.Marshal()))
	}
	var types []string
	for _, k := range l.gen.ssh.keys {
		types = append(types, k.PublicKey().Type())
	}
	transport := l.gen.ssh.conf.Transport(conf, types)
	l.version = transport.ServerVersion()
	m.Add("settings", capproto.B64(sshdconf.TransportFormat.Encode(transport)))
	m.Add("nonce", l.giveNonce())
	l.state = offering
	return m, nil
}

var errConnectionRefused = &fatal{&capproto.Error{Code: capproto.CodeDenied, Text: "this server refuses your connection"}}

// use makes the settings those that hold from here on.
func (l *sshProto) use(conf *sshdconf.Settings) {
	l.conf = conf
	var enabled []string
	for method, on := range map[string]bool{
		sshauth.PublicKey: conf.PubkeyAuthentication, sshauth.Password: conf.PasswordAuthentication,
		sshauth.Interactive: conf.KbdInteractiveAuthentication, sshauth.GSSAPI: conf.GSSAPIAuthentication,
	} {
		if on {
			enabled = append(enabled, method)
		}
	}
	l.methods = sshauth.NewMethods(enabled, conf.AuthenticationMethods)
}

// connInfo is what Match may ask for, as far as it is known.
func (l *sshProto) connInfo() sshdconf.ConnInfo {
	return sshdconf.ConnInfo{
		User: l.name, InvalidUser: l.identified && !l.valid, Host: l.host, Addr: l.remote.Addr(), LocalAddr: l.local.Addr(), LocalPort: int(l.local.Port()),
		Groups: l.groups,
	}
}

// groups are the names of the user's groups, or an error if they are not known:
// then no rule about groups must be taken to have been obeyed.
func (l *sshProto) groups() ([]string, error) {
	switch {
	case l.account == nil:
		return nil, nil
	case l.account.GroupsErr != "":
		return nil, errors.New(l.account.GroupsErr)
	}
	return l.account.Groups, nil
}

// wrongPassword takes the place of a password that must not be right. It is
// sshd's.
const wrongPassword = "\b\n\r\x7fINCORRECT"

// answer lets a password be wrong that is not accepted in any case.
func (l *sshProto) answer(typed string) string {
	if !l.accountAsked && l.noPassword() {
		return wrongPassword
	}
	return typed
}

// noPassword reports whether no password is right, so that the answer to the
// right one must not differ.
func (l *sshProto) noPassword() bool {
	return l.barred || l.isRoot() && l.conf.PermitRootLogin != sshdconf.RootYes
}

func (l *sshProto) isRoot() bool { return l.account != nil && l.account.UID == 0 }

// describe says between which addresses the connection is, which settings and
// which options of a key hold, and by what the user was proven.
func (l *sshProto) describe() []capproto.Attr {
	if l.attached != nil {
		return l.attached
	}
	m := capproto.NewMsg("ssh", "remote", l.remote.String(), "local", l.local.String(), "settings", capproto.B64(sshdconf.SessionFormat.Encode(l.conf.Session())))
	if l.keyOptions != nil {
		m.Add("options", capproto.B64(authkeys.OptionsFormat.Encode(l.keyOptions)))
	}
	for _, p := range l.proofs {
		m.Add("method", p)
	}
	for _, t := range l.messages {
		m.Add("message", t)
	}
	if l.expired {
		m.Add("expired", "yes")
	}
	return m.Attrs
}

// giveToken makes the conversation's one handover token.
func (l *sshProto) giveToken(capproto.Packet) (capproto.Msg, error) {
	l.speaks = &speaker{place: l.place}
	h := &handover{uid: l.sender.Uid, user: l.user, worker: l.worker, rhost: l.rhost, proof: l.describe(), from: l.speaks}
	token, id := l.handovers.give(h)
	l.worker, l.token, l.state = nil, &id, handedOver
	return capproto.NewMsg(capproto.VerbOK, "ticket", token), nil
}

// attach takes over the login that a handover token stands for.
func (l *sshProto) attach(p capproto.Packet) (capproto.Msg, error) {
	h := l.handovers.take(p.Get("ticket"), l.sender.Uid)
	if h == nil {
		return capproto.Msg{}, violation("attach: the handover token is unknown, used or too old")
	}
	l.user, l.worker, l.rhost, l.userInLog, l.attached = h.user, h.worker, h.rhost, h.user.name, h.proof
	l.speaker = h.from
	l.state = proven
	return capproto.NewMsg(capproto.VerbOK), nil
}

// end drops the handover that nobody took.
func (l *sshProto) end() {
	l.dropContext()
	clear(l.delegated)
	l.speaks.end()
	if l.token != nil {
		l.handovers.drop(*l.token)
	}
}

// message keeps what PAM has to say until there is a session to say it in.
func (l *sshProto) message(text string) {
	if len(l.messages) < 64 {
		l.messages = append(l.messages, text)
	}
}

// from is the client's end of the connection, as sshd's log has it.
func (l *sshProto) from() string {
	return "from " + sockets.HostPort(l.remote)
}

// sshlog writes a line in sshd's words to our log and to syslog.
func (l *sshProto) sshlog(level slog.Level, format string, args ...any) {
	l.words(context.Background(), level, fmt.Sprintf(format, args...))
}

// sshevent counts an event and writes its line in sshd's words.
func (l *sshProto) sshevent(e status.Event, level slog.Level, format string, args ...any) {
	l.words(l.log.Counted(e), level, fmt.Sprintf(format, args...))
}

// sshdHas counts an event of which sshd has a line too, and writes that and our own. In
// the journal they would be one event twice: there is sshd's, with our fields.
func (l *sshProto) sshdHas(e status.Event, level slog.Level, line string, args ...any) {
	if l.gen.ssh.syslog.isLog() {
		l.words(l.log.Counted(e), level, line, args...)
		return
	}
	l.words(context.Background(), level, line)
	l.log.Event(e, args...)
}

// words writes a line in sshd's words. The attributes are fields in the journal.
func (l *sshProto) words(ctx context.Context, level slog.Level, line string, args ...any) {
	if !l.gen.ssh.syslog.isLog() {
		l.log.Log(ctx, level, line)
		l.tosyslog(level, line)
		return
	}
	if !l.forSyslog(level) && !l.log.Enabled(ctx, level) {
		return
	}
	var more slog.Record
	more.Add("user", l.userInLog, "rhost", l.host)
	more.Add(args...)
	s := &inSSHD{facility: l.conf.SyslogFacility, pid: int(l.peer.Pid)}
	more.Attrs(func(a slog.Attr) bool { s.attrs = append(s.attrs, a); return true })
	r := slog.NewRecord(time.Now(), level, line, 0)
	l.log.Handler().Handle(context.WithValue(ctx, inSSHDKey{}, s), r)
}

// forSyslog reports whether sshd would log at that level.
func (l *sshProto) forSyslog(level slog.Level) bool {
	return level >= slog.LevelInfo || l.conf.LogLevel >= sshdconf.LogVerbose
}

func (l *sshProto) tosyslog(level slog.Level, line string) {
	if l.forSyslog(level) {
		l.gen.ssh.syslog.write(level, l.conf.SyslogFacility, int(l.peer.Pid), line)
	}
}

// invalidUser is what sshd's log puts before the name of a user who does not
// exist or may not log in.
func (l *sshProto) invalidUser() string {
	if l.valid {
		return ""
	}
	return "invalid user "
}

func joinMethods(m []string) string { return strings.Join(m, ",") }
