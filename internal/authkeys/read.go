package authkeys

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"p9auth/internal/sshkey"
)

const (
	// MaxLine is the longest line, in bytes without its end. A longer one
	// grants nothing, and neither does any part of it.
	MaxLine = 1 << 20
	// MaxTime is how long a file is read. What comes later grants nothing.
	MaxTime = 20 * time.Second
)

// Entry is one line of authorized_keys.
type Entry struct {
	Line    int // from 1
	Key     sshkey.Key
	Options Options
	Comment string
}

// Principal is one line of authorized_principals.
type Principal struct {
	Line    int // from 1
	Name    string
	Options Options
}

// LineError says why a line grants nothing.
type LineError struct {
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// ErrNoKey is the error of a line without a key of a known type.
var ErrNoKey = errors.New("no key of a known type")

// ParseLine parses one line of authorized_keys without its end: options, if
// any, key type, key in base64, comment. The line must not be empty or a
// comment. A certificate does not count as a key.
func ParseLine(line string) (Entry, error) {
	line = strings.TrimLeft(line, " \t")
	if k, comment, err := parseKey(line); err == nil {
		o, _, _ := ParseOptions("")
		return Entry{Key: k, Options: o, Comment: comment}, nil
	}
	end := pastOptions(line)
	if end < 0 {
		return Entry{}, errors.New("invalid key option string")
	}
	k, comment, err := parseKey(strings.TrimLeft(line[end:], " \t"))
	if err != nil {
		return Entry{}, err
	}
	o, rest, err := ParseOptions(line)
	if err != nil {
		return Entry{}, fmt.Errorf("bad key options: %w", err)
	}
	if len(rest) != len(line)-end {
		return Entry{}, errors.New("bad key options: quotes do not match")
	}
	return Entry{Key: k, Options: o, Comment: comment}, nil
}

// pastOptions returns where the options of a line end, or -1 for a quote that
// is not closed.
func pastOptions(s string) int {
	quoted := false
	i := 0
	for ; i < len(s) && (quoted || !isBlank(s[i])); i++ {
		if s[i] == '\\' && i+1 < len(s) && s[i+1] == '"' {
			i++
		} else if s[i] == '"' {
			quoted = !quoted
		}
	}
	if quoted {
		return -1
	}
	return i
}

// parseKey parses type, base64 and comment.
func parseKey(s string) (sshkey.Key, string, error) {
	typ, rest, _ := cutBlank(s)
	b64, comment, _ := cutBlank(rest)
	if typ == "" || b64 == "" {
		return sshkey.Key{}, "", ErrNoKey
	}
	blob, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		return sshkey.Key{}, "", ErrNoKey
	}
	k, err := sshkey.Parse(blob)
	if err != nil || k.Type != typ || k.Cert != nil {
		return sshkey.Key{}, "", ErrNoKey
	}
	return k, comment, nil
}

func cutBlank(s string) (first, rest string, found bool) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, "", false
	}
	return s[:i], strings.TrimLeft(s[i:], " \t"), true
}

// Entries reads authorized_keys as a stream: it yields each line's entry in their order,
// or a *LineError for a line that is not one, or at the end the error for which the
// rest cannot be read. What comes before that counts, as with sshd(8).
func Entries(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for l, err := range lines(r) {
			if err != nil {
				if !yield(Entry{}, err) {
					return
				}
				continue
			}
			if l.text[0] == '#' {
				continue
			}
			e, err := ParseLine(l.text)
			if e.Line = l.n; err != nil {
				err = &LineError{l.n, err}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// ParsePrincipal parses one line of authorized_principals, without its end and
// without a comment: a principal, before it options if there are any.
func ParsePrincipal(line string) (Principal, error) {
	line = strings.Trim(line, " \t")
	i := strings.LastIndexAny(line, " \t")
	p := Principal{Name: line[i+1:]}
	opts := ""
	if i >= 0 {
		opts = strings.TrimRight(line[:i], " \t")
	}
	var rest string
	var err error
	if p.Options, rest, err = ParseOptions(opts); err == nil && rest != "" {
		err = errors.New("more than one field of options")
	}
	if err != nil {
		return Principal{}, fmt.Errorf("bad principals options: %w", err)
	}
	if p.Name == "" {
		return Principal{}, errors.New("no principal")
	}
	return p, nil
}

// Principals is Entries for authorized_principals, in which a '#' begins a comment
// anywhere in a line.
func Principals(r io.Reader) iter.Seq2[Principal, error] {
	return func(yield func(Principal, error) bool) {
		for l, err := range lines(r) {
			if err != nil {
				if !yield(Principal{}, err) {
					return
				}
				continue
			}
			text, _, _ := strings.Cut(l.text, "#")
			if text = strings.Trim(text, " \t"); text == "" {
				continue
			}
			p, err := ParsePrincipal(text)
			if p.Line = l.n; err != nil {
				err = &LineError{l.n, err}
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

// A line is one that is not empty, with blanks at its ends removed.
type line struct {
	n    int // from 1
	text string
}

// lines yields the lines of a file, a *LineError for one that is too long, and the
// error that ends the reading. As with sshd(8), which has C's strings, a NUL ends a
// line's text.
func lines(r io.Reader) iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		end := time.Now().Add(MaxTime)
		in := bufio.NewReader(r)
		for n := 1; ; n++ {
			b, long, err := readLine(in)
			text, _, _ := bytes.Cut(b, []byte{0})
			l := line{n, strings.TrimLeft(strings.TrimRight(string(text), " \t\r\n"), " \t")}
			switch {
			case long && !yield(line{}, &LineError{n, fmt.Errorf("longer than %d bytes", MaxLine)}),
				!long && l.text != "" && !yield(l, nil):
				return
			case err == io.EOF:
				return
			case err == nil && time.Now().After(end):
				err = fmt.Errorf("its lines from %d on are not looked at: it takes longer than %v", n+1, MaxTime)
			}
			if err != nil {
				yield(line{}, err)
				return
			}
		}
	}
}

// readLine reads a line with its end. Of one that is longer than MaxLine it returns
// nothing.
func readLine(r *bufio.Reader) (b []byte, long bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if long = long || len(b)+len(part) > MaxLine+1; long {
			b = nil
		} else {
			b = append(b, part...)
		}
		if err != bufio.ErrBufferFull {
			return b, long, err
		}
	}
}
