package krl

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"p9auth/internal/sshkey"
)

// Section types of PROTOCOL.krl.
const (
	secCertificates = 1
	secExplicitKey  = 2
	secSHA1         = 3
	secSignature    = 4
	secSHA256       = 5
	secExtension    = 255

	certSerialList   = 0x20
	certSerialRange  = 0x21
	certSerialBitmap = 0x22
	certKeyID        = 0x23
	certExtension    = 0x39
)

// binary parses a KRL after its magic number.
func (l *List) binary(r *reader) error {
	if v := r.U32(); r.Bad || v != 1 {
		return fmt.Errorf("unsupported format version %d", v)
	}
	l.Version = r.U64()
	generated := r.U64()
	r.U64() // flags, of which there are none
	r.Str() // reserved
	l.Comment = string(r.Str())
	if r.Bad {
		return errShort
	}
	l.Generated = time.Unix(int64(min(generated, 1<<40)), 0)
	for len(r.Rest) > 0 {
		typ := r.U8()
		s := newReader(r.Str())
		if r.Bad {
			return errShort
		}
		var err error
		switch typ {
		case secCertificates:
			err = l.certificates(s)
		case secExplicitKey:
			err = s.each(func(v []byte) error {
				v, err := canonical(v)
				l.keys[string(v)] = true
				return err
			})
		case secSHA1:
			err = l.addHashes(s, sha1.Size)
		case secSHA256:
			err = l.addHashes(s, sha256.Size)
		case secExtension:
			err = s.extension()
		case secSignature:
			err = errors.New("signatures are not supported")
		default:
			err = errors.New("unknown section")
		}
		if err == nil && len(s.Rest) > 0 {
			err = errors.New("data left over")
		}
		if err != nil {
			return fmt.Errorf("section %d: %w", typ, err)
		}
	}
	return nil
}

func (l *List) addHashes(r *reader, size int) error {
	return r.each(func(v []byte) error {
		if len(v) != size {
			return errors.New("hash of the wrong length")
		}
		l.hashes[string(v)] = true
		return nil
	})
}

func (l *List) certificates(r *reader) error {
	ca := r.Str()
	r.Str() // reserved
	if r.Bad {
		return errShort
	}
	if len(ca) > 0 {
		k, err := sshkey.Parse(ca)
		if err != nil {
			return fmt.Errorf("CA key: %w", err)
		}
		ca = k.Blob
	}
	c := l.certs[string(ca)]
	if c == nil {
		c = &certs{ids: map[string]bool{}}
		l.certs[string(ca)] = c
	}
	for len(r.Rest) > 0 {
		typ := r.U8()
		s := newReader(r.Str())
		if r.Bad {
			return errShort
		}
		var err error
		switch typ {
		case certSerialList:
			for len(s.Rest) > 0 && !s.Bad {
				n := s.U64()
				c.ranges = append(c.ranges, serials{n, n})
			}
		case certSerialRange:
			x := serials{s.U64(), s.U64()}
			if x.lo > x.hi {
				err = errors.New("range ends before it begins")
			}
			c.ranges = append(c.ranges, x)
		case certSerialBitmap:
			m := bitmap{s.U64(), s.Str()}
			if len(m.big) > 0 && m.big[0]&0x80 != 0 {
				err = errors.New("bitmap is negative")
			}
			m.big = bytes.TrimLeft(m.big, "\x00")
			if n := m.len(); n > 0 && m.offset+(n-1) < m.offset {
				err = errors.New("bitmap runs over the last serial number")
			}
			c.bitmaps = append(c.bitmaps, m)
		case certKeyID:
			err = s.each(func(v []byte) error {
				if bytes.IndexByte(v, 0) >= 0 {
					return errors.New("key ID with a NUL byte")
				}
				c.ids[string(v)] = true
				return nil
			})
		case certExtension:
			err = s.extension()
		default:
			err = errors.New("unknown section")
		}
		if err == nil && s.Bad {
			err = errShort
		}
		if err == nil && len(s.Rest) > 0 {
			err = errors.New("data left over")
		}
		if err != nil {
			return fmt.Errorf("certificate section %#x: %w", typ, err)
		}
	}
	return nil
}
