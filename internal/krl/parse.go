package krl

import (
	"bytes"
	"fmt"
	"io"

	"p9auth/internal/sys"
)

// MaxSize is the longest list that Read takes, in bytes.
const MaxSize = 16 << 20

// magic begins a KRL.
const magic = "SSHKRL\n\x00"

// Read reads a list of at most MaxSize bytes.
func Read(r io.Reader) (*List, error) {
	b, err := sys.ReadAll(r, MaxSize)
	if err != nil {
		return nil, err
	}
	return Parse(b)
}

// Parse parses a KRL, or a list of public keys with one on each line, "#"
// comments and empty lines. It keeps no reference to b.
func Parse(b []byte) (*List, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("revocation list is longer than %d bytes", MaxSize)
	}
	l := &List{
		keys:   map[string]bool{},
		hashes: map[string]bool{},
		certs:  map[string]*certs{},
	}
	if !bytes.HasPrefix(b, []byte(magic)) {
		return l, l.plain(b)
	}
	r := newReader(bytes.Clone(b[len(magic):]))
	if err := l.binary(r); err != nil {
		return nil, fmt.Errorf("KRL: %w", err)
	}
	for _, c := range l.certs {
		c.merge()
	}
	return l, nil
}
