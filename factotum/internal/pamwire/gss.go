package pamwire

import "p9auth/capproto"

// MaxToken bounds a token of GSSAPI and the MIC, in bytes. A ticket of Active Directory
// with many groups has 48,000 (MaxTokenSize), and one that is delegated comes on top.
const MaxToken = 64 << 10

// MaxTokens bounds how many tokens a client sends for one security context. Kerberos takes
// one, or two.
const MaxTokens = 8

// maxEncoded is a token or a cache in base64.
const maxEncoded = (MaxToken + 2) / 3 * 4

// GSSToken is a token of the client by which it establishes a security context:
// GSS_Accept_sec_context of RFC 2743, section 2.2.2.
type GSSToken struct{ Token []byte }

func (g GSSToken) Encode() capproto.Msg {
	return capproto.NewMsg("gsstoken", "data", capproto.B64(g.Token))
}

// GSSMIC asks whether the client has made that MIC over a message, in the security
// context that is established: GSS_VerifyMIC of RFC 2743, section 2.3.2.
type GSSMIC struct{ Message, MIC []byte }

func (g GSSMIC) Encode() capproto.Msg {
	return capproto.NewMsg("gssmic", "message", capproto.B64(g.Message), "mic", capproto.B64(g.MIC))
}

// GSSContinue is the answer to a GSSToken that was good. Token is for the client, and
// may be empty. Done says that the context is established.
type GSSContinue struct {
	Token []byte
	Done  bool
}

func (g GSSContinue) Encode() capproto.Msg {
	m := capproto.NewMsg("gsscontinue")
	if len(g.Token) > 0 {
		m.Add("data", capproto.B64(g.Token))
	}
	addFlag(&m, "complete", "yes", g.Done)
	return m
}

func decodeGSSContinue(r *reader) Event {
	g := GSSContinue{Done: r.flag("complete", "yes")}
	if r.has("data") {
		g.Token = r.blob("data", maxEncoded)
	}
	return g
}

// GSSProven says that the MIC is the client's. Cache has the credentials that the client
// has delegated, as a file of MIT Kerberos has them (ccache file format, version 4), or
// nothing.
type GSSProven struct {
	Principal string // as krb5_unparse_name(3) writes it
	Cache     []byte
}

func (g GSSProven) Encode() capproto.Msg {
	m := capproto.NewMsg("gssproven", "principal", g.Principal)
	if len(g.Cache) > 0 {
		m.Add("cache", capproto.B64(g.Cache))
	}
	return m
}

// String hides the credentials.
func (g GSSProven) String() string { return "GSSProven{" + g.Principal + "}" }

// GoString is String: %#v hides the credentials too.
func (g GSSProven) GoString() string { return g.String() }

func decodeGSSProven(r *reader) Event {
	g := GSSProven{Principal: r.some("principal", maxName)}
	if r.has("cache") {
		g.Cache = r.blob("cache", maxEncoded)
	}
	return g
}

// KerberosUser asks whether a principal may be the account that was looked up: see
// krb5_kuserok(3). The worker asks with the
// account's own rights. User is the name that was looked up.
type KerberosUser struct{ Principal, User string }

func (k KerberosUser) Encode() capproto.Msg {
	return capproto.NewMsg("kuserok", "principal", k.Principal, "user", k.User)
}

// PrincipalJudged answers KerberosUser. Why is for the log, where the principal may not.
type PrincipalJudged struct {
	Allowed bool
	Why     string
}

func (p PrincipalJudged) Encode() capproto.Msg {
	m := capproto.NewMsg("judged")
	addFlag(&m, "allowed", "yes", p.Allowed)
	add(&m, "why", p.Why)
	return m
}

// Delegate hands over the credentials that a client has delegated. The session that is
// opened next has them in a file of the user's, which KRB5CCNAME names, and which is
// removed at its end unless Keep is set.
type Delegate struct {
	Cache []byte // as in GSSProven
	Keep  bool
}

func (d Delegate) Encode() capproto.Msg {
	m := capproto.NewMsg("delegate", "cache", capproto.B64(d.Cache))
	addFlag(&m, "keep", "yes", d.Keep)
	return m
}

// String hides the credentials.
func (d Delegate) String() string { return "Delegate{secret}" }

// GoString is String: %#v hides the credentials too.
func (d Delegate) GoString() string { return d.String() }

// Delegated says that the worker has the credentials.
type Delegated struct{}

func (Delegated) Encode() capproto.Msg { return capproto.NewMsg("delegated") }

func (GSSToken) request()      {}
func (GSSMIC) request()        {}
func (KerberosUser) request()  {}
func (Delegate) request()      {}
func (GSSContinue) event()     {}
func (GSSProven) event()       {}
func (PrincipalJudged) event() {}
func (Delegated) event()       {}
