package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/authkeys"
	"p9auth/internal/sshdconf"
)

// An sshConv is what a conversation over an SSH connection knows.
type sshConv struct {
	srv           *sshServer
	conf          *sshdconf.Settings // for the address, then for the user
	remote, local netip.AddrPort
	sessionID     []byte // the first exchange hash that was signed

	identified bool // the user is named, for good
	user       string
	host       string // the client's name, or its address
	account    capproto.Msg
	valid      bool // the account exists
	barred     bool // no proof will do: what is offered is judged as junk
	begun      bool // PAM's transaction has begun
	failures   int
	attempts   int
	done       []string   // methods that were completed
	left       [][]string // what AuthenticationMethods still asks for
	usedKeys   [][]byte
	checked    []byte // the key that options are of
	allowed    bool
	options    *authkeys.Options // of checked
	keyOptions *authkeys.Options // of the key that proved the user
	changing   bool              // a password has expired, PAM asks for a new one
	proofs     []string
	messages   []string
	ticket     *[32]byte
}

// junk takes the place of a password that must not be right.
const junk = "\b\n\r\x7fINCORRECT"

// startSSH begins an SSH conversation over a TCP connection, of which the
// kernel says between which addresses it is.
func (c *conv) startSSH(p capproto.Packet) (capproto.Msg, error) {
	if err := p.Only("proto"); err != nil || len(p.Files) != 1 {
		return capproto.Msg{}, violation("start proto=ssh wants one descriptor and nothing else")
	}
	c.s.mu.Lock()
	srv := c.s.ssh
	c.s.mu.Unlock()
	remote, local, err := tcpAddrs(p.Files[0])
	if err != nil {
		return capproto.Msg{}, violation("%v", err)
	}
	a := &sshConv{srv: srv, remote: remote, local: local, host: remote.Addr().String()}
	if a.conf, err = srv.conf.For(a.connInfo()); err != nil {
		return capproto.Msg{}, err
	}
	c.ssh, c.rhost = a, a.host
	if a.conf.RefuseConnection {
		c.sshlog(slog.LevelInfo, "Refusing connection from %s port %d: RefuseConnection", remote.Addr(), remote.Port())
		return capproto.Msg{}, &fatal{&capproto.Error{Code: capproto.CodeDenied, Text: "this server refuses your connection"}}
	}
	c.grace.Stop()
	if a.conf.LoginGraceTime > 0 {
		c.grace.Reset(a.conf.LoginGraceTime)
	}
	m := capproto.NewMsg(capproto.VerbOK)
	for _, k := range srv.keys {
		m.Add("hostkey", capproto.B64(k.PublicKey().Marshal()))
	}
	for _, k := range srv.certs {
		m.Add("hostcert", capproto.B64(k.Marshal()))
	}
	settings, err := json.Marshal(a.conf)
	if err != nil {
		return capproto.Msg{}, err
	}
	m.Add("settings", string(settings))
	c.state = offering
	return m, nil
}

// banner reads the file of Banner, as root: the administrator named it. sshd's
// monitor does the same.
func (c *conv) banner() string {
	path := c.ssh.conf.Banner
	if path == "" {
		return ""
	}
	b, err := readSmall(path)
	if err == nil && strings.IndexByte(b, 0) >= 0 {
		err = fmt.Errorf("%s has a NUL byte", path)
	}
	if err != nil {
		c.log.Error("the banner is not shown", "error", err.Error())
		return ""
	}
	return b
}

// readSmall reads a file of the administrator's of at most 64 KiB.
func readSmall(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not hold us
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(b) > maxSmall {
		err = fmt.Errorf("%s is longer than 64 KiB", path)
	}
	return string(b), err
}

const maxSmall = 64 << 10

// tcpAddrs is between which addresses a connected TCP socket is.
func tcpAddrs(f *os.File) (remote, local netip.AddrPort, err error) {
	if t, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || t != unix.IPPROTO_TCP {
		return remote, local, errors.New("the descriptor is no TCP socket")
	}
	// Not by package net, which would change the socket's options.
	r, err1 := unix.Getpeername(int(f.Fd()))
	l, err2 := unix.Getsockname(int(f.Fd()))
	if err1 != nil || err2 != nil {
		return remote, local, errors.New("the descriptor is no TCP connection")
	}
	remote, local = addrPort(r), addrPort(l)
	if !remote.IsValid() || !local.IsValid() {
		return remote, local, errors.New("the descriptor is no TCP connection")
	}
	return remote, local, nil
}

// addrPort is an address of the kernel's, without the form of IPv4 that IPv6
// sockets have.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			zone := strconv.Itoa(int(sa.ZoneId))
			if i, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
				zone = i.Name
			}
			a = a.WithZone(zone)
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// connInfo is what Match may ask for, as far as it is known.
func (a *sshConv) connInfo() sshdconf.ConnInfo {
	return sshdconf.ConnInfo{
		User: a.user, InvalidUser: a.identified && !a.valid, Host: a.host, Addr: a.remote.Addr(), LocalAddr: a.local.Addr(), LocalPort: int(a.local.Port()),
		Groups: a.groups,
	}
}

// groups are the names of the user's groups, or an error if they are not known:
// then no rule about groups must be taken to have been obeyed.
func (a *sshConv) groups() ([]string, error) {
	if why := a.account.Get("nogroups"); why != "" {
		return nil, errors.New(why)
	}
	return a.account.All("group"), nil
}

// sign signs an exchange hash with a host key. Before the user is proven it
// signs one only: that is the session id.
func (c *conv) sign(p capproto.Packet) (capproto.Msg, error) {
	a := c.ssh
	if a == nil {
		return capproto.Msg{}, violation("sign before start")
	}
	hash, err := capproto.UnB64(p.Get("data"))
	if err != nil || len(hash) != 32 && len(hash) != 48 && len(hash) != 64 {
		return capproto.Msg{}, violation("sign: not an exchange hash")
	}
	if a.sessionID != nil && c.state&(admitted|spent) == 0 {
		return capproto.Msg{}, violation("sign: a second exchange hash before authentication")
	}
	blob, err := capproto.UnB64(p.Get("key"))
	if err != nil {
		return capproto.Msg{}, violation("sign: %v", err)
	}
	sig, err := a.srv.sign(blob, p.Get("alg"), hash)
	if err != nil {
		return capproto.Msg{}, violation("sign: %v", err)
	}
	if a.sessionID == nil {
		a.sessionID = hash
	}
	return capproto.NewMsg(capproto.VerbOK, "sig", capproto.B64(ssh.Marshal(sig))), nil
}

// nameUser takes the user's name before there is a proof, and says what holds
// for the user. An account that does not exist differs in nothing but the Match
// blocks that hold, as with sshd.
func (c *conv) nameUser(p capproto.Packet) (capproto.Msg, error) {
	a := c.ssh
	if a == nil || a.sessionID == nil {
		return capproto.Msg{}, violation("user before the key exchange")
	}
	if a.identified {
		return capproto.Msg{}, violation("the user is named already")
	}
	if err := c.identify(p.Get("name")); err != nil {
		return capproto.Msg{}, err
	}
	settings, err := json.Marshal(a.conf)
	if err != nil {
		return capproto.Msg{}, err
	}
	m := capproto.NewMsg(capproto.VerbOK, "settings", string(settings), "methods", strings.Join(a.next(), ","))
	if b := c.banner(); b != "" {
		m.Add("banner", b)
	}
	if a.barred {
		m.Add("invalid", "yes") // for the penalties: it must not show otherwise
	}
	return m, nil
}

// auth judges one proof of RFC 4252.
func (c *conv) auth(p capproto.Packet) (capproto.Msg, error) {
	a := c.ssh
	if a == nil {
		return capproto.Msg{}, violation("auth before start")
	}
	if a.sessionID == nil {
		return capproto.Msg{}, violation("auth before the key exchange")
	}
	user, method := p.Get("user"), p.Get("method")
	if !a.identified {
		if err := c.identify(user); err != nil {
			return capproto.Msg{}, err
		}
	}
	if user != a.user {
		return capproto.Msg{}, violation("Change of username is not allowed")
	}
	if c.state == talking { // the client has given the questions up
		if a.changing {
			return capproto.Msg{}, &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: "the expired password was not changed"}}
		}
		c.dropPAM()
		// It counts as an attempt: otherwise workers could be had without end.
		if _, err := c.failed("keyboard-interactive", "keyboard-interactive/pam"); capproto.CodeOf(err) == capproto.CodeLimit {
			return capproto.Msg{}, err
		}
	}
	a.attempts++
	if method == "none" {
		if a.attempts == 1 {
			return capproto.Msg{}, a.denied()
		}
		return c.failed("none", "none")
	}
	if a.changing && method == "keyboard-interactive" {
		c.state = talking
		return capproto.NewMsg(capproto.VerbOK), nil
	}
	if a.changing || !a.mayTry(method) {
		return c.failed(sshMethod(method), sshMethod(method))
	}
	switch method {
	case "password":
		return c.password(p.Get("data"))
	case "publickey":
		began := time.Now()
		m, err := c.publickey(p)
		if capproto.CodeOf(err) == capproto.CodeDenied {
			time.Sleep(stillToWait(refusalTime(a.user), time.Since(began)))
		}
		return m, err
	case "keyboard-interactive":
		if err := c.authenticatePAM(); err != nil {
			return capproto.Msg{}, err
		}
		c.state = talking
		return capproto.NewMsg(capproto.VerbOK), nil
	}
	return c.failed("none", "none")
}

// sshMethod is a method's name for the log, if it is one.
func sshMethod(m string) string {
	switch m {
	case "password", "publickey", "keyboard-interactive":
		return m
	}
	return "none"
}

// identify takes the user's name, finds out about the account and with which
// settings it may log in.
func (c *conv) identify(user string) error {
	a := c.ssh
	if user == "" || !possibleName(user) {
		return violation("impossible user name")
	}
	a.user, a.identified, c.userInLog = user, true, user
	if err := c.startSSHWorker(a.conf.UseDNS); err != nil {
		return err
	}
	conf, err := a.srv.conf.For(a.connInfo())
	var groups []string
	if err == nil && len(conf.AllowGroups)+len(conf.DenyGroups) > 0 {
		groups, err = a.groups()
	}
	unknown := err
	if err != nil {
		a.account = capproto.NewMsg("nouser")
		if conf, err = a.srv.conf.For(a.connInfo()); err != nil {
			return err
		}
	}
	a.conf, a.left = conf, conf.AuthenticationMethods
	from := a.host
	if from == "" {
		from = a.remote.Addr().String()
	}
	if unknown != nil {
		c.sshlog(slog.LevelError, "User %s from %s not allowed because the user's groups cannot be had: %v", safe(user), from, unknown)
		a.valid = false
	} else if !a.valid {
		c.sshlog(slog.LevelInfo, "Invalid user %s from %s port %d", safe(user), a.remote.Addr(), a.remote.Port())
	} else if why := conf.Admits(user, a.host, a.remote.Addr(), groups); why != "" {
		c.sshlog(slog.LevelInfo, "User %s from %s not allowed because %s", safe(user), from, why)
		a.valid = false
	}
	a.barred = !a.valid
	if conf.RefuseConnection {
		invalid := ""
		if a.barred {
			invalid = "invalid user "
		}
		c.sshlog(slog.LevelInfo, "administratively prohibited connection for %s%s from %s port %d", invalid, safe(user), a.remote.Addr(), a.remote.Port())
		return &fatal{&capproto.Error{Code: capproto.CodeDenied, Text: "this server refuses your connection"}}
	}
	return nil
}

// startSSHWorker starts a worker and has it look up the account.
func (c *conv) startSSHWorker(dns bool) error {
	a := c.ssh
	if err := c.startWorker(); err != nil {
		return err
	}
	m := capproto.NewMsg("lookup", "user", a.user)
	if dns {
		m.Add("addr", a.remote.Addr().String())
	}
	if err := c.tell(m); err != nil {
		return err
	}
	m, err := c.await()
	if err != nil {
		return err
	}
	if m.Verb != "account" && m.Verb != "nouser" {
		return c.workerFailed(errors.New("it cannot look up the user: " + m.Get("text")))
	}
	if h := m.Get("host"); h != "" {
		a.host, c.rhost = h, h
	}
	a.account = m
	a.valid = m.Verb == "account"
	return nil
}

// dropPAM ends PAM's transaction: pam_setcred(3) of one in which somebody
// failed would fail too, whatever has proven the user since.
func (c *conv) dropPAM() {
	c.dropWorker()
	c.ssh.begun = false
}

// needPAM makes sure that there is a worker, and that PAM has begun.
func (c *conv) needPAM() error {
	a := c.ssh
	if c.worker == nil {
		valid := a.valid
		if err := c.startSSHWorker(false); err != nil {
			return err
		}
		a.valid = valid && a.valid
	}
	if a.begun {
		return nil
	}
	m := capproto.NewMsg("begin", "service", c.front.Service, "user", a.user, "rhost", a.host, "tty", "ssh",
		"env", fmt.Sprintf("SSH_CONNECTION=%s %d %s %d", a.remote.Addr(), a.remote.Port(), a.local.Addr(), a.local.Port()))
	if dir := c.conf.PAMConfDir; dir != "" {
		m.Add("confdir", dir)
	}
	if a.conf.PrintLastLog {
		m.Add("lastlog", "yes")
	}
	a.begun = true
	return c.begin(m)
}

// authenticatePAM has PAM ask for its proof.
func (c *conv) authenticatePAM() error {
	if err := c.needPAM(); err != nil {
		return err
	}
	m := capproto.NewMsg("authenticate")
	if !c.ssh.conf.PermitEmptyPasswords {
		m.Add("null", "no")
	}
	return c.tell(m)
}

// password answers PAM's question with the password that the client sent, as
// sshd does.
func (c *conv) password(password string) (capproto.Msg, error) {
	a := c.ssh
	if a.noPassword() || password == "" && !a.conf.PermitEmptyPasswords {
		password = junk
	}
	if err := c.authenticatePAM(); err != nil {
		return capproto.Msg{}, err
	}
	for {
		m, err := c.await()
		if err != nil {
			return m, err
		}
		switch m.Verb {
		case "prompt":
			answer := capproto.NewMsg("answer", "data", password)
			switch capproto.Style(m.Get("style")) {
			case capproto.EchoOn:
				answer = capproto.NewMsg("answer", "fail", "yes")
			case capproto.EchoOff:
			default:
				a.message(m.Get("text"))
				continue
			}
			if err := c.tell(answer); err != nil {
				return m, err
			}
		case "proven":
			return c.succeeded("password", "password")
		case capproto.VerbError:
			return c.refusedSSH("password", "password", m)
		default:
			return m, c.workerFailed(errors.New("it says " + m.Verb + " to a password"))
		}
	}
}

// message keeps what PAM has to say until there is a session to say it in.
func (a *sshConv) message(text string) {
	if len(a.messages) < 64 {
		a.messages = append(a.messages, text)
	}
}

func (a *sshConv) isRoot() bool { return a.account.Get("uid") == "0" }

// noPassword says whether no password is right, so that the answer to the
// right one must not differ.
func (a *sshConv) noPassword() bool {
	return a.barred || a.isRoot() && a.conf.PermitRootLogin != sshdconf.RootYes
}

// refusedSSH passes on the worker's verdict on an SSH login.
func (c *conv) refusedSSH(method, detail string, m capproto.Msg) (capproto.Msg, error) {
	a := c.ssh
	switch m.Get("code") {
	case capproto.CodeDenied:
		if !a.changing {
			c.dropPAM()
			if method == "keyboard-interactive" {
				// For a valid user, sshd logs it in these words alone.
				illegal := ""
				if !a.valid {
					illegal = "illegal user "
				}
				c.sshlog(slog.LevelError, "error: PAM: Authentication failure for %s%s from %s", illegal, safe(a.user), a.remote.Addr())
			}
			return c.failed(method, detail)
		}
	case capproto.CodeInternal:
		return m, c.workerFailed(errors.New(m.Get("text")))
	}
	return m, c.accountRefused(m.Get("text"))
}

// accountRefused is the end: PAM's account stage said no.
func (c *conv) accountRefused(text string) error {
	a := c.ssh
	c.sshlog(slog.LevelError, "fatal: Access denied for user %s by PAM account configuration", safe(a.user))
	c.log.Warn("login refused", "user", a.user, "reason", text, "code", capproto.CodeAccount, "rhost", a.host)
	a.message(text)
	return &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: strings.Join(a.messages, "\n")}}
}

// account has PAM say whether the account may log in now. What it asks (for a
// new password) waits for keyboard-interactive, unless that is what we are in.
func (c *conv) account() (capproto.Msg, error) {
	a := c.ssh
	if err := c.needPAM(); err != nil {
		return capproto.Msg{}, err
	}
	if err := c.tell(capproto.NewMsg("account")); err != nil {
		return capproto.Msg{}, err
	}
	for {
		m, err := c.await()
		if err != nil {
			return m, err
		}
		switch m.Verb {
		case "prompt":
			if c.state == talking {
				a.changing = a.changing || capproto.Style(m.Get("style")).Question()
				return c.prompt(m), nil
			}
			if !capproto.Style(m.Get("style")).Question() {
				a.message(m.Get("text"))
				continue
			}
			c.held = &m
			a.changing = true
			c.state = offering
			return capproto.NewMsg(capproto.VerbMore, "methods", "keyboard-interactive"), nil
		case capproto.VerbDone:
			return c.admit(m)
		case capproto.VerbError:
			return c.refusedSSH("", "", m)
		default:
			return m, c.workerFailed(errors.New("it says " + m.Verb + " of the account"))
		}
	}
}

// admit ends authentication: the user is proven.
func (c *conv) admit(m capproto.Msg) (capproto.Msg, error) {
	a := c.ssh
	if m.Get("user") != a.user || a.barred || len(a.done) == 0 {
		c.sshlog(slog.LevelError, "fatal: PAM user %s is not the user %s who was authenticated", safe(m.Get("user")), safe(a.user))
		return m, &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: "PAM changed the user's name; the administrator must undo that"}}
	}
	c.user = &person{name: a.user}
	settings, err := json.Marshal(a.conf)
	if err != nil {
		return m, err
	}
	u := capproto.NewMsg("ssh", "remote", a.remote.String(), "local", a.local.String(), "settings", string(settings))
	if a.keyOptions != nil {
		o, err := json.Marshal(a.keyOptions)
		if err != nil {
			return m, err
		}
		u.Add("options", string(o))
	}
	for _, p := range a.proofs {
		u.Add("method", p)
	}
	for _, t := range a.messages {
		u.Add("message", t)
	}
	c.user.ssh = u.Attrs
	c.state = admitted
	c.log.Info("user authenticated", "user", a.user, "rhost", a.host, "methods", strings.Join(a.done, ","))
	return capproto.NewMsg(capproto.VerbDone), nil
}

// safe makes a name fit for a log line, as sshd does by vis(3).
func safe(s string) string {
	q := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// sshlog writes a line in sshd's words to our log and to syslog.
func (c *conv) sshlog(level slog.Level, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	c.log.Log(context.Background(), level, line)
	if level < slog.LevelInfo && c.ssh.conf != nil && c.ssh.conf.LogLevel < sshdconf.LogVerbose {
		return
	}
	c.ssh.srv.syslog.write(level, c.ssh.conf.SyslogFacility, int(c.peer.Pid), line)
}
