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
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"p9auth/internal/sys"
)

// Where the configuration is: see File.
const (
	DefaultFile = "/etc/p9auth/sshd_config"
	SSHDFile    = "/etc/ssh/sshd_config"
)

// File is the configuration that both daemons read when not told otherwise: DefaultFile
// where the machine has it, otherwise sshd's own, so that what holds for sshd holds
// here. On a machine with neither it is the file sshd_config beside the program. A
// file that is there and cannot be read is not passed over: nobody's rules are lost by that.
func File() string { return firstFile(DefaultFile, SSHDFile) }

func firstFile(names ...string) string {
	for _, name := range names {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return name
		}
	}
	dir := "/usr/lib/p9auth"
	if exe, err := os.Executable(); err == nil {
		dir = filepath.Dir(exe)
	}
	return filepath.Join(dir, "sshd_config")
}

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
	notes    []string
	// pubkeys are the PubkeyAcceptedAlgorithms of all Match blocks.
	pubkeys []string
	matches []*cond // of all Match lines but "Match all"
}

// Notes are lines for the administrator, "file:line: message": what is left out of
// the configuration, or weak.
func (c *Config) Notes() []string { return c.notes }

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
	return sys.ReadFile(name, maxFile)
}

func (disk) glob(pattern string) ([]string, error) { return Glob(pattern) }

type parser struct {
	src     source
	dir     string // of the main file: relative Includes start here
	cfg     *Config
	files   int
	errs    []error
	matches bool // lines other than Match and Include are passed over
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
		l := &p.cfg.lines[i]
		if err := scratch.apply(l); err != nil {
			p.errs = append(p.errs, err)
		}
		if l.kw.name == "PubkeyAcceptedAlgorithms" && len(l.conds) > 0 {
			p.cfg.pubkeys = unique(slices.Concat(p.cfg.pubkeys, scratch.s.PubkeyAcceptedAlgorithms))
		}
	}
	p.cfg.notes = scratch.notes
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
	if p.matches && !strings.EqualFold(name, "Match") && !strings.EqualFold(name, "Include") {
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
	if err != nil {
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
			c := &cond{crit}
			sc.conds = append(sc.conds, c)
			p.cfg.matches = append(p.cfg.matches, c)
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
	if pattern == "" {
		return errors.New("missing argument")
	}
	if pattern[0] == '~' {
		return nil // sshd knows no home here, and finds nothing
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
