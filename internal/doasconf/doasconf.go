// Package doasconf reads doas.conf(5) and decides by it: who may execute what as whom.
// It is OpenBSD's format as opendoas 6.8.2 reads it.
//
// It does no input or output, and knows no users: names and numbers are compared by
// whoever calls it, see Names.
package doasconf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits of a file.
const (
	MaxSize  = 64 << 10 // bytes
	MaxRules = 1024
	maxWord  = 1023 // bytes
)

// A Rule is one line.
type Rule struct {
	Permit  bool
	NoPass  bool // no proof is asked for
	Persist bool // the proof holds for some time
	NoLog   bool
	KeepEnv bool
	SetEnv  []string // NAME, NAME=VALUE, NAME=$OTHER or -NAME

	Ident  string   // a user, a uid, or a group after a colon
	Target string   // a user or uid, if HasTarget
	Cmd    string   // if HasCmd
	Args   []string // if HasArgs

	HasTarget, HasCmd, HasArgs bool
	Line                       int // in the file, from 1
}

// A Names finds the number of a user or group. Names that are numbers are tried as
// names first, and come here too. It says false for who does not exist.
type Names interface {
	UID(user string) (uint32, bool)
	GID(group string) (uint32, bool)
}

// A Request is what somebody wants to execute.
type Request struct {
	UID    uint32 // of the caller
	Groups []uint32
	Target uint32
	Argv   []string // not empty
}

// Decide returns the last rule that matches, or nil if none does. What it does not
// permit is denied.
func Decide(rules []Rule, q Request, names Names) *Rule {
	for i := len(rules) - 1; i >= 0; i-- {
		if rules[i].matches(q, names) {
			return &rules[i]
		}
	}
	return nil
}

// matches says whether a rule is about a request.
func (r *Rule) matches(q Request, names Names) bool {
	if group, ok := strings.CutPrefix(r.Ident, ":"); ok {
		gid, ok := number(group, names.GID)
		if !ok || !slices.Contains(q.Groups, gid) {
			return false
		}
	} else if uid, ok := number(r.Ident, names.UID); !ok || uid != q.UID {
		return false
	}
	if r.HasTarget {
		if uid, ok := number(r.Target, names.UID); !ok || uid != q.Target {
			return false
		}
	}
	if r.HasCmd && r.Cmd != q.Argv[0] {
		return false
	}
	return !r.HasArgs || slices.Equal(r.Args, q.Argv[1:])
}

// number is what a name stands for: that of a user or group who has it, or else the
// number that it is.
func number(name string, find func(string) (uint32, bool)) (uint32, bool) {
	if n, ok := find(name); ok {
		return n, true
	}
	return ParseID(name)
}

// ParseID reads a decimal uid or gid, as strtoll(3) does: with white space and a sign
// before it. The highest number means none to the kernel, and is refused.
func ParseID(s string) (uint32, bool) {
	n, err := strconv.ParseInt(strings.TrimLeft(s, " \t\n\v\f\r"), 10, 64)
	return uint32(n), err == nil && n >= 0 && n < 1<<32-1
}

// Mentioned returns the users and the groups that rules name, each once, in order.
func Mentioned(rules []Rule) (users, groups []string) {
	add := func(list *[]string, seen map[string]bool, name string) {
		if !seen[name] {
			seen[name] = true
			*list = append(*list, name)
		}
	}
	u, g := map[string]bool{}, map[string]bool{}
	for _, r := range rules {
		if group, ok := strings.CutPrefix(r.Ident, ":"); ok {
			add(&groups, g, group)
		} else {
			add(&users, u, r.Ident)
		}
		if r.HasTarget {
			add(&users, u, r.Target)
		}
	}
	return users, groups
}

// An Error is what is wrong with a file.
type Error struct {
	Text string
	Line int // from 1
}

func (e *Error) Error() string { return fmt.Sprintf("%s at line %d", e.Text, e.Line) }

// Parse reads a file. The error is an *Error: the first one, in opendoas's words.
func Parse(text []byte) ([]Rule, error) {
	if len(text) > MaxSize {
		return nil, &Error{fmt.Sprintf("more than %d bytes", MaxSize), 1}
	}
	p := &parser{lexer: lexer{in: text}}
	var rules []Rule
	for {
		if err := p.next(); err != nil {
			return nil, err
		}
		switch p.kind {
		case end:
			return rules, nil
		case newline:
			continue
		}
		if len(rules) == MaxRules {
			return nil, p.errorf("more than %d rules", MaxRules)
		}
		r, err := p.rule()
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
}

// A parser has the token that it looks at in its lexer.
type parser struct{ lexer }

// rule reads one line, with the newline that ends it.
func (p *parser) rule() (Rule, error) {
	r := Rule{Line: p.line + 1}
	var err error
	switch {
	case p.keyword("permit"):
		r.Permit = true
		if err = p.next(); err == nil {
			err = p.options(&r)
		}
	case p.keyword("deny"):
		err = p.next()
	default:
		err = p.syntax()
	}
	if err != nil {
		return r, err
	}
	if r.Ident, err = p.word(); err != nil {
		return r, err
	}
	if p.keyword("as") {
		r.HasTarget = true
		if r.Target, err = p.wordAfter(); err != nil {
			return r, err
		}
	}
	if p.keyword("cmd") {
		r.HasCmd = true
		if r.Cmd, err = p.wordAfter(); err != nil {
			return r, err
		}
		if p.keyword("args") {
			r.HasArgs = true
			if r.Args, err = p.words(); err != nil {
				return r, err
			}
		}
	}
	if p.kind != newline {
		return r, p.syntax()
	}
	return r, nil
}

// options reads what stands between permit and the identity.
func (p *parser) options(r *Rule) error {
	set := false
	for {
		switch {
		case p.keyword("nopass"):
			r.NoPass = true
		case p.keyword("persist"):
			r.Persist = true
		case p.keyword("nolog"):
			r.NoLog = true
		case p.keyword("keepenv"):
			r.KeepEnv = true
		case p.keyword("setenv"):
			if err := p.next(); err != nil {
				return err
			}
			if p.kind != open {
				return p.syntax()
			}
			env, err := p.words()
			if err != nil {
				return err
			}
			if p.kind != closed {
				return p.syntax()
			}
			// An empty list is one, too.
			if set {
				return p.errorf("can't have two setenv sections")
			}
			set, r.SetEnv = true, env
		default:
			return nil
		}
		if r.NoPass && r.Persist {
			return p.errorf("can't combine nopass and persist")
		}
		if err := p.next(); err != nil {
			return err
		}
	}
}

// word takes the word that the parser looks at.
func (p *parser) word() (string, error) {
	if p.kind != text {
		return "", p.syntax()
	}
	s := p.value
	return s, p.next()
}

// wordAfter takes the word after a keyword.
func (p *parser) wordAfter() (string, error) {
	if err := p.next(); err != nil {
		return "", err
	}
	return p.word()
}

// words takes those that follow, none or more.
func (p *parser) words() (list []string, err error) {
	for {
		if err := p.next(); err != nil {
			return nil, err
		}
		if p.kind != text {
			return list, nil
		}
		list = append(list, p.value)
	}
}
