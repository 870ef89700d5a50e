// Package sshdconf reads the grammar and the keywords of sshd_config(5), as of
// OpenSSH 10. Both daemons use it, each for its part: factotum for the keywords
// of authentication, sshfront for those of the connection and the session.
//
// It trusts its input as far as root's own file can be trusted, and still
// bounds it. Every keyword of OpenSSH stands in one table (keywords.go): it is
// implemented, or accepted with the values that ask for what we do anyway, or
// refused with a reason. Nothing is ignored in silence. The manual page is
// p9auth_sshd_config(5).
package sshdconf

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"p9auth/internal/match"
)

// DefaultFile is the configuration both daemons read when not told otherwise.
const DefaultFile = "/etc/p9auth/sshd_config"

const (
	maxFile   = 1 << 20 // bytes in one file
	maxFiles  = 256     // files read, through Include
	maxLines  = 20000   // keyword lines in all files
	maxDepth  = 16      // nested Includes, as SERVCONF_MAX_DEPTH of OpenSSH
	maxErrors = 50
)

// cmdline is the file that an Error names for a line given with -o.
const cmdline = "command-line"

// Config is a parsed configuration, valid in every branch. It does not change
// after Parse and may be used by several goroutines.
type Config struct {
	lines []line
	// cmdPorts: the command line named ports, which replace those of the files.
	cmdPorts bool
}

// line is one keyword with its arguments and the conditions it stands under.
type line struct {
	kw    *keyword
	file  string
	n     int
	args  []string
	raw   string // everything after the keyword, as it stands
	conds []*cond
	// inMatch: the line follows a Match, perhaps "Match all", so it overrides
	// the lines before any Match.
	inMatch bool
}

// Error is one complaint about a configuration.
type Error struct {
	File string
	Line int // from 1
	Msg  string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg) }

// Parse reads a configuration file and what it includes. Each of overrides is a
// line in the form of the -o option ("Port 22" or "Port=22"); they count before
// the file, so by the rule of the first value they win, except over a Match
// block. All complaints are returned at once, joined; each is an *Error for
// "file:line: message", where a command line's file is "command-line".
func Parse(file string, overrides []string) (*Config, error) {
	return parse(file, overrides, disk{})
}

// source is where files come from; tests and fuzzing use another than the disk.
type source interface {
	read(name string) ([]byte, error)
	glob(pattern string) ([]string, error)
}

type disk struct{}

func (disk) read(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s: longer than %d bytes", name, maxFile)
	}
	return b, err
}

func (disk) glob(pattern string) ([]string, error) { return filepath.Glob(pattern) }

type parser struct {
	src   source
	dir   string // of the main file: relative Includes start here
	cfg   *Config
	files int
	errs  []error
}

// scope is where a line stands.
type scope struct {
	file    string
	line    int
	depth   int     // of Includes; -1 for the command line
	outer   []*cond // those of the Include that brought the file in
	conds   []*cond // those in force now, outer among them
	inMatch bool
}

func parse(file string, overrides []string, src source) (*Config, error) {
	p := &parser{src: src, dir: filepath.Dir(file), cfg: &Config{}}
	for i, o := range overrides {
		p.line(o, &scope{file: cmdline, line: i + 1, depth: -1})
	}
	for _, l := range p.cfg.lines {
		p.cfg.cmdPorts = p.cfg.cmdPorts || l.kw.name == "Port"
	}
	if err := p.include1(file, &scope{depth: -1}); err != nil {
		p.errs = append(p.errs, err)
	}
	// Every line is tried once, so that a mistake in a Match block is found
	// now and not when somebody logs in.
	scratch := newBuilder()
	for i := range p.cfg.lines {
		clear(scratch.set)
		if err := scratch.apply(&p.cfg.lines[i]); err != nil {
			p.errs = append(p.errs, err)
		}
	}
	if len(p.errs) == 0 {
		b, err := p.cfg.global()
		if err == nil {
			err = p.cfg.checkCommands(b.s)
		}
		if err != nil {
			p.errs = append(p.errs, err)
		}
	}
	if n := len(p.errs); n > maxErrors {
		p.errs = append(p.errs[:maxErrors], fmt.Errorf("%s: %d more errors", file, n-maxErrors))
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return p.cfg, nil
}

// checkCommands refuses a command without a user, as sshd does for what stands
// outside of Match blocks; within, it is known only when somebody logs in.
func (c *Config) checkCommands(s *Settings) error {
	for _, x := range []struct{ keyword, command, user string }{
		{"AuthorizedKeysCommand", s.AuthorizedKeysCommand, s.AuthorizedKeysCommandUser},
		{"AuthorizedPrincipalsCommand", s.AuthorizedPrincipalsCommand, s.AuthorizedPrincipalsCommandUser},
	} {
		if x.command == "" || x.user != "" {
			continue
		}
		i := slices.IndexFunc(c.lines, func(l line) bool { return l.kw.name == x.keyword && len(l.conds) == 0 })
		return &Error{c.lines[i].file, c.lines[i].n, x.keyword + ": set without " + x.keyword + "User"}
	}
	return nil
}

// include1 reads one file for the line at sc.
func (p *parser) include1(name string, sc *scope) error {
	if sc.depth+1 > maxDepth {
		return errors.New("too many nested Includes")
	}
	if p.files++; p.files > maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	b, err := p.src.read(name)
	if err != nil {
		return err
	}
	in := scope{file: name, depth: sc.depth + 1, outer: sc.conds, conds: sc.conds, inMatch: sc.inMatch}
	for text := range strings.Lines(string(b)) {
		in.line++
		p.line(text, &in)
		if len(p.errs) > maxErrors {
			break
		}
	}
	return nil
}

// line parses one line; a Match changes the scope of those after it.
func (p *parser) line(text string, sc *scope) {
	fail := func(format string, args ...any) {
		p.errs = append(p.errs, &Error{sc.file, sc.line, fmt.Sprintf(format, args...)})
	}
	if strings.ContainsRune(text, 0) {
		fail("NUL byte in line")
		return
	}
	name, raw, err := splitKeyword(text)
	if err != nil {
		fail("%v", err)
		return
	}
	if name == "" {
		return
	}
	kw := lookup(name)
	if kw == nil {
		fail("bad configuration option: %s", clip(name))
		return
	}
	if kw.status == Refused {
		fail("%s is not supported: %s", kw.name, kw.why)
		return
	}
	if raw == "" {
		fail("%s: missing argument", kw.name)
		return
	}
	args, err := splitArgs(raw)
	if err != nil && !kw.raw {
		fail("%s: %v", kw.name, err)
		return
	}
	switch {
	case sc.depth < 0 && (kw.name == "Match" || kw.name == "Include"):
		fail("%s cannot be given on the command line", kw.name)
	case kw.name == "Match":
		crit, err := parseMatch(args)
		if err != nil {
			fail("Match: %v", err)
		}
		sc.conds, sc.inMatch = slices.Clone(sc.outer), true
		if len(crit) > 0 {
			sc.conds = append(sc.conds, &cond{crit})
		}
	case kw.name == "Include":
		if len(args) == 0 {
			fail("Include: missing argument")
		}
		for _, a := range args {
			if err := p.include(a, sc); err != nil {
				fail("Include %s: %v", clip(a), err)
			}
		}
	case kw.global && len(sc.conds) > 0:
		fail("%s is not allowed within a Match block", kw.name)
	case len(p.cfg.lines) == maxLines:
		fail("more than %d lines of configuration", maxLines)
	default:
		p.cfg.lines = append(p.cfg.lines, line{kw: kw, file: sc.file, n: sc.line, args: args, raw: raw,
			conds: sc.conds, inMatch: sc.inMatch})
	}
}

func (p *parser) include(pattern string, sc *scope) error {
	if pattern == "" || pattern[0] == '~' {
		return errors.New("not a path")
	}
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(p.dir, pattern)
	}
	found, err := p.src.glob(pattern)
	if err != nil {
		return err
	}
	for _, f := range found {
		if err := p.include1(f, sc); err != nil {
			return err
		}
	}
	return nil
}

const blanks = " \t\r\n"

// splitKeyword takes the keyword off a line: "Keyword value" or
// "Keyword=value". It returns "" for a comment or an empty line.
func splitKeyword(text string) (name, rest string, err error) {
	text = strings.TrimRight(strings.TrimLeft(text, blanks), blanks+"\f")
	if text == "" || text[0] == '#' {
		return "", "", nil
	}
	i := strings.IndexAny(text, blanks+"=\"")
	if i < 0 {
		return text, "", nil
	}
	if i == 0 || text[i] == '"' {
		return "", "", fmt.Errorf("cannot read a keyword in %q", clip(text))
	}
	name, rest = text[:i], strings.TrimLeft(text[i:], blanks)
	if r, ok := strings.CutPrefix(rest, "="); ok {
		rest = strings.TrimLeft(r, blanks)
	}
	return name, rest, nil
}

// splitArgs splits arguments at blanks, with single and double quotes, the
// escapes \\ \" \' and "\ ", and a comment from an argument that begins with
// '#' (argv_split of OpenSSH).
func splitArgs(s string) ([]string, error) { return splitWords(s, true) }

// splitWords is splitArgs with comments, or without.
func splitWords(s string, comments bool) ([]string, error) {
	var args []string
	for i := 0; i < len(s); {
		if strings.IndexByte(blanks, s[i]) >= 0 {
			i++
			continue
		}
		if s[i] == '#' && comments {
			break
		}
		var arg []byte
		quote := byte(0)
		for ; i < len(s); i++ {
			c := s[i]
			switch {
			case c == '\\' && i+1 < len(s) && (strings.IndexByte(`'"\`, s[i+1]) >= 0 || quote == 0 && s[i+1] == ' '):
				i++
				arg = append(arg, s[i])
				continue
			case quote == 0 && strings.IndexByte(blanks, c) >= 0:
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
				continue
			case quote != 0 && c == quote:
				quote = 0
				continue
			default:
				arg = append(arg, c)
				continue
			}
			break
		}
		if quote != 0 {
			return nil, errors.New("invalid quotes")
		}
		args = append(args, string(arg))
	}
	return args, nil
}

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
		case "user", "group", "host", "address", "localaddress", "localport", "rdomain":
		case "version":
			return nil, errors.New("criterion Version is not supported: it asks for a release of OpenSSH, which this is not")
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
			_, err = parsePort(arg)
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
	RDomain   string
}

// ParseTestSpec parses the -C option of sshd(8), as in
// "user=alice,host=a.example.org,addr=192.0.2.1,laddr=192.0.2.2,lport=22".
func ParseTestSpec(spec string) (ConnInfo, error) {
	var ci ConnInfo
	for f := range strings.SplitSeq(spec, ",") {
		k, v, has := strings.Cut(f, "=")
		var err error
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
			ci.LocalPort, err = parsePort(v)
		case k == "rdomain":
			ci.RDomain = v
		default:
			err = errors.New("unknown attribute")
		}
		if err != nil {
			return ConnInfo{}, fmt.Errorf("invalid test specification %q: %w", clip(f), err)
		}
	}
	return ci, nil
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
			ok = ci.RDomain != "" && match.List(ci.RDomain, c.arg) == match.Matched
		}
		if !ok {
			return false
		}
	}
	return true
}
