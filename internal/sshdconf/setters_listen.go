package sshdconf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"p9auth/internal/match"
)

// The keywords of listening and of the protocol whose values have a grammar of
// their own, in the order of the table.

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
	case strings.Contains(v, ":"):
		if _, err := netip.ParseAddr(v); err != nil {
			return fmt.Errorf("bad address %q", clip(v))
		}
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
		s.MaxStartups = Startups{n[0], 30, n[0]} // the rate has no effect
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

// setAddendum takes the rest of the line, of which nothing is a comment, for the
// version string of RFC 4253, section 4.2, which has 255 bytes in all.
func setAddendum(s *Settings, a *args) error {
	v := a.raw
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
	s.ChannelTimeouts, s.ChannelTimeoutText = nil, ""
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
	s.ChannelTimeoutText = strings.Join(vs, " ")
	return nil
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
	if err == nil && len(vs) > 1 && strings.EqualFold(vs[0], "none") {
		err = errors.New("none must appear alone")
	}
	s.LogVerbose = vs // "none" is in no file of the source
	return err
}
