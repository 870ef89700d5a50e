// Package becomerecord is the record at the end of a one-time executable: what the
// capability file server tells become. It is written by factotum and read by
// become out of its own file, so nobody else's bytes are ever in it; reading
// is strict all the same. It imports almost nothing, to keep become small.
package becomerecord

import (
	"encoding/binary"
	"errors"
)

// A Record is the identity that become takes on.
type Record struct {
	UID      uint32
	Groups   []uint32 // the first is the primary group
	LoginUID bool     // become has the right to set the audit login uid
}

// The form, little endian: the groups and the fields, then a trailer of fixed
// size, so that it is found from the end of a file.
//
//	gid... | uid | flags | number of groups | magic
const (
	TrailerSize = 3*4 + 8
	MaxGroups   = 4096
	magic       = "p9grant1"
	flagLogin   = 1
)

var errRecord = errors.New("no grant record")

// Append appends the record to b.
func (r Record) Append(b []byte) []byte {
	le := binary.LittleEndian
	for _, g := range r.Groups {
		b = le.AppendUint32(b, g)
	}
	b = le.AppendUint32(b, r.UID)
	var flags uint32
	if r.LoginUID {
		flags |= flagLogin
	}
	b = le.AppendUint32(b, flags)
	b = le.AppendUint32(b, uint32(len(r.Groups)))
	return append(b, magic...)
}

// Size is the number of bytes of the record that ends in the trailer t.
func Size(t []byte) (int, error) {
	if len(t) != TrailerSize || string(t[12:]) != magic {
		return 0, errRecord
	}
	n := binary.LittleEndian.Uint32(t[8:])
	if n < 1 || n > MaxGroups {
		return 0, errRecord
	}
	return TrailerSize + 4*int(n), nil
}

// Parse reads a whole record.
func Parse(b []byte) (Record, error) {
	var r Record
	if len(b) < TrailerSize {
		return r, errRecord
	}
	t := b[len(b)-TrailerSize:]
	if n, err := Size(t); err != nil || n != len(b) {
		return r, errRecord
	}
	le := binary.LittleEndian
	flags := le.Uint32(t[4:])
	if flags&^flagLogin != 0 {
		return r, errRecord
	}
	r.UID = le.Uint32(t)
	r.LoginUID = flags&flagLogin != 0
	for b = b[:len(b)-TrailerSize]; len(b) > 0; b = b[4:] {
		r.Groups = append(r.Groups, le.Uint32(b))
	}
	return r, nil
}
