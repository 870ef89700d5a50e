package krl

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"

	"p9auth/internal/words"
)

// maxLine bounds a line of a plain list, in bytes.
const maxLine = 64 << 10

// plain parses a list of keys, one on each line. A key of a type that is not
// known here is kept as it is: it can never be offered either.
func (l *List) plain(b []byte) error {
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, maxLine)
	n := 0
	for s.Scan() {
		n++
		line := strings.Trim(s.Text(), " \t\r")
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			return fmt.Errorf("line %d: not a public key", n)
		}
		blob, err := base64.StdEncoding.DecodeString(f[1])
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		r := newReader(blob)
		if typ := r.Str(); r.Bad || string(typ) != f[0] {
			return fmt.Errorf("line %d: the key is not of type %q", n, words.Clip(f[0], 64))
		}
		if blob, err = canonical(blob); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		l.keys[string(blob)] = true
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}
