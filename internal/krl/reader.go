package krl

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var errShort = errors.New("truncated")

// reader takes the data types of RFC 4251, section 5, off a byte slice. After a
// short read bad is set and every value is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u32() uint32 {
	if v := r.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if v := r.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (r *reader) str() []byte { return r.take(uint64(r.u32())) }

// each calls f for the strings that make up the rest, of which there must be
// one.
func (r *reader) each(f func([]byte) error) error {
	if len(r.b) == 0 {
		return errors.New("empty section")
	}
	for len(r.b) > 0 {
		v := r.str()
		if r.bad {
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
	name := r.str()
	critical := r.u8()
	r.str()
	switch {
	case r.bad:
		return errShort
	case critical != 0:
		return fmt.Errorf("unsupported critical extension %.64q", name)
	}
	return nil
}
