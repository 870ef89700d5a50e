package connection

import (
	"encoding/json"
	"errors"
	"fmt"
	"p9auth/capproto"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/sshlog"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// name tells factotum the user's name, at the client's first request, and learns
// what holds for that user: Match blocks may differ from those for the address.
func (c *connection) name(m ssh.ConnMetadata) {
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
		sshlog.Setup(settings.LogLevel, settings.LogVerbose)
	}
}

const leastRekey = 256 // bytes, of the library

// forUser makes the library go by the user's settings.
func (c *connection) forUser(m ssh.ConnMetadata, sc *ssh.ServerConfig) {
	c.name(m)
	sc.MaxAuthTries = max(1, c.settings.MaxAuthTries)
	if sc.RekeyThreshold = c.settings.RekeyLimit.Bytes; sc.RekeyThreshold > 0 {
		sc.RekeyThreshold = max(sc.RekeyThreshold, leastRekey)
	}
	sc.PublicKeyAuthAlgorithms = plainAlgorithms(c.settings.PubkeyAcceptedAlgorithms)
	c.offer(sc, c.methods)
}

// offer has the library offer methods.
func (c *connection) offer(sc *ssh.ServerConfig, methods []string) {
	next := c.callbacks(c.all, methods)
	sc.PasswordCallback, sc.PublicKeyCallback, sc.KeyboardInteractiveCallback = next.PasswordCallback, next.PublicKeyCallback, next.KeyboardInteractiveCallback
}

// authenticate relays each proof to factotum. What the library thinks of it
// does not matter: without factotum's consent there is no ticket.
func (c *connection) authenticate(sc *ssh.ServerConfig) {
	callbacks := ssh.ServerAuthCallbacks{
		PublicKeyCallback: func(m ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			alg := c.algorithm(key)
			if alg == "" {
				return nil, errors.New("no algorithm for this key is accepted")
			}
			return nil, c.verdict(m, c.auth(capproto.Proof{User: m.User(), Method: "publickey", Alg: alg, Key: key.Marshal()}))
		},
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
	c.all, c.methods = callbacks, c.firstMethods()
	c.offer(sc, c.methods)
	sc.VerifySignatureCallback, sc.UserCallback = c.signature, c.forUser
	c.partial = func(methods []string) error {
		return &ssh.PartialSuccessError{Next: c.callbacks(callbacks, methods)}
	}
}

// firstMethods are those that the settings for the address allow at first.
// Those for the user take their place.
func (c *connection) firstMethods() []string {
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

func (c *connection) callbacks(all ssh.ServerAuthCallbacks, methods []string) ssh.ServerAuthCallbacks {
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
func (c *connection) algorithm(key ssh.PublicKey) string {
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
func (c *connection) signature(m ssh.ConnMetadata, alg string, key ssh.PublicKey, _ []byte, sig *ssh.Signature) error {
	return c.verdict(m, c.auth(capproto.Proof{User: m.User(), Method: "publickey", Alg: alg, Key: key.Marshal(), Sig: ssh.Marshal(sig)}))
}

var errOver = errors.New("factotum has ended the conversation")

func (c *connection) auth(p capproto.Proof) error {
	if c.over {
		return errOver
	}
	c.tried = true
	return c.factotum.Auth(p)
}

// converse carries PAM's questions to the client, with what else PAM says.
func (c *connection) converse(ask ssh.KeyboardInteractiveChallenge) error {
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
			return "", fmt.Errorf("the client answered one question with %d answers", len(answers))
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
func (c *connection) verdict(m ssh.ConnMetadata, err error) error {
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
	sshlog.Printf(sshdconf.LogInfo, "Disconnecting authenticating user %s %s port %d: %v", m.User(), c.remote.IP, c.remote.Port, err)
	time.AfterFunc(200*time.Millisecond, func() { c.tcp.Close() })
	text := "authentication failed: factotum does not answer; try again later"
	if e != nil {
		text = e.Text
	}
	return &ssh.BannerError{Err: err, Message: strings.TrimRight(text, "\n") + "\n"}
}
