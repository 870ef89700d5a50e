package connection

import (
	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
)

// A relayedContext relays a client's security context of GSSAPI (RFC 4462, section 3) to
// factotum. Nothing is looked at here, and what the library puts together for the MIC is
// of no matter: factotum puts that together itself.
type relayedContext connection

// AcceptSecContext passes a token on. What it says of the client's name is nothing, as
// nobody here goes by it.
func (r *relayedContext) AcceptSecContext(token []byte) (answer []byte, client string, more bool, err error) {
	c := (*connection)(r)
	if !c.begun {
		if err := c.auth(c.meta, capproto.Proof{User: c.meta.User(), Method: "gssapi-with-mic"}); err != nil {
			return nil, "", false, c.verdict(c.meta, err)
		}
		c.begun = true
	}
	answer, done, err := c.factotum.Token(token)
	if err != nil {
		return nil, "", false, c.verdict(c.meta, err)
	}
	return answer, "", !done, nil
}

// VerifyMIC keeps the MIC for allowLogin.
func (r *relayedContext) VerifyMIC(_, mic []byte) error {
	r.mic = mic
	return nil
}

// DeleteSecContext forgets the context. factotum ends its own.
func (r *relayedContext) DeleteSecContext() error {
	r.begun, r.mic = false, nil
	return nil
}

// allowLogin has factotum judge the MIC, and whether the client may be the user.
func (c *connection) allowLogin(m ssh.ConnMetadata, _ string) (*ssh.Permissions, error) {
	says, err := c.factotum.MIC(c.mic)
	c.show(m, says)
	return nil, c.verdict(m, err)
}
