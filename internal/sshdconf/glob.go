package sshdconf

import (
	"path/filepath"
	"slices"
	"strings"
)

// Glob returns the files that match a pattern, sorted, as OpenSSH's glob(3) does without
// flags: a wildcard does not stand for the dot at the beginning of a name, and '!'
// negates a bracket, not '^'. A pattern that is malformed is an error.
func Glob(pattern string) ([]string, error) {
	found, err := filepath.Glob(brackets(pattern))
	found = slices.DeleteFunc(found, func(name string) bool { return hidden(pattern, name) })
	slices.Sort(found)
	return found, err
}

// brackets writes "[!" in Go's way, which is "[^", and that as "[\^".
func brackets(pattern string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		b.WriteByte(pattern[i])
		switch {
		case i+1 == len(pattern):
		case pattern[i] == '\\':
			i++
			b.WriteByte(pattern[i])
		case pattern[i] == '[' && pattern[i+1] == '!':
			i++
			b.WriteByte('^')
		case pattern[i] == '[' && pattern[i+1] == '^':
			b.WriteByte('\\')
		}
	}
	return b.String()
}

// hidden reports whether a part of a name begins with a dot for which the pattern has
// a wildcard. The two are compared from the end, since Glob may shorten what is before.
func hidden(pattern, name string) bool {
	parts := func(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == '/' }) }
	p, n := parts(pattern), parts(name)
	for i := 1; i <= min(len(p), len(n)); i++ {
		if n[len(n)-i][0] == '.' && strings.TrimPrefix(p[len(p)-i], `\`)[0] != '.' {
			return true
		}
	}
	return false
}
