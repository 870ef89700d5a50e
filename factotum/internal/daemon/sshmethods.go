package daemon

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"p9auth/capproto"
	"p9auth/internal/sshdconf"
)

// plainMethod is a method of AuthenticationMethods without its device, as
// "keyboard-interactive" of "keyboard-interactive:pam".
func plainMethod(m string) string {
	m, _, _ = strings.Cut(m, ":")
	return m
}

// enabled says whether the settings allow a method at all.
func (a *sshConv) enabled(method string) bool {
	switch method {
	case "publickey":
		return a.conf.PubkeyAuthentication
	case "password":
		return a.conf.PasswordAuthentication
	case "keyboard-interactive":
		return a.conf.KbdInteractiveAuthentication
	}
	return false
}

// mayTry says whether a method is enabled and comes next in one of the lists
// of AuthenticationMethods.
func (a *sshConv) mayTry(method string) bool {
	return a.enabled(method) && (a.left == nil || slices.ContainsFunc(a.left, func(list []string) bool {
		return len(list) > 0 && plainMethod(list[0]) == method
	}))
}

// next is what can be tried now.
func (a *sshConv) next() []string {
	if a.changing {
		return []string{"keyboard-interactive"}
	}
	var m []string
	for _, method := range []string{"publickey", "password", "keyboard-interactive"} {
		if a.mayTry(method) {
			m = append(m, method)
		}
	}
	return m
}

func (a *sshConv) denied() error {
	m := a.next()
	if m == nil {
		m = []string{}
	}
	return &capproto.Error{Code: capproto.CodeDenied, Text: "Permission denied", Methods: m}
}

// complete takes a completed method off the lists. It returns whether one of
// them is done, as AuthenticationMethods in sshd_config(5) wants it.
func complete(lists [][]string, method string) ([][]string, bool) {
	if lists == nil {
		return nil, true
	}
	done := false
	left := make([][]string, len(lists))
	for i, list := range lists {
		left[i] = list
		if len(list) > 0 && plainMethod(list[0]) == method {
			left[i] = list[1:]
			done = done || len(left[i]) == 0
		}
	}
	return left, done
}

// succeeded takes a proof for good: another one may be wanted, and then PAM's
// account stage has its say.
func (c *conv) succeeded(method, detail string) (capproto.Msg, error) {
	a := c.ssh
	if a.barred || !a.valid {
		return c.failed(method, detail)
	}
	if a.isRoot() && !a.rootMay(method) {
		c.sshlog(slog.LevelInfo, "ROOT LOGIN REFUSED FROM %s port %d", a.remote.Addr(), a.remote.Port())
		return c.failed(method, detail)
	}
	a.done = append(a.done, method)
	if method != "publickey" {
		a.proofs = append(a.proofs, method)
	}
	left, done := complete(a.left, method)
	a.left = left
	if !done {
		c.sshlog(slog.LevelInfo, "Partial %s for %s from %s port %d ssh2", detail, safe(a.user), a.remote.Addr(), a.remote.Port())
		c.state = offering
		return capproto.NewMsg(capproto.VerbMore, "methods", strings.Join(a.next(), ",")), nil
	}
	c.sshlog(slog.LevelInfo, "Accepted %s for %s from %s port %d ssh2%s", methodOnly(detail), safe(a.user), a.remote.Addr(), a.remote.Port(), keyOnly(detail))
	return c.account()
}

// A detail is a method, or "publickey: TYPE SHA256:...".
func methodOnly(detail string) string {
	m, _, _ := strings.Cut(detail, ": ")
	return m
}

func keyOnly(detail string) string {
	if _, key, ok := strings.Cut(detail, ": "); ok {
		return ": " + key
	}
	return ""
}

// rootMay says whether PermitRootLogin lets root in by a method.
func (a *sshConv) rootMay(method string) bool {
	switch a.conf.PermitRootLogin {
	case sshdconf.RootYes:
		return true
	case sshdconf.RootNoPassword:
		return method == "publickey"
	case sshdconf.RootForcedCommands:
		return method == "publickey" && a.keyOptions != nil && a.keyOptions.HasCommand
	}
	return false
}

// failed counts and logs a proof that was none.
func (c *conv) failed(method, detail string) (capproto.Msg, error) {
	a := c.ssh
	a.failures++
	if c.state == talking {
		c.state = offering
	}
	invalid := ""
	if !a.valid {
		invalid = "invalid user "
	}
	level := slog.LevelDebug
	if !a.valid || method == "password" || a.failures >= a.conf.MaxAuthTries/2 {
		level = slog.LevelInfo
	}
	c.sshlog(level, "Failed %s for %s%s from %s port %d ssh2%s", methodOnly(detail), invalid, safe(a.user), a.remote.Addr(), a.remote.Port(), keyOnly(detail))
	if a.failures >= a.conf.MaxAuthTries {
		c.sshlog(slog.LevelError, "error: maximum authentication attempts exceeded for %s%s from %s port %d ssh2", invalid, safe(a.user), a.remote.Addr(), a.remote.Port())
		return capproto.Msg{}, &capproto.Error{Code: capproto.CodeLimit, Text: "Too many authentication failures", Methods: []string{}}
	}
	return capproto.Msg{}, a.denied()
}

func keyDetail(kind, fingerprint string) string {
	return fmt.Sprintf("publickey: %s %s", kind, fingerprint)
}
