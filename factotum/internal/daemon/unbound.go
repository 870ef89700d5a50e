package daemon

import (
	"path/filepath"
	"strings"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
	"p9auth/internal/authkeys"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
	"p9auth/internal/words"
)

// Where the backend cannot bind a grant to a program, what restricts a login rests on
// the front end.

// mayBeUnbound refuses a login that must not rest on the front end: one into a root
// directory, or with what nobody but become can give a process, always, and with
// RequireBoundGrants each that is restricted.
func (c *conversation) mayBeUnbound(o *pamwire.Opened) error {
	if c.caps.bind != nil {
		return nil
	}
	if len(o.Limits) > 0 {
		const reason = "factotum lacks CAP_SYS_RESOURCE, and the kernel's capability device cannot bind the login to limits that PAM's modules have set"
		c.log.Event(status.Refused, "user", c.user.name, "reason", reason, "code", capproto.CodeAccount, "rhost", c.rhost, "tty", c.ttyName())
		return &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: "the limits of this account cannot be set here; the administrator finds the reason in the log"}}
	}
	if o.Process.Any() {
		const reason = "the kernel's capability device cannot bind the login to what PAM's modules have set: a security context, a mount namespace, capabilities or the audit of terminals"
		c.log.Event(status.Refused, "user", c.user.name, "reason", reason, "code", capproto.CodeAccount, "rhost", c.rhost, "tty", c.ttyName())
		return &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: "what the administrator has set for your sessions cannot be set here; the administrator finds the reason in the log"}}
	}
	restricted := c.user.restricted
	if restricted == "" && restrictedShell(o.Shell) {
		restricted = "the login shell " + words.Vis(o.Shell)
	}
	switch {
	case o.Root != nil:
		restricted = "ChrootDirectory"
	case restricted == "" || !c.gen.conf.RequireBoundGrants:
		return nil
	}
	c.log.Event(status.Refused, "user", c.user.name, "reason", "RequireBoundGrants: the kernel's capability device cannot bind the login to "+restricted,
		"code", capproto.CodeAccount, "rhost", c.rhost, "tty", c.ttyName())
	return &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: "this account is restricted in a way that cannot be enforced here; the administrator finds the reason in the log"}}
}

// restricts says what of the settings and of the options of a key restricts what a
// login may run, or else "". Forwarding, without more, restricts nobody who has a
// shell (sshd_config(5), AllowTcpForwarding), and so it does not count in settings; who
// writes restrict before a key means it.
func restricts(s *sshdconf.Settings, o *authkeys.Options) string {
	switch {
	case s.ChrootDirectory != "":
		return "ChrootDirectory"
	case s.ForceCommand != "":
		return "ForceCommand"
	case s.MaxSessions == 0:
		return "MaxSessions 0"
	case o == nil:
		return ""
	case o.HasCommand:
		return "the command of the key"
	case !o.PTY || !o.PortForwarding || !o.AgentForwarding || !o.X11Forwarding || !o.UserRC || len(o.PermitOpen) > 0 || len(o.PermitListen) > 0:
		return "the options of the key"
	}
	return ""
}

// shells is shells(5).
var shells = "/etc/shells"

const maxShells = 1 << 20 // bytes of it

// restrictedShell says whether a login shell counts as one that lets its user run less
// than a shell does: one that shells(5) does not list, or whose name begins with r
// and ends with sh (rbash, rksh, rzsh), or git-shell, of which Debian's shells(5)
// lists some.
func restrictedShell(shell string) bool {
	if shell == "" {
		return false // it is /bin/sh: passwd(5)
	}
	if name := filepath.Base(shell); strings.HasPrefix(name, "r") && strings.HasSuffix(name, "sh") || name == "git-shell" {
		return true
	}
	b, err := sys.ReadFile(shells, maxShells)
	if err != nil || !filepath.IsAbs(shell) {
		return true
	}
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(line) == shell {
			return false
		}
	}
	return true
}

// bindsNothing is what factotum says when it starts with such a backend.
func bindsNothing(required bool) string {
	const text = "the kernel's capability device cannot bind a login to a program: "
	if required {
		return text + "restricted logins are refused (RequireBoundGrants)"
	}
	return text + "forced commands, restricted keys and restricted shells rest on the front end; RequireBoundGrants yes refuses such logins"
}
