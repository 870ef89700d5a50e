package doasconf

import (
	"fmt"
	"slices"
)

// keywords are words with a meaning of their own, unless a quote is in them or a line is
// continued. A backslash before another byte changes nothing, whatever the manual of
// opendoas says.
var keywords = []string{"deny", "permit", "as", "cmd", "args", "nolog", "nopass", "persist", "keepenv", "setenv"}

// A kind is that of a token.
type kind int

const (
	end kind = iota
	newline
	open   // {
	closed // }
	text
	reserved // one of keywords
)

// A lexer cuts a file into tokens. It has the last one.
type lexer struct {
	in   []byte
	at   int // in in
	line int // that at is in, from 0
	bol  int // where that line begins

	kind  kind
	value string // of text and reserved
}

// peek is the next byte, or false at the end.
func (l *lexer) peek() (byte, bool) {
	if l.at == len(l.in) {
		return 0, false
	}
	return l.in[l.at], true
}

// take takes a newline.
func (l *lexer) take() {
	l.at++
	l.line++
	l.bol = l.at
}

// keyword says whether the token is this one.
func (l *lexer) keyword(word string) bool { return l.kind == reserved && l.value == word }

func (l *lexer) errorf(format string, args ...any) error {
	return &Error{fmt.Sprintf(format, args...), l.line + 1}
}

func (l *lexer) syntax() error { return l.errorf("syntax error") }

// next goes to the next token.
func (l *lexer) next() error {
	plain := true
	for {
		c, ok := l.peek()
		switch {
		case !ok:
			l.kind = end
			return nil
		case c == ' ', c == '\t':
			l.at++
			continue
		case c == '#':
			// A backslash continues no comment.
			for ok && c != '\n' {
				l.at++
				c, ok = l.peek()
			}
			continue
		case c == '\n':
			l.take()
			l.kind = newline
			return nil
		case c == '{', c == '}':
			l.at++
			if l.kind = open; c == '}' {
				l.kind = closed
			}
			return nil
		}
		if found, err := l.word(plain); found || err != nil {
			return err
		}
		plain = false // as opendoas has it
	}
}

// word reads a word, or a keyword if it may be one and is plain. It says false for a
// backslash before a newline that stands alone.
func (l *lexer) word(plain bool) (found bool, err error) {
	var word []byte
	quotes, escape, empty := false, false, false
	column := 0 // of the quote
	for {
		c, ok := l.peek()
		switch {
		case !ok && escape:
			return false, l.errorf("unterminated escape in column %d", l.at-l.bol)
		case (!ok || c == '\n') && quotes:
			return false, l.errorf("unterminated quotes in column %d", column)
		case c == '\n' && escape:
			l.take()
			plain, escape = false, false
			continue
		case !ok, c == '\n', !escape && !quotes && (c == '{' || c == '}' || c == '#' || c == ' ' || c == '\t'):
			return l.token(word, plain, empty), nil
		case c == 0:
			return false, l.errorf("unallowed character NUL in column %d", l.at-l.bol+1)
		}
		l.at++
		switch {
		case c == '\\' && !escape:
			escape = true
			continue
		case c == '"' && !escape:
			plain, empty = false, true
			if quotes = !quotes; quotes {
				column = l.at - l.bol
			}
			continue
		}
		escape = false
		if word = append(word, c); len(word) > maxWord {
			return false, l.errorf("too long line")
		}
	}
}

// token makes a word the token. A word without a byte is one if it has quotes.
func (l *lexer) token(word []byte, plain, empty bool) bool {
	if len(word) == 0 && !empty {
		return false
	}
	l.kind, l.value = text, string(word)
	if plain && slices.Contains(keywords, l.value) {
		l.kind = reserved
	}
	return true
}
