package pamwire

import (
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"p9auth/capproto"
)

// requests has for each verb how many descriptors come with it and how it is
// decoded.
var requests = map[string]struct {
	minFiles, maxFiles int
	decode             func(*reader) Request
}{
	"hello":        {0, 0, func(r *reader) Request { return decodeHello(r) }},
	"lookup":       {0, 0, decodeLookup},
	"key":          {0, 0, decodeKeyQuery},
	"begin":        {0, 1, decodeBegin},
	"authenticate": {0, 0, func(r *reader) Request { return Authenticate{NoEmpty: r.flag("null", "no")} }},
	"answer":       {0, 0, decodeAnswer},
	"account":      {0, 0, func(r *reader) Request { return CheckAccount{Later: r.flag("later", "yes")} }},
	"session": {1, 1, func(r *reader) Request {
		o := OpenSession{PID: r.positive("pid"), Root: r.optional("root", maxPath), Groups: r.list("group", capproto.MaxGroups, maxName),
			Display: r.optional("display", maxName), XAuthority: r.optional("xauthority", maxPath)}
		if slices.Contains(o.Groups, "") {
			r.fail("group= is empty")
		}
		return o
	}},
	"signal":   {1, 1, func(r *reader) Request { return Signal{r.positive("signal")} }},
	"terminal": {1, 1, func(r *reader) Request { return BeginTerminal{Line: r.some("line", maxName)} }},
	"hangup":   {0, 0, func(r *reader) Request { return EndTerminal{Line: r.some("line", maxName)} }},
	"adopt":    {1, 2, decodeAdopt},
	"password": {0, 0, func(r *reader) Request {
		return ChangePassword{Expired: r.flag("expired", "yes"), Quiet: r.flag("quiet", "yes")}
	}},
	"status":  {0, 0, func(r *reader) Request { return PasswordStatus{User: r.some("user", maxName)} }},
	"check":   {0, 0, decodeCheckPassword},
	"resolve": {0, 0, decodeResolve},
	"target":  {0, 0, func(r *reader) Request { return Target{r.takeID("uid")} }},

	"gsstoken": {0, 0, func(r *reader) Request { return GSSToken{r.blob("data", maxEncoded)} }},
	"gssmic":   {0, 0, func(r *reader) Request { return GSSMIC{r.blob("message", maxData), r.blob("mic", maxEncoded)} }},
	"kuserok":  {0, 0, func(r *reader) Request { return KerberosUser{r.some("principal", maxName), r.some("user", maxName)} }},
	"delegate": {0, 0, func(r *reader) Request { return Delegate{r.blob("cache", maxEncoded), r.flag("keep", "yes")} }},
}

// Lookup asks NSS for the account of a name.
type Lookup struct {
	User string
	Addr netip.Addr // of the client, if its name is wanted (UseDNS)
}

func (l Lookup) Encode() capproto.Msg {
	m := capproto.NewMsg("lookup", "user", l.User)
	if l.Addr.IsValid() {
		m.Add("addr", l.Addr.String())
	}
	return m
}

func decodeLookup(r *reader) Request {
	return Lookup{User: r.some("user", maxName), Addr: r.addr("addr", false)}
}

// KeyQuery asks whether a key or certificate may log in the account that was
// looked up, were a signature by it presented.
type KeyQuery struct {
	Key      []byte // as RFC 4253 section 6.6 encodes it
	Settings string // sshdconf.AuthFormat, in base64
	Host     string // the client's name, or "" if it has none
	Addr     netip.Addr
	Ends     string // both ends of the connection, the token %C of sshd_config(5)
}

func (q KeyQuery) Encode() capproto.Msg {
	m := capproto.NewMsg("key", "key", capproto.B64(q.Key), "settings", q.Settings, "addr", q.Addr.String(), "ends", q.Ends)
	add(&m, "host", q.Host)
	return m
}

func decodeKeyQuery(r *reader) Request {
	return KeyQuery{
		Key: r.blob("key", maxData), Settings: r.some("settings", maxBlob),
		Host: r.optional("host", maxName), Addr: r.addr("addr", true), Ends: r.some("ends", maxName),
	}
}

// Begin starts the PAM transaction: see pam_start(3). A terminal, if there is
// one, comes along as a descriptor. With Take the worker takes it from everybody
// who has it open, and returns a fresh descriptor with Begun.
type Begin struct {
	Service string
	User    string // "" lets PAM ask for it, or is the Caller
	TTY     string // PAM_TTY: a path, for doas without /dev/, or "ssh"
	RHost   string // PAM_RHOST
	ConfDir string // instead of /etc/pam.d
	Env     []string
	LastLog bool // the user is told of their last login (PrintLastLog)
	Take    bool // of the terminal

	// Caller is who runs su(1) or the like, nil for a login. These are the worker's
	// real ids from here on, as a setuid program has them, and the uid's name is
	// PAM_RUSER. Nothing is recorded or given to a process as for a login.
	Caller *Caller
}

// A Caller has the real ids of the process that factotum talks with.
type Caller struct{ UID, GID uint32 }

func (b Begin) Encode() capproto.Msg {
	m := capproto.NewMsg("begin", "service", b.Service, "user", b.User)
	add(&m, "tty", b.TTY)
	add(&m, "rhost", b.RHost)
	add(&m, "confdir", b.ConfDir)
	addAll(&m, "env", b.Env)
	addFlag(&m, "lastlog", "yes", b.LastLog)
	addFlag(&m, "take", "yes", b.Take)
	if b.Caller != nil {
		m.Add("caller", utoa(b.Caller.UID)+","+utoa(b.Caller.GID))
	}
	return m
}

func decodeBegin(r *reader) Request {
	b := Begin{
		Service: r.some("service", maxName), User: r.text("user", maxName), TTY: r.optional("tty", maxName),
		RHost: r.optional("rhost", maxName), ConfDir: r.optional("confdir", maxPath), Env: r.env("env"), LastLog: r.flag("lastlog", "yes"), Take: r.flag("take", "yes"),
	}
	if r.has("caller") {
		if ids := r.ids("caller"); len(ids) == 2 {
			b.Caller = &Caller{ids[0], ids[1]}
		} else {
			r.fail("caller= is not a uid and a gid")
		}
	}
	return b
}

// Authenticate asks PAM for its proof: see pam_authenticate(3).
type Authenticate struct {
	NoEmpty bool // an empty password is not accepted
}

func (a Authenticate) Encode() capproto.Msg {
	m := capproto.NewMsg("authenticate")
	addFlag(&m, "null", "no", a.NoEmpty)
	return m
}

// Answer answers a Prompt that is a question. Fail says that there is no answer,
// and leaves Data empty.
type Answer struct {
	Data string
	Fail bool
}

func (a Answer) Encode() capproto.Msg {
	if a.Fail {
		return capproto.NewMsg("answer", "fail", "yes")
	}
	return capproto.NewMsg("answer", "data", a.Data)
}

// String hides the answer, which may be a password.
func (a Answer) String() string { return "Answer{secret}" }

// GoString is String: %#v hides the answer too.
func (a Answer) GoString() string { return a.String() }

func decodeAnswer(r *reader) Request {
	if r.flag("fail", "yes") {
		return Answer{Fail: true}
	}
	return Answer{Data: r.text("data", maxData)}
}

// CheckAccount asks whether the account may log in now: see pam_acct_mgmt(3). A
// password that has expired is changed, or with Later in the session.
type CheckAccount struct{ Later bool }

func (c CheckAccount) Encode() capproto.Msg {
	m := capproto.NewMsg("account")
	addFlag(&m, "later", "yes", c.Later)
	return m
}

// OpenSession opens the PAM session for a process. Its pidfd comes along.
type OpenSession struct {
	PID  int
	Root string // ChrootDirectory of sshd_config(5) as it stands there, or ""

	// Groups are by name, the primary one first, in place of the user's own.
	Groups []string

	// DISPLAY and XAUTHORITY of the process, or "". pam_xauth(8) has a program read
	// XAUTHORITY, as the caller of Begin.
	Display, XAuthority string
}

func (o OpenSession) Encode() capproto.Msg {
	m := capproto.NewMsg("session", "pid", strconv.Itoa(o.PID))
	add(&m, "root", o.Root)
	addAll(&m, "group", o.Groups)
	add(&m, "display", o.Display)
	add(&m, "xauthority", o.XAuthority)
	return m
}

// BeginTerminal has a terminal recorded that an open session by SSH has made. The
// terminal comes along, and the worker gives it the owner and mode that sshd(8) does.
type BeginTerminal struct {
	Line string   // its name without /dev/
	TTY  *os.File // open for its path alone (O_PATH)
}

func (b BeginTerminal) Encode() capproto.Msg { return capproto.NewMsg("terminal", "line", b.Line) }

// EndTerminal records that such a terminal is no more.
type EndTerminal struct{ Line string }

func (e EndTerminal) Encode() capproto.Msg { return capproto.NewMsg("hangup", "line", e.Line) }

// Adopt takes over the session of a worker that has died. The pidfd of the
// session's process comes along, and the terminal if Owner is set.
type Adopt struct {
	User                         string   // PAM_USER, as in Opened
	Service, TTY, RHost, ConfDir string   // as in Begin
	Env                          []string // of PAM's transaction when the session was opened
	PID                          int      // of the session's process
	Owner                        *Owner   // to whom the terminal is given back
	Lines                        []string // of terminals that are recorded, see BeginTerminal
	Local                        bool     // Begin had a Caller
	Cache                        string   // as in Opened
}

// An Owner is to whom a terminal belongs, and with which mode.
type Owner struct{ UID, GID, Mode uint32 }

// String is uid:gid:mode, the mode in octal.
func (o Owner) String() string { return utoa(o.UID) + ":" + utoa(o.GID) + ":" + octal(o.Mode) }

func (a Adopt) Encode() capproto.Msg {
	m := capproto.NewMsg("adopt", "user", a.User, "service", a.Service, "pid", strconv.Itoa(a.PID))
	add(&m, "tty", a.TTY)
	add(&m, "rhost", a.RHost)
	add(&m, "confdir", a.ConfDir)
	addAll(&m, "env", a.Env)
	addAll(&m, "lines", a.Lines)
	addFlag(&m, "local", "yes", a.Local)
	add(&m, "cache", a.Cache)
	if a.Owner != nil {
		m.Add("owner", a.Owner.String())
	}
	return m
}

func decodeAdopt(r *reader) Request {
	a := Adopt{
		User: r.some("user", maxName), Service: r.some("service", maxName), TTY: r.optional("tty", maxName),
		RHost: r.optional("rhost", maxName), ConfDir: r.optional("confdir", maxPath), Env: r.env("env"), PID: r.positive("pid"),
		Lines: r.list("lines", MaxTerminals, MaxTerminals*maxName), Local: r.flag("local", "yes"), Cache: r.optional("cache", maxPath),
	}
	if slices.Contains(a.Lines, "") {
		r.fail("lines= is empty")
	}
	if r.has("owner") {
		f := strings.Split(r.some("owner", 64), ":")
		if len(f) != 3 {
			r.fail("owner= is not uid:gid:mode")
			return a
		}
		a.Owner = &Owner{r.id("owner", f[0]), r.id("owner", f[1]), r.octal("owner", f[2], 0o7777)}
	}
	return a
}

func (Lookup) request()        {}
func (KeyQuery) request()      {}
func (Begin) request()         {}
func (Authenticate) request()  {}
func (Answer) request()        {}
func (CheckAccount) request()  {}
func (OpenSession) request()   {}
func (BeginTerminal) request() {}
func (EndTerminal) request()   {}
func (Adopt) request()         {}
