package capproto

import (
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
)

// B64 encodes bytes for a packet.
func B64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// UnB64 decodes what B64 encodes, and nothing else.
func UnB64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || B64(b) != s {
		return nil, fmt.Errorf("%w: not base64", ErrPacket)
	}
	return b, nil
}

// SSHVersion begins what every SSH server announces to its clients (V_S of RFC
// 4253, section 8); a space and the text of VersionAddendum follow it where there
// is one. factotum must know it, since what a host key signs depends on it.
//
// Clients choose by it. OpenSSH's sends eow@openssh.com and
// no-more-sessions@openssh.com to a software version that begins with "OpenSSH"
// only (compat.c). 9.9 has none of the bugs that OpenSSH, PuTTY, libssh
// and paramiko look for, in versions up to 7.7; and it is not 10, which
// paramiko takes for 1 and which libssh, with its one digit, does not read.
const SSHVersion = "SSH-2.0-OpenSSH_9.9p9auth"

// SSHServer is what an SSH server has to show: its host keys' public parts and
// certificates, encoded as RFC 4253 section 6.6 says, its settings for the
// address at the other end (sshdconf.TransportFormat), and the cookie of its
// first SSH_MSG_KEXINIT.
type SSHServer struct {
	HostKeys  [][]byte
	HostCerts [][]byte
	Settings  []byte
	Nonce     [16]byte
}

// StartSSH begins a conversation over an SSH connection, whose socket it passes. Without
// one, as is the case where that is none of TCP, the client's address is unknown.
func (c *Client) StartSSH(conn ...*os.File) (*SSHServer, error) {
	m, err := c.start(NewMsg(VerbStart, "proto", "ssh", "version", strconv.Itoa(Version)), conn...)
	if err != nil {
		return nil, err
	}
	m.Close()
	s := new(SSHServer)
	if s.Settings, err = UnB64(m.Get("settings")); err != nil {
		return nil, err
	}
	if s.Nonce, err = nonceOf(m.Msg); err != nil {
		return nil, err
	}
	for _, k := range m.All("hostkey") {
		b, err := UnB64(k)
		if err != nil {
			return nil, err
		}
		s.HostKeys = append(s.HostKeys, b)
	}
	for _, k := range m.All("hostcert") {
		b, err := UnB64(k)
		if err != nil {
			return nil, err
		}
		s.HostCerts = append(s.HostCerts, b)
	}
	return s, nil
}

// Nonce asks for the cookie of the next SSH_MSG_KEXINIT (RFC 4253, section 7.1).
// There is one for each key exchange, and none before the one before is signed.
func (c *Client) Nonce() ([16]byte, error) {
	m, err := c.rpc(NewMsg(VerbNonce))
	if err != nil {
		return [16]byte{}, err
	}
	return nonceOf(m)
}

func nonceOf(m Msg) (nonce [16]byte, err error) {
	b, err := UnB64(m.Get("nonce"))
	if err == nil && len(b) != len(nonce) {
		err = fmt.Errorf("%w: a nonce of %d bytes", ErrPacket, len(b))
	}
	copy(nonce[:], b)
	return nonce, err
}

// Sign has a key exchange signed with that host key, or with the key of that
// host certificate. The transcript is the whole input of the exchange hash (RFC
// 4253, section 8), and hash is sha1, sha256, sha384 or sha512. The signature is
// encoded as RFC 4253 section 6.6 says.
func (c *Client) Sign(key []byte, alg, hash string, transcript []byte) ([]byte, error) {
	m, err := c.rpc(NewMsg(VerbSign, "key", B64(key), "alg", alg, "hash", hash, "transcript", B64(transcript)))
	if err != nil {
		return nil, err
	}
	return UnB64(m.Get("sig"))
}

// Prove returns the signature with which a host key proves to the client of this
// connection that the server has it: the answer to hostkeys-prove-00@openssh.com
// (OpenSSH's PROTOCOL, section 2.5), encoded as RFC 4253 section 6.6 says. The user
// must be proven.
func (c *Client) Prove(hostKey []byte) ([]byte, error) {
	m, err := c.rpc(NewMsg(VerbProve, "key", B64(hostKey)))
	if err != nil {
		return nil, err
	}
	return UnB64(m.Get("sig"))
}

// A Proof is what is offered to Auth.
type Proof struct {
	User     string
	Method   string // none, password, publickey, keyboard-interactive or gssapi-with-mic
	Password string
	Alg      string // of the signature
	Key      []byte // public key or certificate
	Sig      []byte // nil asks whether the key is acceptable

	// HostBound says that the host key, or certificate, of the first key exchange is
	// signed too (publickey-hostbound-v00@openssh.com, OpenSSH's PROTOCOL, section 3.1).
	HostBound bool
}

// Auth offers a proof. The error is nil when nothing more is needed, *Partial
// when another proof is, *Error when this one was not good. Nil for a key without
// a signature says that the key is acceptable. After nil for
// keyboard-interactive, Converse has the same results, and after nil for gssapi-with-mic MIC
// has, which Token comes before. With the last proof comes what
// PAM has to say of the account.
func (c *Client) Auth(p Proof) (says []string, err error) {
	m := NewMsg(VerbAuth, "user", p.User, "method", p.Method)
	switch p.Method {
	case "password":
		m.Add("data", p.Password)
	case "publickey":
		m.Add("alg", p.Alg)
		m.Add("key", B64(p.Key))
		if p.Sig != nil {
			m.Add("sig", B64(p.Sig))
			if p.HostBound {
				m.Add("hostbound", "yes")
			}
		}
	}
	answer, err := c.rpc(m)
	return answer.All("message"), err
}

// tokenPiece is how much of a token goes into a request, in bytes.
const tokenPiece = MaxRequest / 2

// Token passes on a token of GSSAPI that the client has sent (RFC 4462, section 3.4). It
// returns the one that the client is to get, if any, and whether the security context is
// established; then MIC follows, and otherwise another Token.
func (c *Client) Token(token []byte) (answer []byte, done bool, err error) {
	for len(token) > tokenPiece {
		if _, err := c.rpc(NewMsg(VerbToken, "data", B64(token[:tokenPiece]), "more", "yes")); err != nil {
			return nil, false, err
		}
		token = token[tokenPiece:]
	}
	m, err := c.rpc(NewMsg(VerbToken, "data", B64(token)))
	if err != nil {
		return nil, false, err
	}
	answer, err = UnB64(m.Get("data"))
	return answer, m.Get("complete") == "yes", err
}

// MIC passes on the MIC by which the client binds the security context to this connection
// (RFC 4462, section 3.5). Its results are Auth's.
func (c *Client) MIC(mic []byte) (says []string, err error) {
	m, err := c.rpc(NewMsg(VerbMIC, "data", B64(mic)))
	return m.All("message"), err
}

// An SSHUser is what an SSH server needs to know of the user that the client has
// named: the settings that hold for them (sshdconf.ConnectionFormat), the
// methods that may be tried first, and the text to show before. Invalid: the
// login will be refused whatever is offered (unknown or barred user).
type SSHUser struct {
	Settings []byte
	Methods  []string
	Banner   string
	Invalid  bool
}

// User names the user, for good. It comes before any Auth, or not at all.
func (c *Client) User(name string) (*SSHUser, error) {
	m, err := c.rpc(NewMsg(VerbUser, "name", name))
	if err != nil {
		return nil, err
	}
	settings, err := UnB64(m.Get("settings"))
	if err != nil {
		return nil, err
	}
	return &SSHUser{settings, splitMethods(m), m.Get("banner"), m.Get("invalid") == "yes"}, nil
}

// Ticket returns a ticket with which another process of the same uid can take
// the login over. There is one in a conversation.
func (c *Client) Ticket() (string, error) {
	m, err := c.rpc(NewMsg(VerbTicket))
	return m.Get("ticket"), err
}

// Attach takes over the login that a ticket stands for. Session and AuthInfo
// follow.
func (c *Client) Attach(ticket string) error {
	_, err := c.rpc(NewMsg(VerbAttach, "ticket", ticket))
	return err
}
