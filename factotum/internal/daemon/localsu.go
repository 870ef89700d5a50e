package daemon

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/becomerecord"
	"p9auth/internal/logindefs"
	"p9auth/internal/loginshell"
	"p9auth/internal/sys"
	"p9auth/internal/words"
)

// A suProto is su(1) of util-linux: PAM decides who may become whom, and the shell of
// that user is executed. What su decides as root is decided here.
type suProto struct {
	localProto
	login bool     // su -
	asked *suAsked // what is to be executed
}

// A suAsked is what the caller wants to have executed. What comes in several requests
// adds up.
type suAsked struct {
	shell    string   // the one that is wanted, "" is the user's
	preserve bool     // the environment stays (-m)
	args     []string // after argv[0]
	env      []string // the caller's, NAME=VALUE
	umask    uint32   // the caller's
	fds      []uint32 // that stay open
	groups   []string // in place of the user's own, the primary one first
	path     string   // by doas: the program, where the caller has found it
	dir      string   // by doas: the caller's directory, as they say
	size     int      // bytes of all that

	last *[]string // that more= adds to
}

// maxAsked bounds what may be asked, in bytes. A record has room for it.
const maxAsked = 512 << 10

// start begins PAM's transaction, with service su or su-l.
func (l *suProto) start(p capproto.Packet) (capproto.Msg, error) {
	service := l.binding.Service
	switch p.Get("login") {
	case "":
	case "yes":
		l.login = true
		service += "-l"
	default:
		return capproto.Msg{}, violation("login=%.40s", p.Get("login"))
	}
	if p.Get("user") == "" {
		return capproto.Msg{}, violation("no user name")
	}
	if err := l.beginAs(service, p.Get("user"), p); err != nil {
		return capproto.Msg{}, err
	}
	if err := l.tell(pamwire.Authenticate{}); err != nil {
		return capproto.Msg{}, err
	}
	l.state = talking
	return capproto.NewMsg(capproto.VerbOK), nil
}

// heard notes PAM's verdict in syslog too, in the words of su(1), which programs read.
func (l *suProto) heard(e pamwire.Event) (*capproto.Msg, error) {
	line := fmt.Sprintf("(to %s) %s on %s", l.userInLog, l.caller, cmp.Or(l.line, "none"))
	switch e.(type) {
	case pamwire.Refused:
		l.gen.syslog.notice("su", int(l.sender.Pid), "FAILED SU "+line)
	case pamwire.AccountValid:
		l.gen.syslog.notice("su", int(l.sender.Pid), line)
	}
	return l.localProto.heard(e)
}

// run takes what is to be executed, or a part of it.
func (l *suProto) run(p capproto.Packet) (capproto.Msg, error) {
	if l.asked == nil {
		l.asked = newAsked()
	}
	if _, ok := p.Lookup("group"); ok && p.Cred.Uid != 0 {
		return capproto.Msg{}, &fatal{&capproto.Error{Code: capproto.CodeDenied, Text: "only root can specify alternative groups"}}
	}
	return l.asked.add(p)
}

func newAsked() *suAsked { return &suAsked{umask: 0o22, fds: []uint32{0, 1, 2}} }

// add takes a request run.
func (a *suAsked) add(p capproto.Packet) (capproto.Msg, error) {
	for _, at := range p.Attrs {
		if a.size += len(at.Value) + 16; a.size > maxAsked {
			return capproto.Msg{}, &fatal{&capproto.Error{Code: capproto.CodeLimit, Text: fmt.Sprintf("the command and the environment are too large: more than %d KiB", maxAsked>>10)}}
		}
		if err := a.take(at); err != nil {
			return capproto.Msg{}, err
		}
	}
	return capproto.NewMsg(capproto.VerbOK), nil
}

// take takes one attribute.
func (a *suAsked) take(at capproto.Attr) error {
	switch at.Name {
	case "shell":
		a.shell = at.Value
	case "path":
		if len(at.Value) > unix.PathMax {
			return violation("path= is too long")
		}
		a.path = at.Value
	case "dir":
		a.dir = words.Clip(at.Value, 1024)
	case "preserve":
		a.preserve = at.Value == "yes"
	case "arg":
		a.args, a.last = append(a.args, at.Value), &a.args
	case "env":
		if strings.IndexByte(at.Value, '=') < 1 {
			return violation("env= without a name and a value")
		}
		a.env, a.last = append(a.env, at.Value), &a.env
	case "more":
		if a.last == nil {
			return violation("more= of nothing")
		}
		(*a.last)[len(*a.last)-1] += at.Value
	case "umask":
		n, err := strconv.ParseUint(at.Value, 8, 32)
		if err != nil || n > 0o777 {
			return violation("umask=%.40s", at.Value)
		}
		a.umask = uint32(n)
	case "group":
		if len(a.groups) == capproto.MaxGroups || at.Value == "" {
			return violation("group=%.40s", at.Value)
		}
		a.groups = append(a.groups, at.Value)
	case "fd":
		n, err := strconv.ParseUint(at.Value, 10, 31)
		if err != nil || uint32(n) <= a.fds[len(a.fds)-1] || len(a.fds) == becomerecord.MaxFDs {
			return violation("fd=%.40s", at.Value)
		}
		a.fds = append(a.fds, uint32(n))
	}
	return nil
}

// groups are those that root has named.
func (l *suProto) groups() []string {
	if l.asked == nil {
		return nil
	}
	return l.asked.groups
}

// An x11 is what su(1) has of the caller's X11 display: DISPLAY and XAUTHORITY, or "".
type x11 struct{ display, authority string }

// display is the sender's display, for pam_xauth(8), which only su has. Neither is opened
// or believed here or by the worker: a program that has the caller's ids, and no more, is
// given them, as the caller could give them to it.
func (c *conversation) display(p capproto.Packet) (x x11, err error) {
	x = x11{p.Get("display"), p.Get("authority")}
	if _, su := c.proto.(*suProto); !su && x != (x11{}) {
		return x, violation("a display of a front end that is not for su")
	}
	if x.display != "" && !capproto.PossibleDisplay(x.display) || x.authority != "" && !capproto.PossibleAuthority(x.authority) {
		return x, violation("impossible display= or authority=")
	}
	return x, nil
}

// shell is the program: the one that was wanted, or the user's own. Who has a shell
// that shells(5) does not list has it for a reason, so that root alone can choose.
func (l *suProto) shell(o *pamwire.Opened) string {
	own := o.Shell
	if own == "" {
		own = "/bin/sh"
	}
	if l.asked == nil || l.asked.shell == "" || l.sender.Uid != 0 && !listedShell(own) {
		return own
	}
	return l.asked.shell
}

// describe says which program it is.
func (l *suProto) describe() []capproto.Attr {
	return []capproto.Attr{{Name: "runs", Value: l.shell(l.user.opened)}}
}

// environment is nothing that the front end needs to know.
func (l *suProto) environment(*pamwire.Opened) []string { return nil }

// shellsEnvironment is the shell's, as su(1) makes it.
func (l *suProto) shellsEnvironment(o *pamwire.Opened) []string {
	var passed []string
	preserve := false
	if l.asked != nil {
		passed = l.asked.env
		if l.sender.Uid != 0 {
			passed = slices.DeleteFunc(slices.Clone(passed), unsafeVariable)
		}
		preserve = l.asked.preserve && !l.login
	}
	if preserve {
		return loginshell.Merge(passed, o.Env)
	}
	set := []string{"HOME=" + o.Home, "SHELL=" + l.shell(o)}
	if l.login || o.UID != 0 {
		set = append(set, "USER="+o.User, "LOGNAME="+o.User)
	}
	if l.login || alwaysSetPath() {
		for _, kv := range o.Login {
			if strings.HasPrefix(kv, "PATH=") {
				set = append(set, kv)
			}
		}
	}
	return loginshell.Merge(passed, set, o.Env)
}

// alwaysSetPath says whether PATH is set in any case: login.defs(5).
func alwaysSetPath() bool {
	d, err := logindefs.Read(logindefs.Path)
	return err == nil && d.Bool("ALWAYS_SET_PATH", false)
}

// bound binds the capability to the shell, with the arguments that were asked for. The
// process stays in its directory, but for su - where the user can enter their home.
func (l *suProto) bound(o *pamwire.Opened, _ uint32, _ string) (*becomerecord.Bound, error) {
	if l.asked == nil {
		return nil, violation("authinfo before run")
	}
	path := l.shell(o)
	if !strings.HasPrefix(path, "/") {
		return nil, &capproto.Error{Code: capproto.CodeAccount, Text: fmt.Sprintf("failed to execute %s: it is not an absolute path", path)}
	}
	argv0 := filepath.Base(path)
	if l.login {
		argv0 = "-" + argv0
	}
	b := &becomerecord.Bound{Umask: l.asked.umask}
	sanitize(b)
	addSession(b, o, l.worker.PID())
	b.Path, b.Argv, b.Env, b.FDs = path, append([]string{argv0}, l.asked.args...), l.shellsEnvironment(o), l.asked.fds
	if l.login && o.NoHome == "" && strings.HasPrefix(o.Home, "/") {
		b.Dir = o.Home
	}
	b.KeepLoginUID = true // it says who has logged in, and that has not changed
	return b, l.fit(b, o)
}

// listedShell says whether shells(5) lists a shell.
func listedShell(shell string) bool {
	b, err := sys.ReadFile(shells, maxShells)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(line) == shell {
			return true
		}
	}
	return false
}

// unsafeVariables are those that the C library takes out of the environment of a
// setuid program, as su(1) is elsewhere: sysdeps/generic/unsecvars.h of glibc.
var unsafeVariables = []string{
	"GCONV_PATH", "GETCONF_DIR", "GLIBC_TUNABLES", "HOSTALIASES", "LOCALDOMAIN", "LOCPATH", "MALLOC_TRACE", "NIS_PATH", "NLSPATH",
	"RESOLV_HOST_CONF", "RES_OPTIONS", "TMPDIR", "TZDIR",
}

// unsafeVariable says whether NAME=VALUE is one of them.
func unsafeVariable(kv string) bool {
	name, _, _ := strings.Cut(kv, "=")
	return strings.HasPrefix(name, "LD_") || strings.HasPrefix(name, "MALLOC_") || slices.Contains(unsafeVariables, name)
}
