package sshdconf

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// builder lays lines into a Settings by the rule of the first value.
type builder struct {
	s        *Settings
	set      map[string]bool
	cmdPorts bool
	notes    []string // see Config.Notes
}

func newBuilder() *builder { return &builder{s: defaults(), set: map[string]bool{}} }

// apply reads one line unless an earlier one has set its keyword. The error is
// an *Error.
func (b *builder) apply(l *line) error {
	if b.set[l.kw.name] && !l.kw.each || b.cmdPorts && l.kw.name == "Port" && l.file != cmdline {
		return nil
	}
	a := &args{rest: l.args, raw: l.raw, seen: b.set, first: !b.set[l.kw.name]}
	b.set[l.kw.name] = true
	err := l.kw.set(b.s, a)
	if err == nil && len(a.rest) > 0 && !l.kw.raw {
		err = fmt.Errorf("extra argument %q", clip(a.rest[0]))
	}
	if err != nil {
		return &Error{l.file, l.n, l.kw.name + ": " + err.Error()}
	}
	if a.note != "" {
		b.notes = append(b.notes, (&Error{l.file, l.n, l.kw.name + ": " + a.note}).Error())
	}
	return nil
}

func (b *builder) finish() *Settings {
	if len(b.s.Ports) == 0 {
		b.s.Ports = []int{22}
	}
	return b.s
}

// args are the arguments of a line while they are read.
type args struct {
	rest  []string
	raw   string
	first bool            // no earlier line of this keyword counted
	note  string          // what is worth knowing of the line
	seen  map[string]bool // what is set already: keywords, and "keyword:part"
}

func (a *args) next() (string, error) {
	if len(a.rest) == 0 || a.rest[0] == "" {
		return "", errors.New("missing argument")
	}
	v := a.rest[0]
	a.rest = a.rest[1:]
	return v, nil
}

func (a *args) oneOf(values ...string) (string, error) {
	v, err := a.next()
	if err != nil {
		return "", err
	}
	for _, w := range values {
		if strings.EqualFold(v, w) {
			return w, nil
		}
	}
	return "", fmt.Errorf("unsupported value %q", clip(v))
}

// all takes the remaining arguments, of which there must be one, none empty.
func (a *args) all() ([]string, error) {
	v := a.rest
	a.rest = nil
	if len(v) == 0 || slices.Contains(v, "") {
		return nil, errors.New("missing or empty argument")
	}
	return v, nil
}

// once reports whether part of a keyword is seen for the first time.
func (a *args) once(part string) bool {
	if a.seen[part] {
		return false
	}
	a.seen[part] = true
	return true
}

func one(s string) []string { return []string{s} }

func enum[T comparable](n names[T], at func(*Settings) *T) kind {
	return kind{
		set: func(s *Settings, a *args) error {
			v, err := a.next()
			if err != nil {
				return err
			}
			x, err := n.parse(v)
			*at(s) = x
			return err
		},
		show: func(s *Settings) []string { return one(n.of(*at(s))) },
	}
}

func flag(at func(*Settings) *bool) kind { return enum(flagNames, at) }

func number(lo, hi int, at func(*Settings) *int) kind {
	return kind{
		set: func(s *Settings, a *args) error {
			v, err := a.next()
			if err != nil {
				return err
			}
			n, err := parseInt(v, lo, hi)
			*at(s) = n
			return err
		},
		show: func(s *Settings) []string { return one(strconv.Itoa(*at(s))) },
	}
}

func parseInt(v string, lo, hi int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < lo || n > hi {
		return lo, fmt.Errorf("%q is not a number from %d to %d", clip(v), lo, hi)
	}
	return n, nil
}

// duration reads a time; the word zero, if any, stands for none.
func duration(at func(*Settings) *time.Duration, zero string) kind {
	return kind{
		set: func(s *Settings, a *args) error {
			v, err := a.next()
			if err != nil {
				return err
			}
			if zero != "" && strings.EqualFold(v, zero) {
				*at(s) = 0
				return nil
			}
			*at(s), err = parseTime(v, false)
			return err
		},
		show: func(s *Settings) []string {
			if d := *at(s); d != 0 || zero == "" {
				return one(strconv.FormatInt(int64(d/time.Second), 10))
			}
			return one(zero)
		},
	}
}

// file reads a path, made absolute, or "none".
func file(at func(*Settings) *string) kind { return fileOr("", at) }

// fileOr is a file, or a word that is taken as it is.
func fileOr(word string, at func(*Settings) *string) kind {
	return kind{
		set: func(s *Settings, a *args) error {
			v, err := a.next()
			if err == nil && v != word {
				v, err = absolute(v)
			}
			*at(s) = v
			return err
		},
		show: text(at),
	}
}

func absolute(v string) (string, error) {
	if strings.EqualFold(v, "none") {
		return "", nil
	}
	if v[0] == '~' {
		return "", fmt.Errorf("%q: ~ would be root's home directory; write the whole path", clip(v))
	}
	return filepath.Abs(v)
}

func text(at func(*Settings) *string) func(*Settings) []string {
	return func(s *Settings) []string {
		if v := *at(s); v != "" {
			return one(v)
		}
		return one("none")
	}
}

func list(at func(*Settings) []string) func(*Settings) []string { return at }

func oneLine(at func(*Settings) []string) func(*Settings) []string {
	return func(s *Settings) []string {
		if v := at(s); len(v) > 0 {
			return one(strings.Join(v, " "))
		}
		return nil
	}
}

func algorithms(from algos, at func(*Settings) *[]string) kind {
	return kind{
		set: func(s *Settings, a *args) error {
			v, err := a.next()
			if err != nil {
				return err
			}
			var absent []string
			*at(s), absent, err = from.resolve(v)
			var notes []string
			if len(absent) > 0 {
				notes = append(notes, "left out, as p9auth does not have it: "+clip(strings.Join(absent, ",")))
			}
			if slices.ContainsFunc(*at(s), isDSA) {
				notes = append(notes, "ssh-dss is on, which is weak (1024 bits, SHA-1), and OpenSSH 10 does not have it")
			}
			a.note = strings.Join(notes, "; ")
			return err
		},
		show: func(s *Settings) []string { return one(strings.Join(*at(s), ",")) },
	}
}

func accepted(why string, values ...string) kind {
	return kind{
		status: Accepted,
		why:    why,
		set: func(_ *Settings, a *args) error {
			v, err := a.next()
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(values, func(w string) bool { return strings.EqualFold(v, w) }) {
				return fmt.Errorf("%q is not supported: %s; only %s is accepted", clip(v), why, strings.Join(values, " or "))
			}
			return nil
		},
		show: func(*Settings) []string { return one(values[0]) },
	}
}

// unused is a keyword that only matters for a method that is off. Dump prints the value
// that was given, or the first.
func unused(name, method string, values ...string) kind {
	return kind{
		status: Accepted,
		why:    "it has no effect while " + method + " is no",
		set: func(s *Settings, a *args) error {
			v, err := a.oneOf(values...)
			s.setUnused(name, v, values[0])
			return err
		},
		show: func(s *Settings) []string {
			if v, given := s.Unused[name]; given {
				return one(v)
			}
			return one(values[0])
		},
	}
}

// compression is taken with sshd's values and shown as sshd shows it, which has one name
// for two of them.
func compression() kind {
	k := unused("Compression", "", "yes", "no", "delayed")
	k.why = "nothing is compressed, whatever the value"
	set := k.set
	k.set = func(s *Settings, a *args) error {
		err := set(s, a)
		if s.Unused["Compression"] == "delayed" {
			s.Unused["Compression"] = "yes"
		}
		if err == nil && s.Unused["Compression"] != "no" {
			a.note = "nothing is compressed: no compression is offered to clients"
		}
		return err
	}
	return k
}

func (s *Settings) setUnused(name, v, standard string) {
	delete(s.Unused, name)
	if v == standard {
		return
	}
	if s.Unused == nil {
		s.Unused = map[string]string{}
	}
	s.Unused[name] = v
}

// silent is a keyword that is obeyed, with any of its values, and that Dump leaves out, as
// Debian 13's sshd does not know it.
func silent(k kind) kind {
	k.status, k.why, k.show = Accepted, "it qualifies GSSAPIAuthentication", nil
	return k
}

// unusedList is such a keyword with a list of algorithms.
func unusedList(name, method string, from algos) kind {
	k := unused(name, method)
	k.set = func(s *Settings, a *args) error {
		v, err := a.next()
		if err != nil {
			return err
		}
		list, _, err := from.resolve(v)
		s.setUnused(name, strings.Join(list, ","), strings.Join(from.defaults, ","))
		return err
	}
	k.show = func(s *Settings) []string {
		if v, given := s.Unused[name]; given {
			return one(v)
		}
		return one(strings.Join(from.defaults, ","))
	}
	return k
}

// obsolete is a keyword that OpenSSH does not have any more, and takes with every value.
func obsolete(why string) kind {
	return kind{
		status: Accepted,
		why:    why,
		set: func(_ *Settings, a *args) error {
			a.rest = nil
			a.note = "deprecated option, without effect: " + why
			return nil
		},
	}
}

func refused(why string) kind { return kind{status: Refused, why: why} }
