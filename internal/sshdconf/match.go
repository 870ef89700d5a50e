package sshdconf

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"p9auth/internal/match"
)

// cond is what one Match line asks for: all of its criteria.
type cond struct{ crit []criterion }

type criterion struct{ attr, arg string }

// parseMatch parses the arguments of Match. No criterion means "all".
func parseMatch(args []string) ([]criterion, error) {
	if len(args) == 0 {
		return nil, errors.New("one or more criteria are needed")
	}
	var out []criterion
	for i := 0; i < len(args); i++ {
		attr, arg, has := strings.Cut(args[i], "=")
		attr = strings.ToLower(attr)
		switch attr {
		case "all":
			if has || len(args) != 1 {
				return nil, errors.New("all cannot be combined with other criteria")
			}
			return nil, nil
		case "invalid-user":
			if has {
				return nil, errors.New("invalid-user takes no argument")
			}
			out = append(out, criterion{attr, ""})
			continue
		case "user", "group", "host", "address", "localaddress", "localport", "rdomain", "version":
		default:
			return nil, fmt.Errorf("unsupported criterion %q", clip(args[i]))
		}
		if !has {
			if i++; i < len(args) {
				arg = args[i]
			}
		}
		if arg == "" {
			return nil, fmt.Errorf("%s: missing argument", attr)
		}
		var err error
		switch attr {
		case "address", "localaddress":
			err = match.CheckAddrs(arg)
		case "localport":
			if arg != "0" { // which no connection has
				_, err = parsePort(arg)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", attr, err)
		}
		out = append(out, criterion{attr, arg})
	}
	return out, nil
}

// ConnInfo is what Match criteria are matched against. What is not known yet
// stays zero, and a criterion that needs it does not hold, negated or not.
type ConnInfo struct {
	User string
	// InvalidUser: no account has that name.
	InvalidUser bool
	// Groups returns the names of all of the user's groups. It is called once
	// at most for each For, and only where a Match Group needs it.
	Groups    func() ([]string, error)
	Host      string // the client's name (UseDNS), or its address as text
	Addr      netip.Addr
	LocalAddr netip.Addr
	LocalPort int
	RDomain   *string
}

// Release is what Match version compares with: the OpenSSH whose sshd_config(5) this
// package knows.
const Release = "OpenSSH_10.0p9auth"

// ParseTestSpec parses the -C option of sshd(8), as in
// "user=alice,host=a.example.org,addr=192.0.2.1,laddr=192.0.2.2,lport=22".
func ParseTestSpec(spec string) (ConnInfo, error) {
	var ci ConnInfo
	for f := range strings.SplitSeq(spec, ",") {
		k, v, has := strings.Cut(f, "=")
		var err error
		if f == "" {
			break // where sshd(8) stops
		}
		switch {
		case k == "invalid-user" && !has:
			ci.InvalidUser = true
		case !has:
			err = errors.New("no value")
		case k == "user":
			ci.User = v
		case k == "host":
			ci.Host = v
		case k == "addr":
			ci.Addr, err = netip.ParseAddr(v)
		case k == "laddr":
			ci.LocalAddr, err = netip.ParseAddr(v)
		case k == "lport":
			if v != "0" {
				ci.LocalPort, err = parsePort(v)
			}
		case k == "rdomain":
			ci.RDomain = &v
		default:
			err = errors.New("unknown attribute")
		}
		if err != nil {
			return ConnInfo{}, fmt.Errorf("invalid test specification %q: %w", clip(f), err)
		}
	}
	return ci, nil
}

// Criteria returns what the Match lines name: for each criterion in lower case
// ("user", "group", "address", ...), its lists of patterns as they stand.
func (c *Config) Criteria() map[string][]string {
	lists := map[string][]string{}
	for _, m := range c.matches {
		for _, k := range m.crit {
			if !slices.Contains(lists[k.attr], k.arg) {
				lists[k.attr] = append(lists[k.attr], k.arg)
			}
		}
	}
	return lists
}

// MatchCriteria returns the Criteria of a file that is sshd's, whatever else stands there:
// its other lines may ask for what p9auth refuses.
func MatchCriteria(file string) (map[string][]string, error) {
	p := &parser{src: disk{}, dir: filepath.Dir(file), cfg: &Config{}, matches: true}
	if err := p.include1(file, &scope{depth: -1}); err != nil {
		p.errs = append(p.errs, err)
	}
	return p.cfg.Criteria(), errors.Join(p.errs...)
}

// For returns the settings of one connection: the lines before any Match, with
// those of the Match blocks that hold laid over them; in each part the first
// value counts. The only error is that of ConnInfo.Groups.
func (c *Config) For(ci ConnInfo) (*Settings, error) {
	b, err := c.global()
	if err != nil {
		return nil, err // Parse has done the same
	}
	// The second part counts its own first values: it overrides the first.
	b.set = map[string]bool{}
	var groups []string
	var groupErr error
	asked := false
	member := func(list string) bool {
		if !asked && ci.Groups != nil {
			groups, groupErr = ci.Groups()
		}
		asked = true
		return match.Groups(groups, list)
	}
	verdict := map[*cond]bool{}
	holds := func(cs []*cond) bool {
		for _, x := range cs {
			v, known := verdict[x]
			if !known {
				v = x.holds(&ci, member)
				verdict[x] = v
			}
			if !v {
				return false
			}
		}
		return true
	}
	for i := range c.lines {
		l := &c.lines[i]
		if !l.inMatch || !holds(l.conds) {
			continue
		}
		if err := b.apply(l); err != nil {
			return nil, err
		}
	}
	if groupErr != nil {
		return nil, fmt.Errorf("groups of %s: %w", ci.User, groupErr)
	}
	return b.finish(), nil
}

// Transport is the connection process's part of settings for an address.
// Algorithms of host keys that the server has not are left out; types are those of the
// keys that it has, such as "ssh-ed25519". Algorithms of users' keys are those that some
// user's key may sign in: a client of OpenSSH before 9.6 asks once, before we know its
// user, and would not use a key that only a Match block accepts.
func (c *Config) Transport(s *Settings, types []string) *Transport {
	t := part[Transport](s)
	t.PubkeyAcceptedAlgorithms = SignatureAlgorithms(slices.Concat(t.PubkeyAcceptedAlgorithms, c.pubkeys))
	t.HostKeyAlgorithms = slices.DeleteFunc(slices.Clone(t.HostKeyAlgorithms), func(alg string) bool {
		return !slices.ContainsFunc(types, func(keyType string) bool { return keyTypeOf(alg) == strings.TrimSuffix(keyType, "@openssh.com") })
	})
	return t
}

// Global returns the settings outside of all Match blocks: the listener's.
func (c *Config) Global() *Settings {
	b, err := c.global()
	if err != nil {
		panic(err) // Parse has done the same
	}
	return b.finish()
}

func (c *Config) global() (*builder, error) {
	b := newBuilder()
	b.cmdPorts = c.cmdPorts
	for i := range c.lines {
		if l := &c.lines[i]; len(l.conds) == 0 {
			if err := b.apply(l); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

func (x *cond) holds(ci *ConnInfo, member func(string) bool) bool {
	for _, c := range x.crit {
		ok := false
		switch c.attr {
		case "invalid-user":
			ok = ci.InvalidUser
		case "user":
			ok = ci.User != "" && match.List(ci.User, c.arg) == match.Matched
		case "group":
			ok = ci.User != "" && !ci.InvalidUser && member(c.arg)
		case "host":
			ok = ci.Host != "" && match.Host(ci.Host, c.arg) == match.Matched
		case "address":
			r, err := match.Addr(ci.Addr, c.arg)
			ok = err == nil && r == match.Matched
		case "localaddress":
			r, err := match.Addr(ci.LocalAddr, c.arg)
			ok = err == nil && r == match.Matched
		case "localport":
			n, _ := parsePort(c.arg)
			ok = n == ci.LocalPort && n != 0
		case "rdomain":
			ok = ci.RDomain != nil && match.List(*ci.RDomain, c.arg) == match.Matched
		case "version":
			ok = match.List(Release, c.arg) == match.Matched
		}
		if !ok {
			return false
		}
	}
	return true
}
