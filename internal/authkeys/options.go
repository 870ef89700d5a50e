// Package authkeys reads the files by which a user says whose keys may log in:
// authorized_keys and authorized_principals (sshd(8), AUTHORIZED_KEYS FILE
// FORMAT). It also opens them as StrictModes asks.
//
// The files belong to the user, who may be anybody, so everything is bounded. A
// line that is not understood grants nothing, and no option is ignored: an
// unknown one makes its line invalid. The process that opens the files must do
// so with the user's fsuid and groups, never as root.
package authkeys

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"p9auth/internal/match"
	"p9auth/internal/pack"
	"p9auth/internal/sshdconf"
	"p9auth/internal/words"
)

const (
	maxEnv     = 1024 // as SSH_AUTHOPT_ENV_MAX of OpenSSH
	maxPermits = 4096 // as SSH_AUTHOPT_PERMIT_MAX
)

// Options are what a line of authorized_keys, or a certificate, permits and
// demands. Make them with ParseOptions or FromCertificate: the zero value
// permits nothing but demands nothing either.
type Options struct {
	AgentForwarding bool
	PortForwarding  bool
	X11Forwarding   bool
	PTY             bool
	UserRC          bool

	// CertAuthority: the key signs certificates and cannot log in by itself.
	CertAuthority bool
	// Principals, for a CertAuthority: the certificate must have one of these
	// names. nil: the user's name.
	Principals []string

	HasCommand  bool // Command is forced, even if it is empty
	Command     string
	Environment []string // NAME=value, each name once

	From       string    // list for match.HostAddr; empty: anywhere
	FromCert   string    // list for match.CIDR, of a certificate's source-address
	ValidUntil time.Time // expiry-time; zero: for ever

	PermitOpen   []sshdconf.HostPort // nothing else, when not empty
	PermitListen []sshdconf.HostPort

	// Tunnel is the tun device forced: -1 for none named, AnyTunnel for any.
	Tunnel int

	// NoTouchRequired: a security key need not attest the user's presence.
	NoTouchRequired bool
	// VerifyRequired: a security key must attest that it verified the user.
	VerifyRequired bool
}

// OptionsFormat is the encoding of Options between our processes.
var OptionsFormat = pack.Format[Options]{Name: "key options", Version: 1}

// AnyTunnel is Options.Tunnel for tunnel="any".
const AnyTunnel = 0x7fffffff

// ParseOptions parses the options field of a line, which ends at the first
// blank outside of quotes; it returns what follows. An empty s gives what a key
// without options has.
func ParseOptions(s string) (o Options, rest string, err error) {
	o = Options{AgentForwarding: true, PortForwarding: true, X11Forwarding: true, PTY: true, UserRC: true, Tunnel: -1}
	if s == "" || isBlank(s[0]) {
		return o, s, nil
	}
	for {
		n := 0
		for n < len(s) && s[n] != '=' && s[n] != ',' && !isBlank(s[n]) {
			n++
		}
		name := strings.ToLower(s[:n])
		if s = s[n:]; s != "" && s[0] == '=' {
			var v string
			if v, s, err = dequote(s[1:]); err == nil {
				err = o.value(name, v)
			}
		} else if name != "" { // sshd lets empty ones pass
			err = o.flag(name)
		}
		switch {
		case err != nil:
			return Options{}, "", err
		case s == "" || isBlank(s[0]):
			return o, s, nil
		case s[0] != ',':
			return Options{}, "", errors.New("unknown key option")
		}
		if s = s[1:]; s == "" {
			return Options{}, "", errors.New("unexpected end of options")
		}
	}
}

func (o *Options) flag(name string) error {
	switch name {
	case "restrict":
		o.AgentForwarding, o.PortForwarding, o.X11Forwarding, o.PTY, o.UserRC = false, false, false, false, false
		return nil
	case "cert-authority":
		o.CertAuthority = true
		return nil
	}
	base, no := strings.CutPrefix(name, "no-")
	switch base {
	case "agent-forwarding":
		o.AgentForwarding = !no
	case "port-forwarding":
		o.PortForwarding = !no
	case "x11-forwarding":
		o.X11Forwarding = !no
	case "pty":
		o.PTY = !no
	case "user-rc":
		o.UserRC = !no
	case "touch-required":
		o.NoTouchRequired = no
	case "verify-required":
		o.VerifyRequired = !no
	default:
		return fmt.Errorf("unknown key option %q", clip(name))
	}
	return nil
}

func (o *Options) value(name, v string) (err error) {
	if strings.ContainsRune(v, 0) {
		return fmt.Errorf("%s: NUL byte", clip(name))
	}
	switch name {
	case "command":
		if o.HasCommand {
			return errors.New("multiple command clauses")
		}
		o.HasCommand, o.Command = true, v
	case "principals":
		if o.Principals != nil {
			return errors.New("multiple principals clauses")
		}
		o.Principals = []string{}
		for p := range strings.SplitSeq(v, ",") {
			if p != "" {
				o.Principals = append(o.Principals, p)
			}
		}
	case "from":
		if o.From != "" {
			return errors.New("multiple from clauses")
		}
		o.From = v
		if err := match.CheckAddrs(v); err != nil {
			return fmt.Errorf("from: %w", err)
		}
	case "expiry-time":
		t, err := parseExpiry(v)
		if err != nil {
			return err
		}
		if o.ValidUntil.IsZero() || t.Before(o.ValidUntil) {
			o.ValidUntil = t
		}
	case "environment":
		if len(o.Environment) == maxEnv {
			return errors.New("too many environment strings")
		}
		k, _, ok := strings.Cut(v, "=")
		if !ok || k == "" || strings.ContainsFunc(k, func(r rune) bool {
			return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		}) {
			return errors.New("invalid environment string")
		}
		if !slices.ContainsFunc(o.Environment, func(e string) bool { return strings.HasPrefix(e, k+"=") }) {
			o.Environment = append(o.Environment, v)
		}
	case "permitopen":
		o.PermitOpen, err = addPermit(o.PermitOpen, v, false)
	case "permitlisten":
		o.PermitListen, err = addPermit(o.PermitListen, v, true)
	case "tunnel":
		if strings.EqualFold(v, "any") {
			o.Tunnel = AnyTunnel
			return nil
		}
		n, err := strconv.ParseUint(v, 10, 31)
		if err != nil || n >= AnyTunnel {
			return errors.New("invalid tun device")
		}
		o.Tunnel = int(n)
	default:
		return fmt.Errorf("unknown key option %q", clip(name))
	}
	return err
}

func addPermit(to []sshdconf.HostPort, v string, bare bool) ([]sshdconf.HostPort, error) {
	if len(to) == maxPermits {
		return nil, errors.New("too many permission directives")
	}
	h, err := sshdconf.ParsePermit(v, bare)
	return append(to, h), err
}

// parseExpiry parses YYYYMMDD[HHMM[SS]] with an optional Z or UTC, without
// which it is the system's local time.
func parseExpiry(v string) (time.Time, error) {
	bad := fmt.Errorf("invalid expiry-time %q", clip(v))
	where, s := time.Local, v
	for _, z := range []string{"Z", "UTC"} {
		if n := len(s) - len(z); n > 0 && strings.EqualFold(s[n:], z) {
			where, s = time.UTC, s[:n]
			break
		}
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		return time.Time{}, bad
	}
	layout := "20060102150405"
	if len(s) != 8 && len(s) != 12 && len(s) != 14 {
		return time.Time{}, bad
	}
	t, err := time.ParseInLocation(layout[:len(s)], s, where)
	if err != nil || t.Unix() <= 0 {
		return time.Time{}, bad
	}
	return t, nil
}

// dequote takes a quoted string off s; in it \" is a quote and every other
// backslash stands for itself.
func dequote(s string) (v, rest string, err error) {
	if s == "" || s[0] != '"' {
		return "", "", errors.New("missing start quote")
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], nil
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '"':
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", errors.New("missing end quote")
}

// Client is what options may ask about the client that wants to log in.
type Client struct {
	Host string // the verified name (UseDNS), or empty
	Addr netip.Addr
	Now  time.Time
}

// Check says why the options refuse the client, or returns nil. It checks
// expiry-time, from and source-address, and that principals and cert-authority are
// used where they mean something: allowCA is false for a line of
// authorized_principals, for a plain key and for a certificate's own options.
func (o *Options) Check(c Client, allowCA bool) error {
	if !o.ValidUntil.IsZero() && c.Now.After(o.ValidUntil) {
		return fmt.Errorf("entry expired at %s", o.ValidUntil.Format(time.RFC3339))
	}
	if o.Principals != nil && !o.CertAuthority {
		return errors.New("principals on non-CA key")
	}
	if o.CertAuthority && !allowCA {
		return errors.New("cert-authority is invalid here")
	}
	if o.From != "" {
		ok, err := match.HostAddr(c.Host, c.Addr, o.From)
		if err != nil {
			return fmt.Errorf("invalid from criteria: %w", err)
		}
		if !ok {
			return fmt.Errorf("correct key but not from a permitted host (host=%s, ip=%s, required=%s)",
				clip(c.Host), c.Addr, clip(o.From))
		}
	}
	if o.FromCert != "" {
		ok, err := match.CIDR(c.Addr, o.FromCert)
		if err != nil {
			return fmt.Errorf("certificate source-address invalid: %w", err)
		}
		if !ok {
			return fmt.Errorf("valid certificate but not from a permitted source address (%s)", c.Addr)
		}
	}
	return nil
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// maxQuoted bounds what an error quotes of a file.
const maxQuoted = 200

func clip(s string) string { return words.Clip(s, maxQuoted) }

// Forced is the command that a login runs whatever its client asks for, if there is
// one: ForceCommand of sshd_config(5), or else that of the key, whose options may be nil.
func (o *Options) Forced(forceCommand string) (command string, forced bool) {
	switch {
	case forceCommand != "":
		return forceCommand, true
	case o != nil && o.HasCommand:
		return o.Command, true
	}
	return "", false
}
