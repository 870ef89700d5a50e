package sshdconf

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"p9auth/internal/match"
)

// The keywords whose values have a grammar of their own, in the order of the
// table.

const maxPorts = 256 // as MAX_PORTS of OpenSSH

func setPort(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	if a.first {
		s.Ports = nil
	}
	n, err := parsePort(v)
	if err != nil {
		return err
	}
	if len(s.Ports) == maxPorts {
		return errors.New("too many ports")
	}
	s.Ports = append(s.Ports, n)
	return nil
}

func setListen(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	if len(a.rest) > 0 && a.rest[0] == "rdomain" {
		return errors.New("rdomain: Linux has no routing domains")
	}
	l := HostPort{Host: v}
	switch {
	case strings.HasPrefix(v, "["):
		host, rest, ok := strings.Cut(v[1:], "]")
		if !ok || rest != "" && rest[0] != ':' {
			return fmt.Errorf("bad address %q", clip(v))
		}
		if l.Host = host; rest != "" {
			l.Port, err = parsePort(rest[1:])
		}
	case strings.Count(v, ":") == 1:
		var port string
		l.Host, port, _ = strings.Cut(v, ":")
		l.Port, err = parsePort(port)
	case strings.Contains(v, ":") && net.ParseIP(v) == nil:
		return fmt.Errorf("bad address %q", clip(v))
	}
	if err == nil && (l.Host == "" || strings.ContainsAny(l.Host, " \t/*?[]")) {
		err = fmt.Errorf("bad address %q", clip(v))
	}
	if err != nil {
		return err
	}
	if a.first {
		s.ListenAddresses = nil
	}
	if len(s.ListenAddresses) == maxPorts {
		return errors.New("too many addresses")
	}
	s.ListenAddresses = append(s.ListenAddresses, l)
	return nil
}

func setStartups(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	var n []int
	for f := range strings.SplitSeq(v, ":") {
		x, err := parseInt(f, 1, noLimit)
		if err != nil {
			return err
		}
		n = append(n, x)
	}
	switch {
	case len(n) == 1:
		s.MaxStartups = Startups{n[0], 100, n[0]}
	case len(n) == 3 && n[0] <= n[2] && n[1] <= 100:
		s.MaxStartups = Startups{n[0], n[1], n[2]}
	default:
		return fmt.Errorf("%q is neither a number nor start:rate:full", clip(v))
	}
	return nil
}

func setPerSourceMax(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	if v == "none" {
		s.PerSourceMaxStartups = noLimit
		return nil
	}
	s.PerSourceMaxStartups, err = parseInt(v, 0, noLimit)
	return err
}

func setNetBlock(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	v4, v6, both := strings.Cut(v, ":")
	n := NetBlock{V6: 128}
	if n.V4, err = parseInt(v4, 0, 32); err == nil && both {
		n.V6, err = parseInt(v6, 0, 128)
	}
	s.PerSourceNetBlockSize = n
	return err
}

// setPenalties takes the first value of each part, wherever it stands.
func setPenalties(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	p := &s.PerSourcePenalties
	for _, v := range vs {
		name, val, has := strings.Cut(v, ":")
		if yes := strings.EqualFold(v, "yes"); yes || strings.EqualFold(v, "no") {
			if len(vs) > 1 {
				return fmt.Errorf("%q must appear alone", v)
			}
			if a.once("penalties:") {
				p.Enabled = yes
			}
			continue
		}
		times := map[string]*time.Duration{"crash": &p.Crash, "authfail": &p.AuthFail, "invaliduser": &p.InvalidUser,
			"noauth": &p.NoAuth, "grace-exceeded": &p.Grace, "refuseconnection": &p.RefusedConn, "max": &p.Max, "min": &p.Min}
		counts := map[string]*int{"max-sources4": &p.MaxSources4, "max-sources6": &p.MaxSources6}
		first := a.once("penalties:" + name)
		switch {
		case !has:
			return fmt.Errorf("unsupported value %q", clip(v))
		case times[name] != nil:
			d, err := parseTime(val, true)
			if err != nil {
				return err
			}
			if first {
				*times[name] = d
			}
		case counts[name] != nil:
			n, err := parseInt(val, 0, noLimit)
			if err != nil {
				return err
			}
			if first {
				*counts[name] = n
			}
		case (name == "overflow" || name == "overflow6") && (val == "deny-all" || val == "permissive"):
			if name == "overflow" && first {
				p.DenyAll4 = val == "deny-all"
			}
			if name == "overflow6" && first {
				p.DenyAll6 = val == "deny-all"
			}
		default:
			return fmt.Errorf("unsupported value %q", clip(v))
		}
		if first && a.once("penalties:") {
			p.Enabled = true
		}
	}
	if !a.seen["penalties:overflow6"] {
		p.DenyAll6 = p.DenyAll4
	}
	return nil
}

func showPenalties(s *Settings) []string {
	p := s.PerSourcePenalties
	if !p.Enabled {
		return one("no")
	}
	mode := map[bool]string{true: "deny-all", false: "permissive"}
	sec := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
	return one(fmt.Sprintf("crash:%s authfail:%s noauth:%s invaliduser:%s grace-exceeded:%s refuseconnection:%s max:%s min:%s "+
		"max-sources4:%d max-sources6:%d overflow:%s overflow6:%s",
		sec(p.Crash), sec(p.AuthFail), sec(p.NoAuth), sec(p.InvalidUser), sec(p.Grace), sec(p.RefusedConn), sec(p.Max), sec(p.Min),
		p.MaxSources4, p.MaxSources6, mode[p.DenyAll4], mode[p.DenyAll6]))
}

func setExempt(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	s.PerSourcePenaltyExemptList = ""
	if strings.EqualFold(v, "none") {
		return nil
	}
	s.PerSourcePenaltyExemptList = v
	return match.CheckAddrs(v)
}

// setAddendum takes the rest of the line, for the version string of RFC 4253,
// section 4.2, which has 255 bytes in all.
func setAddendum(s *Settings, a *args) error {
	v, _, _ := strings.Cut(a.raw, "#")
	if v = strings.TrimRight(v, blanks); v == "" {
		return errors.New("missing argument")
	}
	if strings.EqualFold(v, "none") {
		v = ""
	}
	if len(v) > 128 || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
		return errors.New("must be at most 128 printable ASCII characters")
	}
	s.VersionAddendum = v
	return nil
}

func setHostKey(s *Settings, a *args) error {
	if a.first {
		s.HostKeys, s.HostKeysGiven = nil, true
	}
	return appendFile(&s.HostKeys, a)
}

func setHostCert(s *Settings, a *args) error {
	if a.first {
		s.HostCertificates = nil
	}
	return appendFile(&s.HostCertificates, a)
}

func appendFile(to *[]string, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	if v, err = absolute(v); err != nil || v == "" || slices.Contains(*to, v) {
		return err
	}
	if len(*to) == maxPorts {
		return errors.New("too many files")
	}
	*to = append(*to, v)
	return nil
}

func setRekey(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	s.RekeyLimit = Rekey{}
	if v != "default" {
		if s.RekeyLimit.Bytes, err = parseSize(v); err != nil {
			return err
		}
		if n := s.RekeyLimit.Bytes; n != 0 && n < 16 {
			return fmt.Errorf("%d bytes are too few", n)
		}
	}
	if len(a.rest) > 0 {
		if v, _ = a.next(); v != "none" {
			s.RekeyLimit.Interval, err = parseTime(v, false)
		}
	}
	return err
}

func setChannelTimeout(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	s.ChannelTimeouts = nil
	if len(vs) == 1 && strings.EqualFold(vs[0], "none") {
		return nil
	}
	for _, v := range vs {
		typ, t, ok := strings.Cut(v, "=")
		d, err := parseTime(t, false)
		if !ok || typ == "" || err != nil {
			return fmt.Errorf("%q is not type=interval", clip(v))
		}
		s.ChannelTimeouts = append(s.ChannelTimeouts, ChannelTimeout{typ, d})
	}
	return nil
}

func showChannelTimeout(s *Settings) []string {
	var v []string
	for _, t := range s.ChannelTimeouts {
		v = append(v, fmt.Sprintf("%s=%d", t.Type, t.Timeout/time.Second))
	}
	if v == nil {
		return one("none")
	}
	return one(strings.Join(v, " "))
}

func setQoS(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	q, err := parseQoS(v)
	if err != nil {
		return err
	}
	s.IPQoS = QoS{q, q}
	if len(a.rest) > 0 {
		v, _ = a.next()
		s.IPQoS.Bulk, err = parseQoS(v)
	}
	return err
}

func setLogVerbose(s *Settings, a *args) error {
	vs, err := a.all()
	if len(vs) == 1 && strings.EqualFold(vs[0], "none") {
		vs = nil
	}
	s.LogVerbose = vs
	return err
}

// setMethods reads lists such as "publickey,password publickey,keyboard-interactive:pam".
func setMethods(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	s.AuthenticationMethods = nil
	if len(vs) == 1 && vs[0] == "any" {
		return nil
	}
	for _, v := range vs {
		var chain []string
		for m := range strings.SplitSeq(v, ",") {
			switch m {
			case "publickey", "password", "keyboard-interactive":
			case "keyboard-interactive:pam":
				m = "keyboard-interactive" // there is no other device
			case "any":
				return errors.New("any must appear alone")
			case "none":
				return errors.New("none is not supported: an account without a password logs in with an empty one")
			case "hostbased", "gssapi-with-mic", "keyboard-interactive:bsdauth":
				return fmt.Errorf("%s is not supported", m)
			default:
				return fmt.Errorf("unknown method %q", clip(m))
			}
			if chain = append(chain, m); len(chain) > 32 {
				return errors.New("too many methods")
			}
		}
		s.AuthenticationMethods = append(s.AuthenticationMethods, chain)
	}
	return nil
}

func showMethods(s *Settings) []string {
	var v []string
	for _, m := range s.AuthenticationMethods {
		v = append(v, strings.Join(m, ","))
	}
	if v == nil {
		return one("any")
	}
	return one(strings.Join(v, " "))
}

// patterns reads AllowUsers and its kin, whose lines add up.
func patterns(users bool, at func(*Settings) *[]string) kind {
	return kind{each: true,
		set: func(s *Settings, a *args) error {
			vs, err := a.all()
			if err != nil {
				return err
			}
			if a.first {
				*at(s) = nil
			}
			for _, v := range vs {
				if users {
					if err := match.CheckUser(v); err != nil {
						return err
					}
				}
				if strings.HasPrefix(v, "!") {
					return fmt.Errorf("%q: a single pattern cannot be negated", clip(v))
				}
				*at(s) = append(*at(s), v)
			}
			return nil
		},
		show: func(s *Settings) []string { return *at(s) },
	}
}

func setKeysFile(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	s.AuthorizedKeysFiles = nil
	if len(vs) == 1 && strings.EqualFold(vs[0], "none") {
		return nil
	}
	for _, v := range vs {
		if err := checkUserFile(v); err != nil {
			return err
		}
		s.AuthorizedKeysFiles = append(s.AuthorizedKeysFiles, v)
	}
	return nil
}

func setPrincipalsFile(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	s.AuthorizedPrincipalsFile = ""
	if strings.EqualFold(v, "none") {
		return nil
	}
	s.AuthorizedPrincipalsFile = v
	return checkUserFile(v)
}

func checkUserFile(v string) error {
	if strings.EqualFold(v, "none") {
		return errors.New("none must appear alone")
	}
	if v[0] == '~' {
		return fmt.Errorf("%q: ~ would be root's home directory; write %%h for the user's", clip(v))
	}
	_, err := userFile(v, "user", "/home/user", 1000)
	return err
}

// command reads a program and its arguments, from the rest of the line as it
// stands.
func command(tokens string, at func(*Settings) *string) kind {
	return kind{raw: true, show: text(at), set: func(s *Settings, a *args) error {
		if *at(s) = ""; strings.EqualFold(a.raw, "none") {
			return nil
		}
		*at(s) = a.raw
		try := Tokens{}
		for _, c := range []byte(tokens) {
			try[c] = ""
		}
		_, err := commandLine(a.raw, tokens, try)
		return err
	}}
}

// commandUser reads as whom the program runs.
func commandUser(at func(*Settings) *string) kind {
	return kind{show: text(at), set: func(s *Settings, a *args) error {
		v, err := a.next()
		if err != nil {
			return err
		}
		if *at(s) = ""; strings.EqualFold(v, "none") {
			return nil
		}
		if *at(s) = v; v == "root" {
			return errors.New("no program is run as root; name a user who exists for this alone")
		}
		_, err = Expand(v, Tokens{'u': "user"})
		return err
	}}
}

func setRevoked(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	s.RevokedKeys = nil
	if len(vs) == 1 && strings.EqualFold(vs[0], "none") {
		return nil
	}
	for _, v := range vs {
		if v, err = absolute(v); err != nil || v == "" {
			return errors.Join(err, errors.New("none must appear alone"))
		}
		s.RevokedKeys = append(s.RevokedKeys, v)
	}
	return nil
}

func showRevoked(s *Settings) []string {
	if len(s.RevokedKeys) == 0 {
		return one("none")
	}
	return one(strings.Join(s.RevokedKeys, " "))
}

func setPubkeyOptions(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	s.TouchRequired, s.VerifyRequired = false, false
	for _, v := range vs {
		switch strings.ToLower(v) {
		case "none":
		case "touch-required":
			s.TouchRequired = true
		case "verify-required":
			s.VerifyRequired = true
		default:
			return fmt.Errorf("unsupported value %q", clip(v))
		}
	}
	return nil
}

func showPubkeyOptions(s *Settings) []string {
	var v []string
	if s.TouchRequired {
		v = append(v, "touch-required")
	}
	if s.VerifyRequired {
		v = append(v, "verify-required")
	}
	if v == nil {
		return one("none")
	}
	return one(strings.Join(v, " "))
}

func setAcceptEnv(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	if a.first {
		s.AcceptEnv = nil
	}
	for _, v := range vs {
		if strings.Contains(v, "=") {
			return fmt.Errorf("%q is not the name of an environment variable", clip(v))
		}
		s.AcceptEnv = append(s.AcceptEnv, v)
	}
	return nil
}

func setSetEnv(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	s.SetEnv = nil
	seen := map[string]bool{}
	for _, v := range vs {
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return fmt.Errorf("%q is not NAME=value", clip(v))
		}
		if !seen[name] {
			s.SetEnv = append(s.SetEnv, v)
		}
		seen[name] = true
	}
	return nil
}

func setUserEnv(s *Settings, a *args) error {
	v, err := a.next()
	switch v {
	case "yes", "no":
		s.PermitUserEnvironment = UserEnv{Permit: v == "yes"}
	default:
		s.PermitUserEnvironment = UserEnv{Permit: true, Patterns: v}
	}
	return err
}

func showUserEnv(s *Settings) []string {
	switch e := s.PermitUserEnvironment; {
	case !e.Permit:
		return one("no")
	case e.Patterns == "":
		return one("yes")
	default:
		return one(e.Patterns)
	}
}

func setForceCommand(s *Settings, a *args) error {
	if s.ForceCommand = a.raw; strings.EqualFold(a.raw, "none") {
		s.ForceCommand = ""
	}
	return nil
}

// setSubsystem takes the first line for each name. The command goes to a
// shell, so its words are quoted again as OpenSSH does.
func setSubsystem(s *Settings, a *args) error {
	name, err := a.next()
	if err != nil {
		return err
	}
	words, err := a.all()
	if err != nil {
		return err
	}
	if !a.once("subsystem:" + name) {
		return nil
	}
	for i, w := range words {
		if strings.ContainsAny(w, " \t'\"\\") {
			words = slices.Clone(words)
			words[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
		}
	}
	sub := Subsystem{name, strings.Join(words, " ")}
	if i := slices.IndexFunc(s.Subsystems, func(x Subsystem) bool { return x.Name == name }); i >= 0 {
		s.Subsystems[i] = sub
		return nil
	}
	s.Subsystems = append(s.Subsystems, sub)
	return nil
}

func setBindMask(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is not an octal mask", clip(v))
	}
	s.StreamLocalBindMask = uint32(n)
	return nil
}

func permits(bare bool, at func(*Settings) *Permits) kind {
	return kind{
		set: func(s *Settings, a *args) error {
			vs, err := a.all()
			if err != nil {
				return err
			}
			*at(s) = Permits{}
			if len(vs) == 1 && (vs[0] == "any" || vs[0] == "none") {
				at(s).None = vs[0] == "none"
				return nil
			}
			for _, v := range vs {
				if v == "any" || v == "none" {
					return fmt.Errorf("%s must appear alone", v)
				}
				h, err := ParsePermit(v, bare)
				if err != nil {
					return err
				}
				at(s).List = append(at(s).List, h)
			}
			return nil
		},
		show: func(s *Settings) []string {
			p := *at(s)
			if p.None {
				return one("none")
			}
			if len(p.List) == 0 {
				return one("any")
			}
			var v []string
			for _, h := range p.List {
				v = append(v, h.String())
			}
			return one(strings.Join(v, " "))
		},
	}
}
