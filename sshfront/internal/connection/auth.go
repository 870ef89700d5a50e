package connection

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/internal/pack"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/sshlog"
)

// withoutStyle is a user's name for the log. What follows a colon is the style of
// BSD's authentication, which sshd(8) cuts off everywhere.
func withoutStyle(user string) string {
	name, _, _ := strings.Cut(user, ":")
	return name
}

// name tells factotum the user's name, at the client's first request, and learns
// what holds for that user: Match blocks may differ from those for the address.
// What factotum refuses, and an answer that cannot be read, end the connection: no
// method is offered then, and the greeting says why.
func (c *connection) name(m ssh.ConnMetadata) {
	if c.named {
		return
	}
	c.named, c.login = true, withoutStyle(m.User())
	u, err := c.factotum.User(m.User())
	if err == nil {
		c.user, err = sshdconf.ConnectionFormat.Decode(u.Settings)
		err = pack.Between(err, "factotum", "sshfront")
	}
	if err != nil {
		c.refused = capproto.CodeOf(err) == capproto.CodeDenied
		c.greeting = c.giveUp(m, err)
		return
	}
	c.methods, c.greeting, c.invalid = u.Methods, u.Banner, u.Invalid
	if !c.conf.LogFixed {
		sshlog.SetupChild(c.user.LogLevel, c.user.LogVerbose)
	}
}

// forUser makes the library go by the user's settings.
func (c *connection) forUser(m ssh.ConnMetadata, sc *ssh.ServerConfig) {
	c.name(m)
	c.meta = m
	if c.user == nil {
		c.offer(sc, nil)
		return
	}
	sc.MaxAuthTries = max(1, c.user.MaxAuthTries)
	sc.RekeyThreshold = rekeyThreshold(c.user.RekeyLimit)
	sc.PublicKeyAuthAlgorithms = sshdconf.SignatureAlgorithms(c.user.PubkeyAcceptedAlgorithms)
	c.offer(sc, c.methods)
}

// offer has the library offer methods.
func (c *connection) offer(sc *ssh.ServerConfig, methods []string) {
	next := c.callbacks(methods)
	sc.PasswordCallback, sc.PublicKeyCallback, sc.KeyboardInteractiveCallback = next.PasswordCallback, next.PublicKeyCallback, next.KeyboardInteractiveCallback
	sc.GSSAPIWithMICConfig = next.GSSAPIWithMICConfig
}

// authenticate relays each proof to factotum. What the library thinks of it
// does not matter: without factotum's consent there is no ticket.
func (c *connection) authenticate(sc *ssh.ServerConfig) {
	c.all = ssh.ServerAuthCallbacks{
		PublicKeyCallback: func(m ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			alg := c.algorithm(key)
			if alg == "" {
				return nil, errors.New("no algorithm for this key is accepted")
			}
			err := c.verdict(m, c.auth(m, capproto.Proof{User: m.User(), Method: "publickey", Alg: alg, Key: key.Marshal()}))
			if _, ended := err.(*ssh.PartialSuccessError); ended {
				// To a question about a key the library would answer that it will do.
				c.client.Close()
				err = errOver
			}
			return nil, err
		},
		PasswordCallback: func(m ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			return nil, c.verdict(m, c.auth(m, capproto.Proof{User: m.User(), Method: "password", Password: string(password)}))
		},
		KeyboardInteractiveCallback: func(m ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			err := c.auth(m, capproto.Proof{User: m.User(), Method: "keyboard-interactive"})
			if err == nil {
				err = c.converse(ask)
			}
			verdict := c.verdict(m, err)
			if capproto.CodeOf(err) == capproto.CodeAccount {
				// sshd asks PAM for the account within this method, so that the client
				// is told of a failure. Its next attempt ends the connection here.
				return nil, err
			}
			return nil, verdict
		},
	}
	c.all.GSSAPIWithMICConfig = &ssh.GSSAPIWithMICConfig{AllowLogin: c.allowLogin, Server: (*relayedContext)(c)}
	c.offer(sc, []string{"publickey", "password", "keyboard-interactive"}) // until forUser is called
	sc.VerifySignatureCallback, sc.UserCallback = c.signature, c.forUser
}

// callbacks are those of the methods.
func (c *connection) callbacks(methods []string) ssh.ServerAuthCallbacks {
	var some ssh.ServerAuthCallbacks
	for _, m := range methods {
		switch m {
		case "password":
			some.PasswordCallback = c.all.PasswordCallback
		case "publickey":
			some.PublicKeyCallback = c.all.PublicKeyCallback
		case "keyboard-interactive":
			some.KeyboardInteractiveCallback = c.all.KeyboardInteractiveCallback
		case "gssapi-with-mic":
			some.GSSAPIWithMICConfig = c.all.GSSAPIWithMICConfig
		}
	}
	return some
}

// algorithm is one that the key could sign with, to ask whether it would do.
func (c *connection) algorithm(key ssh.PublicKey) string {
	fits := []string{key.Type()}
	switch key.Type() {
	case ssh.KeyAlgoRSA:
		fits = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}
	case ssh.CertAlgoRSAv01:
		fits = []string{ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01, ssh.CertAlgoRSAv01}
	}
	for _, a := range fits {
		if slices.Contains(c.user.PubkeyAcceptedAlgorithms, a) {
			return a
		}
	}
	return ""
}

// signature has factotum judge a signature. The bytes that were signed it puts
// together for itself, with its host key where the client's method has that.
func (c *connection) signature(m ssh.ConnMetadata, method, alg string, key ssh.PublicKey, _ []byte, sig *ssh.Signature) error {
	return c.verdict(m, c.auth(m, capproto.Proof{
		User: m.User(), Method: "publickey", Alg: alg, Key: key.Marshal(), Sig: ssh.Marshal(sig), HostBound: method != "publickey",
	}))
}

// auth offers a proof to factotum.
func (c *connection) auth(m ssh.ConnMetadata, p capproto.Proof) error {
	if c.over {
		return errOver
	}
	c.tried = true
	if named := withoutStyle(p.User); named != c.login {
		// It is the client's doing (sshd: auth2.c, input_userauth_request), and
		// factotum would have to take it for ours.
		return &capproto.Error{Code: capproto.CodeProtocol, Text: fmt.Sprintf("Change of username or service not allowed: (%s,ssh-connection) -> (%s,ssh-connection)", c.login, named)}
	}
	says, err := c.factotum.Auth(p)
	c.show(m, says)
	return err
}

// show shows what PAM has to say of the account.
func (c *connection) show(m ssh.ConnMetadata, says []string) {
	if len(says) > 0 {
		banner(m, strings.Join(says, "\n"))
	}
}

// banner shows a text before the end of the authentication: RFC 4252 section 5.4.
func banner(m ssh.ConnMetadata, text string) {
	if conn, ok := m.(ssh.ServerPreAuthConn); ok {
		conn.SendAuthBanner(strings.TrimRight(text, "\n") + "\n") // where it fails, the client has gone
	}
}

var errOver = errors.New("factotum has ended the conversation")

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
	if len(says) > 0 && (err == nil || capproto.CodeOf(err) == capproto.CodeAccount) {
		c.told = err != nil
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
		return &ssh.PartialSuccessError{Next: c.callbacks(partial.Methods)}
	case errors.As(err, &e) && e.Code == capproto.CodeDenied && e.Methods != nil:
		return errors.New(e.Text)
	case e != nil && e.Code == capproto.CodeLimit:
		c.over = true // the library counts too, and says goodbye
		return err
	}
	if text := c.giveUp(m, err); text != "" && !c.told {
		banner(m, text)
	}
	// A partial success that leaves no method ends the connection. There is no
	// other answer that does.
	return &ssh.PartialSuccessError{}
}

// giveUp notes that there is nothing that the client could still do. It returns
// what to tell the client, or nothing where that was done before.
func (c *connection) giveUp(m ssh.ConnMetadata, err error) string {
	if c.over {
		return ""
	}
	c.over = true
	if capproto.CodeOf(err) != capproto.CodeAccount { // as sshd: factotum has logged that
		sshlog.Printf(sshdconf.LogInfo, "Disconnecting authenticating user %s %s: %v", c.login, c.from(), err)
	}
	text := "authentication failed: factotum does not answer; try again later"
	if e := new(capproto.Error); errors.As(err, &e) {
		text = e.Text
	}
	return strings.TrimRight(text, "\n") + "\n"
}
