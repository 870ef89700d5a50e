package authkeys

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sys"
)

const (
	// MaxFile is the longest file that is read, in bytes. A longer one is an
	// error and grants nothing.
	MaxFile = 1 << 20
	// MaxLine is the longest line, in bytes without its end. A longer one
	// grants nothing, and neither does any part of it.
	MaxLine = 16 << 10
)

// Entry is one line of authorized_keys.
type Entry struct {
	Line    int // from 1
	Key     ssh.PublicKey
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
func parseKey(s string) (ssh.PublicKey, string, error) {
	typ, rest, _ := cutBlank(s)
	b64, comment, _ := cutBlank(rest)
	if typ == "" || b64 == "" {
		return nil, "", ErrNoKey
	}
	blob, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		return nil, "", ErrNoKey
	}
	k, err := ssh.ParsePublicKey(blob)
	if err != nil || k.Type() != typ {
		return nil, "", ErrNoKey
	}
	if _, cert := k.(*ssh.Certificate); cert {
		return nil, "", ErrNoKey
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

// Read reads authorized_keys. It returns the entries in their order and a *LineError
// for each line that is not one. If the file cannot be read, or is too long, it
// returns the last error and no entries.
func Read(r io.Reader) ([]Entry, []error, error) {
	var out []Entry
	bad, err := lines(r, func(n int, line string) error {
		if line[0] == '#' {
			return nil
		}
		e, err := ParseLine(line)
		if err == nil {
			e.Line = n
			out = append(out, e)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return out, bad, nil
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

// ReadPrincipals is Read for authorized_principals, in which a '#' begins a comment
// anywhere in a line.
func ReadPrincipals(r io.Reader) ([]Principal, []error, error) {
	var out []Principal
	bad, err := lines(r, func(n int, line string) error {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.Trim(line, " \t"); line == "" {
			return nil
		}
		p, err := ParsePrincipal(line)
		if err == nil {
			p.Line = n
			out = append(out, p)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return out, bad, nil
}

// maxBad bounds the complaints about one file.
const maxBad = 100

// lines calls f for each line that is not empty, with blanks at its ends
// removed, and collects f's errors.
func lines(r io.Reader, f func(n int, line string) error) ([]error, error) {
	b, err := sys.ReadAll(r, MaxFile)
	if err != nil {
		return nil, err
	}
	var bad []error
	n := 0
	for len(b) > 0 {
		n++
		line, rest, _ := bytes.Cut(b, []byte{'\n'})
		b = rest
		var err error
		switch text := strings.Trim(string(line), " \t\r"); {
		case text == "":
			continue
		case len(line) > MaxLine:
			err = fmt.Errorf("longer than %d bytes", MaxLine)
		case strings.ContainsRune(text, 0):
			err = errors.New("NUL byte")
		default:
			err = f(n, text)
		}
		if err != nil && len(bad) < maxBad {
			bad = append(bad, &LineError{n, err})
		}
	}
	return bad, nil
}

// Fingerprint is a key's fingerprint as sshd logs it, by a hash that
// FingerprintHash in sshd_config(5) may name.
func Fingerprint(key ssh.PublicKey, hash string) string {
	if hash == "md5" {
		return "MD5:" + ssh.FingerprintLegacyMD5(key)
	}
	return ssh.FingerprintSHA256(key)
}
