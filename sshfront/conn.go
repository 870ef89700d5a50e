package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/channels"
	sshuser "p9auth/sshfront/internal/user"
)

// connectionMain is the connection process.
func connectionMain() {
	conf, err := readConfig(connConfigFD)
	if err != nil {
		fmt.Fprintf(os.Stderr, "sshfront: %v\n", err)
		os.Exit(exitFailure)
	}
	setupLog(conf.LogLevel, conf.Settings.LogVerbose)
	status, err := serveConnection(conf)
	if err != nil {
		logf(sshdconf.LogFatal, "%v", err)
	}
	os.Exit(status)
}

// A speaker speaks SSH with the one client of this process.
type speaker struct {
	conf     *connConfig
	settings sshdconf.Settings // factotum's, for the address, then for the user
	factotum *capproto.Client
	tcp      *net.TCPConn
	remote   *net.TCPAddr

	all     ssh.ServerAuthCallbacks
	partial func(methods []string) error // the library's error that asks for more

	named    bool     // factotum was told the user's name
	methods  []string // that are to be offered first
	greeting string   // to be shown first

	tried   bool // the client offered a proof
	invalid bool // it named a user who cannot log in
	refused bool // RefuseConnection holds for its user
	over    bool // factotum has ended the conversation
}

// serveConnection speaks SSH with the client. It returns the exit status.
func serveConnection(conf *connConfig) (int, error) {
	ctl, err := openControl(connControlFD)
	if err != nil {
		return exitFailure, err
	}
	f := os.NewFile(connSocketFD, "tcp")
	nc, err := net.FileConn(f)
	if err != nil {
		return exitFailure, err
	}
	defer nc.Close()
	c := &speaker{conf: conf}
	var ok bool
	if c.tcp, ok = nc.(*net.TCPConn); !ok {
		return exitFailure, errors.New("the client's socket is none of TCP")
	}
	c.remote, _ = c.tcp.RemoteAddr().(*net.TCPAddr)
	if c.remote == nil {
		return exitOK, nil // it has gone already
	}
	if err := setKeepAlive(c.tcp, conf.Settings.TCPKeepAlive); err != nil {
		logf(sshdconf.LogError, "TCPKeepAlive: %v", err)
	}
	if c.factotum, err = capproto.Dial(conf.RPC); err != nil {
		return exitFailure, err
	}
	defer c.factotum.Close()
	if err := sandboxConnection(conf.Debug > 0); err != nil {
		return exitFailure, fmt.Errorf("sandbox: %w", err)
	}

	server, err := c.factotum.StartSSH(f)
	f.Close()
	if err != nil {
		if capproto.CodeOf(err) == capproto.CodeDenied {
			return exitRefused, nil
		}
		return exitFailure, err
	}
	if err := json.Unmarshal(server.Settings, &c.settings); err != nil {
		return exitFailure, fmt.Errorf("settings from factotum: %w", err)
	}
	sc, err := c.serverConfig(server)
	if err != nil {
		return exitFailure, err
	}
	quick, err := newQuickAck(c.tcp)
	if err != nil {
		return exitFailure, err
	}
	meter := channels.NewMeter(quick)
	before := c.settings.RekeyLimit.Bytes
	conn, chans, reqs, err := ssh.NewServerConn(meter, sc)
	if err != nil {
		return c.ended(err), nil
	}
	defer conn.Close()
	quick.done()
	if c.settings.RekeyLimit.Bytes != before {
		channels.Rekey(conn) // the user's limit counts from a key exchange on
	}
	if err := ctl.authenticated(conn.User()); err != nil {
		logf(sshdconf.LogDebug1, "the listener has ended: %v", err)
	}
	user, err := c.startSession(ctl)
	if err != nil {
		return exitFailure, err
	}
	err = channels.Serve(conn, chans, reqs, user, channels.Options{
		Log:         func(format string, a ...any) { logf(sshdconf.LogVerbose, format, a...) },
		Interactive: c.setQoS,
		Meter:       meter,
	})
	switch {
	case err != nil:
		logf(sshdconf.LogInfo, "Disconnecting user %s %s port %d: %v", conn.User(), c.remote.IP, c.remote.Port, err)
	default:
		logf(sshdconf.LogInfo, "Disconnected from user %s %s port %d", conn.User(), c.remote.IP, c.remote.Port)
	}
	return exitOK, nil
}

// ended logs, as sshd does, why the client is not let in.
func (c *speaker) ended(err error) int {
	why := "Connection closed by"
	var no *ssh.AlgorithmNegotiationError
	if errors.As(err, &no) {
		logf(sshdconf.LogInfo, "Unable to negotiate with %s port %d: no matching %s found. Their offer: %s [preauth]", c.remote.IP, c.remote.Port, noMatch(no.What), strings.Join(no.RequestedAlgorithms, ","))
		return exitNoAuth
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.ECONNRESET) {
		logf(sshdconf.LogVerbose, "%v", err)
		why = "Disconnected from"
	}
	logf(sshdconf.LogInfo, "%s %s port %d [preauth]", why, c.remote.IP, c.remote.Port)
	switch {
	case c.tried:
		return exitAuthFail
	case c.refused:
		return exitRefused
	case c.invalid:
		return exitInvalidUser
	}
	return exitNoAuth
}

// noMatch is sshd's word for what the two sides have no algorithm of in common.
func noMatch(what string) string {
	switch what {
	case "key exchange":
		return "key exchange method"
	case "host key":
		return "host key type"
	}
	return what[strings.LastIndexByte(what, ' ')+1:] // cipher, MAC
}

// startSession has the listener start a session process, gives it the ticket,
// and returns the client for what it will become.
func (c *speaker) startSession(ctl *control) (*sshuser.Client, error) {
	ticket, err := c.factotum.Ticket()
	if err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "link")
	defer theirs.Close()
	link, err := capproto.FileConn(os.NewFile(uintptr(fds[0]), "link"), sshuser.MaxPacket)
	if err != nil {
		return nil, err
	}
	if err := link.Send(capproto.NewMsg("ticket", "ticket", ticket)); err != nil {
		link.Close()
		return nil, err
	}
	if _, err := ctl.session(theirs); err != nil {
		link.Close()
		return nil, err
	}
	return sshuser.NewClient(link), nil
}

// setQoS sets the IP_TOS byte for an interactive connection or a bulk one.
func (c *speaker) setQoS(interactive bool) {
	tos := c.settings.IPQoS.Bulk
	if interactive {
		tos = c.settings.IPQoS.Interactive
	}
	raw, err := c.tcp.SyscallConn()
	if tos < 0 || err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		if c.remote.IP.To4() != nil {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, tos)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos)
		}
	})
	if err != nil {
		logf(sshdconf.LogDebug1, "IPQoS: %v", err)
	}
}

// serverConfig is the configuration of the library: algorithms and host keys,
// and authentication as factotum has it.
func (c *speaker) serverConfig(server *capproto.SSHServer) (*ssh.ServerConfig, error) {
	s := &c.conf.Settings // these keywords depend on no Match
	sc := &ssh.ServerConfig{
		Config: ssh.Config{
			KeyExchanges: s.KexAlgorithms, Ciphers: s.Ciphers, MACs: s.MACs, RekeyThreshold: c.settings.RekeyLimit.Bytes,
		},
		MaxAuthTries:  max(1, c.settings.MaxAuthTries),
		ServerVersion: "SSH-2.0-p9auth",
		BannerCallback: func(m ssh.ConnMetadata) string {
			c.name(m)
			return c.greeting
		},
		PublicKeyAuthAlgorithms: plainAlgorithms(c.settings.PubkeyAcceptedAlgorithms),
	}
	if s.VersionAddendum != "" {
		sc.ServerVersion += " " + s.VersionAddendum
	}
	for _, blob := range server.HostKeys {
		key, err := ssh.ParsePublicKey(blob)
		if err != nil {
			return nil, fmt.Errorf("host key from factotum: %w", err)
		}
		signer := &hostKey{key: key, offered: c.settings.HostKeyAlgorithms, factotum: c.factotum}
		for _, blob := range server.HostCerts {
			cert, err := parseCertificate(blob)
			if err != nil {
				return nil, err
			}
			if bytes.Equal(cert.Key.Marshal(), key.Marshal()) {
				cs, err := ssh.NewCertSigner(cert, signer)
				if err != nil {
					return nil, fmt.Errorf("host certificate: %w", err)
				}
				sc.AddHostKey(cs)
			}
		}
		if len(signer.Algorithms()) > 0 {
			sc.AddHostKey(signer)
		}
	}
	c.authenticate(sc)
	return sc, nil
}

// name tells factotum the user's name, at the client's first request, and learns
// what holds for that user: Match blocks may differ from those for the address.
func (c *speaker) name(m ssh.ConnMetadata) {
	if c.named {
		return
	}
	c.named = true
	var settings sshdconf.Settings
	u, err := c.factotum.User(m.User())
	if err == nil {
		err = json.Unmarshal(u.Settings, &settings)
	}
	if err != nil {
		c.refused = capproto.CodeOf(err) == capproto.CodeDenied
		var why *ssh.BannerError
		if errors.As(c.verdict(m, err), &why) {
			c.greeting = why.Message
		}
		return
	}
	c.settings, c.methods, c.greeting, c.invalid = settings, u.Methods, u.Banner, u.Invalid
	if c.conf.LogLevel == c.conf.Settings.LogLevel { // neither -d nor -q
		setupLog(settings.LogLevel, settings.LogVerbose)
	}
}

const leastRekey = 256 // bytes, of the library

// forUser makes the library go by the user's settings.
func (c *speaker) forUser(m ssh.ConnMetadata, sc *ssh.ServerConfig) {
	c.name(m)
	sc.MaxAuthTries = max(1, c.settings.MaxAuthTries)
	if sc.RekeyThreshold = c.settings.RekeyLimit.Bytes; sc.RekeyThreshold > 0 {
		sc.RekeyThreshold = max(sc.RekeyThreshold, leastRekey)
	}
	sc.PublicKeyAuthAlgorithms = plainAlgorithms(c.settings.PubkeyAcceptedAlgorithms)
	c.offer(sc, c.methods)
}

// offer has the library offer methods.
func (c *speaker) offer(sc *ssh.ServerConfig, methods []string) {
	next := c.callbacks(c.all, methods)
	sc.PasswordCallback, sc.PublicKeyCallback, sc.KeyboardInteractiveCallback = next.PasswordCallback, next.PublicKeyCallback, next.KeyboardInteractiveCallback
}

// plainAlgorithms are those that the library is to let through: it compares
// the algorithm of a certificate's key. factotum compares the full name.
func plainAlgorithms(accepted []string) []string {
	var plain []string
	for _, a := range ssh.SupportedAlgorithms().PublicKeyAuths {
		if slices.ContainsFunc(accepted, func(x string) bool {
			return x == a || strings.TrimSuffix(x, "@openssh.com") == strings.TrimSuffix(a, "@openssh.com")+"-cert-v01"
		}) {
			plain = append(plain, a)
		}
	}
	return plain
}

func parseCertificate(blob []byte) (*ssh.Certificate, error) {
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Errorf("host certificate from factotum: %w", err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, errors.New("host certificate from factotum: is none")
	}
	return cert, nil
}

// A hostKey signs with a key that factotum keeps.
type hostKey struct {
	key      ssh.PublicKey
	offered  []string // HostKeyAlgorithms
	factotum *capproto.Client
}

func (h *hostKey) PublicKey() ssh.PublicKey { return h.key }

// Algorithms are those that the key can sign in and that are to be offered.
func (h *hostKey) Algorithms() []string {
	can := []string{h.key.Type()}
	if h.key.Type() == ssh.KeyAlgoRSA {
		can = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return slices.DeleteFunc(can, func(a string) bool { return !slices.Contains(h.offered, a) })
}

func (h *hostKey) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return h.SignWithAlgorithm(rand, data, "")
}

func (h *hostKey) SignWithAlgorithm(_ io.Reader, data []byte, alg string) (*ssh.Signature, error) {
	if alg == "" {
		alg = h.key.Type()
	}
	b, err := h.factotum.Sign(h.key.Marshal(), alg, data)
	if err != nil {
		return nil, err
	}
	sig := new(ssh.Signature)
	return sig, ssh.Unmarshal(b, sig)
}

// authenticate relays each proof to factotum. What the library thinks of it
// does not matter: without factotum's consent there is no ticket.
func (c *speaker) authenticate(sc *ssh.ServerConfig) {
	callbacks := ssh.ServerAuthCallbacks{
		PasswordCallback: func(m ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			return nil, c.verdict(m, c.auth(capproto.Proof{User: m.User(), Method: "password", Password: string(password)}))
		},
		KeyboardInteractiveCallback: func(m ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			err := c.auth(capproto.Proof{User: m.User(), Method: "keyboard-interactive"})
			if err == nil {
				err = c.converse(ask)
			}
			return nil, c.verdict(m, err)
		},
	}
	if setVerifySignature(sc, c.signature) {
		callbacks.PublicKeyCallback = func(m ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			alg := c.algorithm(key)
			if alg == "" {
				return nil, errors.New("no algorithm for this key is accepted")
			}
			return nil, c.verdict(m, c.auth(capproto.Proof{User: m.User(), Method: "publickey", Alg: alg, Key: key.Marshal()}))
		}
	}
	c.all, c.methods = callbacks, c.firstMethods()
	c.offer(sc, c.methods)
	setUserCallback(sc, c.forUser)
	c.partial = func(methods []string) error {
		return &ssh.PartialSuccessError{Next: c.callbacks(callbacks, methods)}
	}
}

// firstMethods are those that the settings for the address allow at first. Where
// the library has been patched, those for the user take their place.
func (c *speaker) firstMethods() []string {
	var m []string
	s := &c.settings
	first := func(name string) bool {
		return s.AuthenticationMethods == nil || slices.ContainsFunc(s.AuthenticationMethods, func(l []string) bool {
			return len(l) > 0 && (l[0] == name || strings.HasPrefix(l[0], name+":"))
		})
	}
	for _, x := range []struct {
		on   bool
		name string
	}{{s.PubkeyAuthentication, "publickey"}, {s.PasswordAuthentication, "password"}, {s.KbdInteractiveAuthentication, "keyboard-interactive"}} {
		if x.on && first(x.name) {
			m = append(m, x.name)
		}
	}
	return m
}

func (c *speaker) callbacks(all ssh.ServerAuthCallbacks, methods []string) ssh.ServerAuthCallbacks {
	var some ssh.ServerAuthCallbacks
	for _, m := range methods {
		switch m {
		case "password":
			some.PasswordCallback = all.PasswordCallback
		case "publickey":
			some.PublicKeyCallback = all.PublicKeyCallback
		case "keyboard-interactive":
			some.KeyboardInteractiveCallback = all.KeyboardInteractiveCallback
		}
	}
	return some
}

// algorithm is one that the key could sign with, to ask whether it would do.
func (c *speaker) algorithm(key ssh.PublicKey) string {
	fits := []string{key.Type()}
	switch key.Type() {
	case ssh.KeyAlgoRSA:
		fits = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	case ssh.CertAlgoRSAv01:
		fits = []string{ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01}
	}
	for _, a := range fits {
		if slices.Contains(c.settings.PubkeyAcceptedAlgorithms, a) {
			return a
		}
	}
	return ""
}

// signature has factotum judge a signature. The bytes that were signed it puts
// together for itself.
func (c *speaker) signature(m ssh.ConnMetadata, alg string, key ssh.PublicKey, _ []byte, sig *ssh.Signature) error {
	return c.verdict(m, c.auth(capproto.Proof{User: m.User(), Method: "publickey", Alg: alg, Key: key.Marshal(), Sig: ssh.Marshal(sig)}))
}

var errOver = errors.New("factotum has ended the conversation")

func (c *speaker) auth(p capproto.Proof) error {
	if c.over {
		return errOver
	}
	c.tried = true
	return c.factotum.Auth(p)
}

// converse carries PAM's questions to the client, with what else PAM says.
func (c *speaker) converse(ask ssh.KeyboardInteractiveChallenge) error {
	var says []string
	err := c.factotum.Converse(func(p capproto.Prompt) (string, error) {
		if !p.Style.Question() {
			says = append(says, p.Text)
			return "", nil
		}
		answers, err := ask("", strings.Join(says, "\n"), []string{p.Text}, []bool{p.Style == capproto.EchoOn})
		says = nil
		if err != nil {
			return "", err
		}
		if len(answers) != 1 {
			return "", errors.New("one question, another number of answers")
		}
		return answers[0], nil
	})
	if len(says) > 0 && err == nil {
		if _, err := ask("", strings.Join(says, "\n"), nil, nil); err != nil {
			return err
		}
	}
	return err
}

// verdict turns factotum's answer into the library's.
func (c *speaker) verdict(m ssh.ConnMetadata, err error) error {
	var partial *capproto.Partial
	var e *capproto.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &partial):
		return c.partial(partial.Methods)
	case errors.As(err, &e) && e.Code == capproto.CodeDenied && e.Methods != nil:
		return errors.New(e.Text)
	case errors.Is(err, errOver):
		return err
	case e != nil && e.Code == capproto.CodeLimit:
		c.over = true // the library counts too, and says goodbye
		return err
	}
	// There is nothing that the client could still do. The library knows no
	// error that ends the connection, so it is ended once the client has been
	// told why.
	c.over = true
	logf(sshdconf.LogInfo, "Disconnecting authenticating user %s %s port %d: %v", m.User(), c.remote.IP, c.remote.Port, err)
	time.AfterFunc(200*time.Millisecond, func() { c.tcp.Close() })
	text := "authentication broke off; try again later"
	if e != nil {
		text = e.Text
	}
	return &ssh.BannerError{Err: err, Message: strings.TrimRight(text, "\n") + "\n"}
}
