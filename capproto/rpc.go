package capproto

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
	MaxEnv     = 256       // variables in a request environ
	MaxEnvSize = 24 << 10  // bytes of them in the packet
	maxName    = 32
)

// Verbs of requests and replies: p9auth-rpc(7) says what each means, and the
// table in factotum/internal/daemon/verbs.go in which states it is allowed.
const (
	VerbStart    = "start"
	VerbRead     = "read"
	VerbWrite    = "write"
	VerbSession  = "session"
	VerbAuthInfo = "authinfo"
	VerbUser     = "user"
	VerbAttr     = "attr"
	VerbEnviron  = "environ"
	VerbRun      = "run"
	VerbSignal   = "signal"
	VerbPermit   = "permit"

	VerbSign   = "sign"
	VerbNonce  = "nonce"
	VerbProve  = "prove"
	VerbAuth   = "auth"
	VerbToken  = "token"
	VerbMIC    = "mic"
	VerbTicket = "ticket"
	VerbAttach = "attach"

	VerbTerminal = "terminal"
	VerbHangup   = "hangup"

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
	CodeVersion  = "version"  // the front end and factotum are of different versions
	CodeInternal = "internal" // the worker or factotum failed
)

// ErrPacket is wrapped by every error that says that bytes are not a packet.
var ErrPacket = errors.New("not an rpc packet")

// An Attr is one name=value of a packet.
type Attr struct{ Name, Value string }

// A Msg is a packet: a verb and attributes, in order. A name may come
// several times where the protocol says so (env).
//
//	packet = verb *(SP name "=" value)
//	verb   = name = a lower-case letter, then at most 31 of a-z 0-9 "-"
//	value  = bytes other than NUL, SP, "'", TAB, CR, LF; or "'" bytes "'",
//	         in which "'" is written twice
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
// comes twice, but for one whose name is given with "..." after it.
func (m Msg) Only(names ...string) error {
	seen := map[string]bool{}
	many := map[string]bool{}
	for _, n := range names {
		n, repeated := strings.CutSuffix(n, "...")
		seen[n], many[n] = false, repeated
	}
	for _, a := range m.Attrs {
		was, ok := seen[a.Name]
		if !ok {
			return fmt.Errorf("%w: %s does not take %s=", ErrPacket, m.Verb, a.Name)
		}
		if was {
			return fmt.Errorf("%w: %s= twice", ErrPacket, a.Name)
		}
		seen[a.Name] = !many[a.Name]
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
