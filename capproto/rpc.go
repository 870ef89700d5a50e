package capproto

// The rpc between a front end and factotum, in the manner of Plan 9's
// factotum(4). It runs over a SOCK_SEQPACKET unix socket, by default
// /run/factotum/rpc. A connection is one conversation. The front end sends a
// request, factotum answers it with one reply; nothing comes unasked.
//
// A packet is a verb and attributes:
//
//	packet = verb *(SP name "=" value)
//	verb   = name = a lower-case letter, then at most 31 of a-z 0-9 "-"
//	value  = bytes other than NUL, SP, "'", TAB, CR, LF; or "'" bytes "'",
//	         in which "'" is written twice
//
// A request has at most MaxRequest bytes, a reply at most MaxReply.
//
// Requests, with the state they are allowed in and the state they lead to:
//
//	start proto=pam [user=U] [host=H] [preauth=yes]        idle → talking
//	    Begins to authenticate U to the PAM service that factotum's
//	    configuration binds to the sender's uid. The packet may carry one file
//	    descriptor, the terminal; factotum believes what the kernel says of
//	    it. preauth skips the password and is refused unless the connection
//	    was made by uid 0 (login -f) and this is its first request. Answer: ok.
//	read                                                   talking
//	    Waits for what factotum has to say. Answers:
//	        ok style=echo-on|echo-off text=T    a question; answer it by write
//	        ok style=info|error text=T          a message to show; read again
//	        done                                → proven, or → open
//	        error                               → idle; start may be tried again
//	write data=D                                           talking
//	    Answers the question that read returned. Answer: ok.
//	session                                                proven → talking → open
//	    Opens the PAM session for the sender's process; it ends with that
//	    process. read on until done. Answer: ok.
//	authinfo                                               open
//	    Answer: ok user= uid= gid= home= shell= cap= [env=NAME=VALUE]...
//	    [umask=] [nofile=SOFT:HARD] [nproc=SOFT:HARD] [nohome=REASON]
//	    [hush=yes] and, for ssh,
//	    remote= local= settings=J [options=J] [method=]... [message=]...
//	    with a fresh capability: from the sender's uid, to the user, once,
//	    for two minutes at most and no longer than this connection lives.
//	start proto=ssh                                        idle → ssh
//	    Begins an SSH conversation; the packet carries the TCP socket, whose
//	    addresses factotum asks the kernel for. Answer: ok [hostkey=B]...
//	    [hostcert=B]... settings=J, with B the public part of a host key, or
//	    a host certificate, as RFC 4253 section 6.6 encodes it, and J the
//	    configuration that holds for the address (sshdconf.Settings).
//	sign key=B alg=A data=B                                any state after ssh
//	    Signs an exchange hash (RFC 4253 section 8) with a host key. The first
//	    hash is the session id, for good; others are signed only once the
//	    user is proven. Answer: ok sig=B.
//	user name=U                                            ssh
//	    Names the user, once, for good. Answer: ok settings=J methods=M,M
//	    [banner=T] [invalid=yes], with the configuration that holds for the
//	    user, what may be tried first, what is to be shown before, and whether
//	    no such user may log in, whatever the proof.
//	auth user=U method=M ...                               ssh, talking
//	    Offers a proof (RFC 4252). The first user stays the user.
//	        method=none
//	        method=password data=P
//	        method=publickey alg=A key=B            would the key do? ok if so
//	        method=publickey alg=A key=B sig=B      the signature over the bytes
//	            of RFC 4252 section 7, which factotum puts together itself
//	        method=keyboard-interactive             ok → talking; then read, write
//	    Answers, and those of read at its end:
//	        done                                    → admitted
//	        more methods=M,M                        proven in part; → ssh
//	        error code=denied methods=M,M           → ssh
//	    A user whose password has expired gets more
//	    methods=keyboard-interactive, which then asks for the new one.
//	ticket                                                 admitted → spent
//	    Answer: ok ticket=T, which lets one process take the login over, once,
//	    within a minute and no longer than this connection lives.
//	attach ticket=T                                        idle → proven
//	    From a process of the same uid: it is for the sender that the session
//	    is opened and the capability made. Answer: ok.
//	attr                                                   any state
//	    Answer: ok state= [user=] [service=]: what factotum holds true.
//
// Any request may be answered
//
//	error code=C text=T
//
// with C one of the Code constants and T a sentence for a person. After
// CodeProtocol, CodeTimeout, CodeInternal, before a session is open CodeLimit,
// and in ssh CodeAccount, factotum closes the connection.
//
// The states ssh, admitted and spent are only for a front end that is
// configured for ssh, and such a one cannot start proto=pam.
//
// factotum knows who sent each packet from SCM_CREDENTIALS and who made the
// connection from SO_PEERCRED (unix(7)). Packets that do not all come from
// one process end the conversation.

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds of a packet.
const (
	MaxRequest = 32 << 10  // bytes of a packet from a front end
	MaxReply   = 160 << 10 // bytes of a packet from factotum
	MaxAttrs   = 1024      // attributes in a packet
	maxName    = 32
)

// Verbs of requests and replies.
const (
	VerbStart    = "start"
	VerbRead     = "read"
	VerbWrite    = "write"
	VerbSession  = "session"
	VerbAuthInfo = "authinfo"
	VerbUser     = "user"
	VerbAttr     = "attr"

	VerbSign   = "sign"
	VerbAuth   = "auth"
	VerbTicket = "ticket"
	VerbAttach = "attach"

	VerbOK    = "ok"
	VerbDone  = "done"
	VerbMore  = "more"
	VerbError = "error"
)

// Codes of an error reply.
const (
	CodeDenied   = "denied"   // not authenticated: wrong password, unknown user
	CodeAccount  = "account"  // authenticated, but the account may not log in
	CodeLimit    = "limit"    // too many conversations, attempts or capabilities
	CodeTimeout  = "timeout"  // the conversation took too long
	CodeProtocol = "protocol" // a request that is malformed or out of turn
	CodeInternal = "internal" // the worker or factotum failed
)

// ErrPacket is wrapped by every error that says that bytes are not a packet.
var ErrPacket = errors.New("not an rpc packet")

// An Attr is one name=value of a packet.
type Attr struct{ Name, Value string }

// A Msg is a packet: a verb and attributes, in order. A name may come
// several times where the protocol says so (env).
type Msg struct {
	Verb  string
	Attrs []Attr
}

// NewMsg makes a message of a verb and alternating names and values.
func NewMsg(verb string, nameValue ...string) Msg {
	m := Msg{Verb: verb}
	for i := 0; i+1 < len(nameValue); i += 2 {
		m.Add(nameValue[i], nameValue[i+1])
	}
	return m
}

// Add appends an attribute.
func (m *Msg) Add(name, value string) { m.Attrs = append(m.Attrs, Attr{name, value}) }

// Get returns the value of the first attribute of that name, or "".
func (m Msg) Get(name string) string {
	v, _ := m.Lookup(name)
	return v
}

// Lookup returns the value of the first attribute of that name and whether
// there is one.
func (m Msg) Lookup(name string) (string, bool) {
	for _, a := range m.Attrs {
		if a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}

// All returns the values of all attributes of that name.
func (m Msg) All(name string) []string {
	var v []string
	for _, a := range m.Attrs {
		if a.Name == name {
			v = append(v, a.Value)
		}
	}
	return v
}

// Only reports an error unless every attribute has one of the names and none
// comes twice.
func (m Msg) Only(names ...string) error {
	seen := map[string]bool{}
	for _, n := range names {
		seen[n] = false
	}
	for _, a := range m.Attrs {
		was, ok := seen[a.Name]
		if !ok {
			return fmt.Errorf("%w: %s does not take %s=", ErrPacket, m.Verb, a.Name)
		}
		if was {
			return fmt.Errorf("%w: %s= twice", ErrPacket, a.Name)
		}
		seen[a.Name] = true
	}
	return nil
}

func validName(s string) bool {
	if s == "" || len(s) > maxName || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for _, b := range []byte(s) {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '-' {
			return false
		}
	}
	return true
}

// special are the bytes that make a value need quotes.
const special = " '\t\r\n"

// Encode is the packet's bytes. It fails when a name is none, a value has a
// NUL, or there are too many attributes.
func (m Msg) Encode() ([]byte, error) {
	if !validName(m.Verb) {
		return nil, fmt.Errorf("%w: bad verb %.40q", ErrPacket, m.Verb)
	}
	if len(m.Attrs) > MaxAttrs {
		return nil, fmt.Errorf("%w: %d attributes, at most %d", ErrPacket, len(m.Attrs), MaxAttrs)
	}
	b := []byte(m.Verb)
	for _, a := range m.Attrs {
		if !validName(a.Name) {
			return nil, fmt.Errorf("%w: bad name %.40q", ErrPacket, a.Name)
		}
		if strings.IndexByte(a.Value, 0) >= 0 {
			return nil, fmt.Errorf("%w: NUL in %s=", ErrPacket, a.Name)
		}
		b = append(b, ' ')
		b = append(b, a.Name...)
		b = append(b, '=')
		if strings.ContainsAny(a.Value, special) {
			b = append(b, '\'')
			b = append(b, strings.ReplaceAll(a.Value, "'", "''")...)
			b = append(b, '\'')
		} else {
			b = append(b, a.Value...)
		}
	}
	if len(b) > MaxReply {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrPacket, len(b), MaxReply)
	}
	return b, nil
}

// DecodeMsg reads a packet. The errors wrap ErrPacket and quote no values.
func DecodeMsg(b []byte) (Msg, error) {
	var m Msg
	if len(b) > MaxReply {
		return m, fmt.Errorf("%w: %d bytes, at most %d", ErrPacket, len(b), MaxReply)
	}
	s := string(b)
	if strings.IndexByte(s, 0) >= 0 {
		return m, fmt.Errorf("%w: has a NUL", ErrPacket)
	}
	verb, s, more := strings.Cut(s, " ")
	if !validName(verb) {
		return m, fmt.Errorf("%w: bad verb", ErrPacket)
	}
	m.Verb = verb
	for more {
		if len(m.Attrs) == MaxAttrs {
			return Msg{}, fmt.Errorf("%w: more than %d attributes", ErrPacket, MaxAttrs)
		}
		var name, value string
		name, s, more = strings.Cut(s, "=")
		if !more || !validName(name) {
			return Msg{}, fmt.Errorf("%w: bad attribute name", ErrPacket)
		}
		if strings.HasPrefix(s, "'") {
			var err error
			if value, s, more, err = unquote(s[1:]); err != nil {
				return Msg{}, err
			}
		} else {
			value, s, more = strings.Cut(s, " ")
			if strings.ContainsAny(value, special) {
				return Msg{}, fmt.Errorf("%w: %s= needs quotes", ErrPacket, name)
			}
		}
		m.Attrs = append(m.Attrs, Attr{name, value})
	}
	return m, nil
}

// unquote reads a value whose opening quote is gone. It returns the value,
// what follows the space after it, and whether there was such a space.
func unquote(s string) (value, rest string, more bool, err error) {
	var v strings.Builder
	for {
		i := strings.IndexByte(s, '\'')
		if i < 0 {
			return "", "", false, fmt.Errorf("%w: quote not closed", ErrPacket)
		}
		v.WriteString(s[:i])
		s = s[i+1:]
		switch {
		case s == "":
			return v.String(), "", false, nil
		case s[0] == ' ':
			return v.String(), s[1:], true, nil
		case s[0] != '\'':
			return "", "", false, fmt.Errorf("%w: bytes after a closing quote", ErrPacket)
		}
		v.WriteByte('\'')
		s = s[1:]
	}
}

// An Error is an error reply.
type Error struct {
	Code    string   // one of the Code constants
	Text    string   // a sentence for a person
	Methods []string // of ssh: what may still be tried
}

func (e *Error) Error() string { return e.Text }

// Msg is the error as a reply.
func (e *Error) Msg() Msg {
	m := NewMsg(VerbError, "code", e.Code, "text", e.Text)
	if e.Methods != nil {
		m.Add("methods", strings.Join(e.Methods, ","))
	}
	return m
}

// A Partial is not quite an error: the proof was right, and factotum wants
// another one.
type Partial struct{ Methods []string }

func (p *Partial) Error() string { return "another proof is needed: " + strings.Join(p.Methods, ", ") }

// CodeOf returns the code of the *Error in err's chain, or "".
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
