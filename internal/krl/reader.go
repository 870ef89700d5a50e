package krl

import (
	"errors"
	"fmt"

	"p9auth/internal/sshkey"
)

var errShort = errors.New("truncated")

// A reader reads the parts of a KRL.
type reader struct{ sshkey.Reader }

func newReader(b []byte) *reader { return &reader{sshkey.Reader{Rest: b}} }

// each calls f for the strings that make up the rest, of which there must be
// one.
func (r *reader) each(f func([]byte) error) error {
	if len(r.Rest) == 0 {
		return errors.New("empty section")
	}
	for len(r.Rest) > 0 {
		v := r.Str()
		if r.Bad {
			return errShort
		}
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

// extension reads an extension; none is known, so a critical one is an error.
func (r *reader) extension() error {
	name := r.Str()
	critical := r.U8()
	r.Str()
	switch {
	case r.Bad:
		return errShort
	case critical != 0:
		return fmt.Errorf("unsupported critical extension %.64q", name)
	}
	return nil
}
