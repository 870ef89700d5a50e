package pamwire

import (
	"os"
	"strconv"
	"strings"

	"p9auth/capproto"
)

// events has for each verb how it is decoded.
var events = map[string]func(*reader) Event{
	"hello":   func(r *reader) Event { return decodeHello(r) },
	"account": decodeAccount,
	"nouser":  func(r *reader) Event { return NoUser{Host: r.optional("host", maxName)} },
	"allowed": func(r *reader) Event { return KeyAllowed{Options: r.some("options", maxBlob), Notes: r.notes()} },
	"denied":  func(r *reader) Event { return KeyDenied{Notes: r.notes()} },
	"ok": func(r *reader) Event {
		return Begun{LogName: r.optional("log", maxName), Caller: r.optional("caller", maxName), Shell: r.optional("shell", maxPath)}
	},
	"prompt":           decodePrompt,
	"proven":           func(r *reader) Event { return Proven{User: r.some("user", maxName)} },
	"done":             decodeAccountValid,
	"opened":           decodeOpened,
	capproto.VerbError: decodeError,
	"recorded":         func(r *reader) Event { return Recorded{Last: r.optional("last", MaxText)} },
	"closing":          func(*reader) Event { return Closing{} },
	"closed":           func(*reader) Event { return Closed{} },
	"changed":          func(*reader) Event { return Changed{} },
	"status":           func(r *reader) Event { return Status{Line: r.some("line", MaxText)} },
	"checked":          decodeChecked,
	"resolved":         decodeResolved,
	"gsscontinue":      decodeGSSContinue,
	"gssproven":        decodeGSSProven,
	"judged": func(r *reader) Event {
		return PrincipalJudged{Allowed: r.flag("allowed", "yes"), Why: r.optional("why", MaxText)}
	},
	"delegated": func(*reader) Event { return Delegated{} },
}

// Account is the account that Lookup asked for, as NSS has it. Its name may be
// another one than Lookup's: see package nss.
type Account struct {
	Name      string
	UID, GID  uint32
	Home      string
	Shell     string
	BadShell  string   // what is wrong with Shell, in sshd's words, "" for nothing
	Groups    []string // names; none if GroupsErr is set
	GroupsErr string   // why the names are not known: a rule about groups must not count as obeyed
	Host      string   // the client's name, if Lookup asked for it and it leads back to the address
}

func (a Account) Encode() capproto.Msg {
	m := capproto.NewMsg("account", "name", a.Name, "uid", utoa(a.UID), "gid", utoa(a.GID), "home", a.Home, "shell", a.Shell)
	add(&m, "badshell", a.BadShell)
	addAll(&m, "group", a.Groups)
	add(&m, "nogroups", a.GroupsErr)
	add(&m, "host", a.Host)
	return m
}

func decodeAccount(r *reader) Event {
	a := Account{
		Name: r.some("name", maxName), UID: r.takeID("uid"), GID: r.takeID("gid"), Home: r.text("home", maxPath), Shell: r.text("shell", maxPath),
		BadShell: r.optional("badshell", maxName),
		Groups:   r.list("group", MaxGroupNames, MaxGroupNamesSize), GroupsErr: r.optional("nogroups", MaxText),
		Host: r.optional("host", maxName),
	}
	if a.GroupsErr != "" && a.Groups != nil {
		r.fail("both group= and nogroups=")
	}
	return a
}

// NoUser says that there is no account of the name that Lookup asked for.
type NoUser struct{ Host string } // as in Account

func (n NoUser) Encode() capproto.Msg {
	m := capproto.NewMsg("nouser")
	add(&m, "host", n.Host)
	return m
}

// KeyAllowed says that the key may log the account in.
type KeyAllowed struct {
	Options string   // authkeys.OptionsFormat, in base64: what such a login may do
	Notes   []string // for the log
}

func (k KeyAllowed) Encode() capproto.Msg {
	m := capproto.NewMsg("allowed", "options", k.Options)
	addAll(&m, "note", k.Notes)
	return m
}

// KeyDenied says that the key may not.
type KeyDenied struct{ Notes []string } // for the log

func (k KeyDenied) Encode() capproto.Msg {
	m := capproto.NewMsg("denied")
	addAll(&m, "note", k.Notes)
	return m
}

func (r *reader) notes() []string { return r.list("note", MaxNotes, MaxNote) }

// Begun says that the PAM transaction has begun. LogName is how logs may name the
// user: "UNKNOWN" for a name that does not exist, which may be a mistyped
// password. It is empty if no name was given, and for an SSH login. TTY is the
// fresh descriptor of a terminal that was taken, or nil; it comes along with the
// packet.
//
// Caller is the name of Begin's Caller and Shell their shell, "" where there is none.
type Begun struct {
	LogName string
	TTY     *os.File
	Caller  string
	Shell   string
}

func (b Begun) Encode() capproto.Msg {
	m := capproto.NewMsg("ok")
	add(&m, "log", b.LogName)
	add(&m, "caller", b.Caller)
	add(&m, "shell", b.Shell)
	return m
}

// Prompt is what a PAM module says to the person: see pam_conv(3).
type Prompt struct {
	Style capproto.Style
	Text  string
}

func (p Prompt) Encode() capproto.Msg {
	return capproto.NewMsg("prompt", "style", string(p.Style), "text", p.Text)
}

func decodePrompt(r *reader) Event {
	p := Prompt{Style: capproto.Style(r.some("style", maxName)), Text: r.text("text", MaxText)}
	switch p.Style {
	case capproto.EchoOn, capproto.EchoOff, capproto.Info, capproto.Failure:
	default:
		r.fail("style= is unknown")
	}
	return p
}

// Proven says that PAM has authenticated the user, whose name a module may have
// changed.
type Proven struct{ User string }

func (p Proven) Encode() capproto.Msg { return capproto.NewMsg("proven", "user", p.User) }

// AccountValid says that an account may log in now: the one that PAM_USER leads to,
// which a module may have changed. User is the account's name. Expired says that its
// password has expired, and that CheckAccount left the change for later.
type AccountValid struct {
	User    string
	UID     uint32
	Expired bool
}

func (a AccountValid) Encode() capproto.Msg {
	m := capproto.NewMsg("done", "user", a.User, "uid", utoa(a.UID))
	addFlag(&m, "expired", "yes", a.Expired)
	return m
}

func decodeAccountValid(r *reader) Event {
	return AccountValid{User: r.some("user", maxName), UID: r.takeID("uid"), Expired: r.flag("expired", "yes")}
}

// Opened says that the PAM session is open, and whom and with what the session's
// process is to become.
type Opened struct {
	User     string // the account's name
	PAMUser  string // PAM_USER, for a worker that has to take over
	UID, GID uint32
	Home     string
	Shell    string
	Groups   []uint32 // the primary group first
	Env      []string // NAME=VALUE, of PAM's transaction
	Login    []string // NAME=VALUE, by login.defs(5); none for an SSH login
	Umask    *uint32  // if a module has set it
	NoFile   *Limit   // likewise: RLIMIT_NOFILE
	NProc    *Limit   // likewise: RLIMIT_NPROC
	Limits   Limits   // others that a module has set, and the worker could not: all, for su and the like
	NoHome   string   // why the user cannot enter their home, or ""
	Hush     bool     // the user wants no messages (.hushlogin)
	Root     *Root    // if OpenSession asked for a root directory
	Cache    string   // the file of delegated credentials, to be removed at the end, or ""
	Process           // what only the user's process can take on

	more int // groups that come in a pipe: see MoreGroups
}

// A Root is a root directory that nobody but root can change or put another in
// the place of: an absolute path without links, and what stat(2) says of it.
type Root struct {
	Path     string
	Dev, Ino uint64
}

// A Limit is a resource limit: see setrlimit(2).
type Limit struct{ Soft, Hard uint64 }

// String is soft:hard.
func (l Limit) String() string {
	return strconv.FormatUint(l.Soft, 10) + ":" + strconv.FormatUint(l.Hard, 10)
}

func (o Opened) Encode() capproto.Msg {
	named := o.Groups[:min(len(o.Groups), capproto.MaxGroups)]
	groups := make([]string, len(named))
	for i, g := range named {
		groups[i] = utoa(g)
	}
	m := capproto.NewMsg("opened", "user", o.User, "pamuser", o.PAMUser, "uid", utoa(o.UID), "gid", utoa(o.GID), "home", o.Home, "shell", o.Shell,
		"groups", strings.Join(groups, ","))
	if more := len(o.Groups) - len(named); more > 0 {
		m.Add("more", strconv.Itoa(more))
	}
	addAll(&m, "env", o.Env)
	addAll(&m, "login", o.Login)
	if o.Umask != nil {
		m.Add("umask", octal(*o.Umask))
	}
	if o.NoFile != nil {
		m.Add("nofile", o.NoFile.String())
	}
	if o.NProc != nil {
		m.Add("nproc", o.NProc.String())
	}
	o.Limits.add(&m)
	add(&m, "nohome", o.NoHome)
	addFlag(&m, "hush", "yes", o.Hush)
	if o.Root != nil {
		m.Add("root", o.Root.Path)
		m.Add("rootid", inode(o.Root.Dev, o.Root.Ino))
	}
	add(&m, "cache", o.Cache)
	o.Process.add(&m)
	return m
}

func decodeOpened(r *reader) Event {
	o := Opened{
		User: r.some("user", maxName), PAMUser: r.some("pamuser", maxName), UID: r.takeID("uid"), GID: r.takeID("gid"),
		Home: r.text("home", maxPath), Shell: r.text("shell", maxPath), Groups: r.ids("groups"), Env: r.env("env"), Login: r.env("login"),
		NoFile: r.limit("nofile"), NProc: r.limit("nproc"), Limits: r.limits(), NoHome: r.optional("nohome", MaxText), Hush: r.flag("hush", "yes"),
		Cache: r.optional("cache", maxPath),
	}
	if len(o.Groups) > 0 && o.Groups[0] != o.GID {
		r.fail("groups= does not begin with gid=")
	}
	if r.has("more") {
		o.more = r.positive("more")
	}
	if r.has("umask") {
		mask := r.octal("umask", r.some("umask", 16), 0o777)
		o.Umask = &mask
	}
	if r.has("root") || r.has("rootid") {
		dev, ino := r.inode("rootid")
		o.Root = &Root{r.some("root", maxPath), dev, ino}
	}
	o.Process = r.process()
	return o
}

func (r *reader) limit(name string) *Limit {
	if !r.has(name) {
		return nil
	}
	soft, hard, ok := strings.Cut(r.some(name, 64), ":")
	if !ok {
		r.fail("%s= is not soft:hard", name)
		return nil
	}
	return &Limit{r.uint(name, soft, 64), r.uint(name, hard, 64)}
}

// Refused is PAM's no. Code is capproto.CodeDenied if the proof was wrong, and
// CodeAccount if the account may not log in; Text is for the person. It is an error
// too, so that the worker's functions can return it.
type Refused struct{ Code, Text string }

func (f Refused) Error() string { return f.Text }

func (f Refused) Encode() capproto.Msg {
	return capproto.NewMsg(capproto.VerbError, "code", f.Code, "text", f.Text)
}

// Failed says that the worker cannot go on. Text is for the person.
type Failed struct{ Text string }

func (f Failed) Encode() capproto.Msg {
	return capproto.NewMsg(capproto.VerbError, "code", capproto.CodeInternal, "text", f.Text)
}

func decodeError(r *reader) Event {
	code, text := r.some("code", maxName), r.text("text", MaxText)
	switch code {
	case capproto.CodeDenied, capproto.CodeAccount:
		return Refused{code, text}
	case capproto.CodeInternal:
	default:
		r.fail("code= is unknown")
	}
	return Failed{text}
}

// Recorded says that a BeginTerminal or EndTerminal is in the records. Last tells the
// user of their last login, or is "".
type Recorded struct{ Last string }

func (d Recorded) Encode() capproto.Msg {
	m := capproto.NewMsg("recorded")
	add(&m, "last", d.Last)
	return m
}

// Closing says that the worker has begun to close the session: if it dies from
// here on, nobody closes the session again.
type Closing struct{}

func (Closing) Encode() capproto.Msg { return capproto.NewMsg("closing") }

// Closed says that the session is closed. The worker ends.
type Closed struct{}

func (Closed) Encode() capproto.Msg { return capproto.NewMsg("closed") }

func (Account) event()      {}
func (NoUser) event()       {}
func (KeyAllowed) event()   {}
func (KeyDenied) event()    {}
func (Begun) event()        {}
func (Prompt) event()       {}
func (Proven) event()       {}
func (AccountValid) event() {}
func (Opened) event()       {}
func (Refused) event()      {}
func (Failed) event()       {}
func (Recorded) event()     {}
func (Closing) event()      {}
func (Closed) event()       {}
