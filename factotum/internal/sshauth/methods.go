package sshauth

import (
	"slices"
	"strings"
)

// Methods of RFC 4252, RFC 4256 and RFC 4462 that prove a user. "none" proves nothing.
const (
	PublicKey   = "publickey"
	Password    = "password"
	Interactive = "keyboard-interactive"
	GSSAPI      = "gssapi-with-mic" // RFC 4462, section 3
	None        = "none"
)

// Known returns the method, or None for a name that is not of one that proves a
// user: a log must not have whatever a stranger calls a method.
func Known(method string) string {
	switch method {
	case Password, PublicKey, Interactive, GSSAPI:
		return method
	}
	return None
}

// Methods says which proofs may come next, by what is enabled and by
// AuthenticationMethods of sshd_config(5).
type Methods struct {
	enabled []string
	left    [][]string // what each alternative still asks for; nil: any one method does
	done    []string
}

// NewMethods takes the methods that the settings enable, and the alternatives of
// AuthenticationMethods, each a list to complete in order; nil means that any
// one method does.
func NewMethods(enabled []string, alternatives [][]string) Methods {
	return Methods{enabled: enabled, left: alternatives}
}

// plain is a method of AuthenticationMethods without its device, as
// "keyboard-interactive" of "keyboard-interactive:pam".
func plain(m string) string {
	m, _, _ = strings.Cut(m, ":")
	return m
}

// MayTry reports whether a method is enabled and comes next in one of the
// alternatives.
func (m *Methods) MayTry(method string) bool {
	return slices.Contains(m.enabled, method) && (m.left == nil || slices.ContainsFunc(m.left, func(list []string) bool {
		return len(list) > 0 && plain(list[0]) == method
	}))
}

// Next is what may be tried now, in sshd's order. It is never nil.
func (m *Methods) Next() []string {
	next := []string{}
	for _, method := range []string{PublicKey, GSSAPI, Password, Interactive} {
		if m.MayTry(method) {
			next = append(next, method)
		}
	}
	return next
}

// Complete takes a method that has proven the user off the alternatives. It
// reports whether one of them is done, and with it the authentication.
func (m *Methods) Complete(method string) (done bool) {
	m.done = append(m.done, method)
	if m.left == nil {
		return true
	}
	left := make([][]string, len(m.left)) // the settings' own lists are shared
	for i, list := range m.left {
		left[i] = list
		if len(list) > 0 && plain(list[0]) == method {
			left[i] = list[1:]
			done = done || len(left[i]) == 0
		}
	}
	m.left = left
	return done
}

// Done is the methods that were completed, in order.
func (m *Methods) Done() []string { return m.done }
