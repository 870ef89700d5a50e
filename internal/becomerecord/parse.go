package becomerecord

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Parse reads the binary form. It accepts just what become does.
func Parse(b []byte) (Record, error) {
	var h header
	if len(b) < headerSize || len(b) > MaxSize {
		return Record{}, errRecord
	}
	if _, err := binary.Decode(b, binary.LittleEndian, &h); err != nil {
		return Record{}, err
	}
	switch {
	case string(h.Magic[:]) != magic, int(h.Size) != len(b), h.Flags&^flags != 0, h.TTYAudit > 3:
		return Record{}, errRecord
	case h.From == noID, h.UID == noID:
		return Record{}, fmt.Errorf("uid %d is nobody's", uint32(noID))
	case h.NGroups < 1, h.NGroups > MaxGroups:
		return Record{}, fmt.Errorf("%d groups: want 1 to %d", h.NGroups, MaxGroups)
	case h.NFDs > MaxFDs:
		return Record{}, fmt.Errorf("%d descriptors, at most %d", h.NFDs, MaxFDs)
	case h.Umask > 0o777:
		return Record{}, fmt.Errorf("umask %#o", h.Umask)
	case h.Limits>>NumLimits != 0:
		return Record{}, errRecord
	case h.Ambient&^h.Inheritable != 0:
		return Record{}, errors.New("a capability is ambient, but not inheritable")
	}
	for n, l := range h.Limit {
		if l.Soft > l.Hard {
			return Record{}, fmt.Errorf("resource limit %d is above its hard limit", n)
		}
		if h.Limits>>n&1 == 0 && l.Hard != 0 {
			return Record{}, errRecord
		}
	}
	if headerSize+4*(uint64(h.NGroups)+uint64(h.NFDs)) > uint64(len(b)) {
		return Record{}, errRecord
	}
	word := func(i uint32) uint32 { return binary.LittleEndian.Uint32(b[headerSize+4*i:]) }
	r := Record{From: h.From, UID: h.UID, LoginUID: h.Flags&flagLoginUID != 0}
	for i := range h.NGroups {
		if word(i) == noID {
			return Record{}, fmt.Errorf("gid %d is nobody's", uint32(noID))
		}
		r.Groups = append(r.Groups, word(i))
	}
	if h.Flags&flagRoot == 0 && (h.PTYs != 0 || h.RootDev != 0 || h.RootIno != 0) {
		return Record{}, errRecord
	}
	if h.Flags&flagTTY == 0 && (h.TTYDev != 0 || h.TTYIno != 0) {
		return Record{}, errRecord
	}
	text := b[headerSize+4*(h.NGroups+h.NFDs):]
	if h.Flags&flagBound == 0 {
		if h.Flags&^flagLoginUID != 0 || h.NFDs != 0 || h.Umask != 0 || h.Limits != 0 || h.Argc != 0 || h.Envc != 0 ||
			h.TTYAudit != 0 || h.MountsDev != 0 || h.MountsIno != 0 || h.Inheritable != 0 || len(text) != 0 {
			return Record{}, errRecord
		}
		return r, nil
	}
	bound := &Bound{Umask: h.Umask, Process: Process{TTYAudit: h.TTYAudit, Inheritable: h.Inheritable, Ambient: h.Ambient}}
	for i := range h.NFDs {
		bound.FDs = append(bound.FDs, word(h.NGroups+i))
	}
	for n, l := range h.Limit {
		if h.Limits>>n&1 != 0 {
			if bound.Limits == nil {
				bound.Limits = map[int]Limit{}
			}
			bound.Limits[n] = l
		}
	}
	if h.Flags&flagTTY != 0 {
		bound.TTY = &TTY{h.TTYDev, h.TTYIno}
	}
	if h.Flags&flagRoot != 0 {
		bound.Root = &Root{Dev: h.RootDev, Ino: h.RootIno, PTYs: h.PTYs}
	}
	if err := bound.parseText(&h, text); err != nil {
		return Record{}, err
	}
	if err := bound.check(); err != nil {
		return Record{}, err
	}
	r.Bound = bound
	return r, nil
}

// parseText reads the strings.
func (b *Bound) parseText(h *header, text []byte) error {
	if h.Argc < 1 || h.Argc > MaxStrings || h.Envc > MaxStrings-h.Argc {
		return fmt.Errorf("%d arguments and %d variables: want at least argv[0], and at most %d", h.Argc, h.Envc, MaxStrings)
	}
	rest := string(text)
	missing := false
	next := func() string {
		s, after, ok := strings.Cut(rest, "\x00")
		rest, missing = after, missing || !ok
		return s
	}
	root := next()
	b.Dir, b.Path, b.Context, b.Keyring = next(), next(), next(), next()
	mounts := next()
	for range h.Argc {
		b.Argv = append(b.Argv, next())
	}
	for range h.Envc {
		b.Env = append(b.Env, next())
	}
	if missing || rest != "" || b.Root == nil && root != "" {
		return errRecord
	}
	if b.Root != nil {
		b.Root.Path = root
	}
	if mounts != "" {
		b.Mounts = &Mounts{mounts, h.MountsDev, h.MountsIno}
	} else if h.MountsDev != 0 || h.MountsIno != 0 {
		return errRecord
	}
	return nil
}

// check holds the parts of a bound record to each other.
func (b *Bound) check() error {
	if len(b.FDs) < 3 || b.FDs[0] != 0 || b.FDs[1] != 1 || b.FDs[2] != 2 {
		return errors.New("the descriptors 0, 1 and 2 are not the first to stay open")
	}
	for i := 3; i < len(b.FDs); i++ {
		if b.FDs[i] <= b.FDs[i-1] || b.FDs[i] > 1<<31-1 {
			return fmt.Errorf("descriptor %d: out of order", b.FDs[i])
		}
	}
	paths := []string{b.Path}
	if b.Dir != "" || b.Root != nil {
		paths = append(paths, b.Dir)
	}
	if r := b.Root; r != nil {
		paths = append(paths, r.Path)
		if r.PTYs > MaxPTYs {
			return fmt.Errorf("%d terminals, at most %d", r.PTYs, MaxPTYs)
		}
		if n := len(b.FDs); b.FDs[n-1] != uint32(n-1) {
			return errors.New("with a root directory, the descriptors that stay open have no gaps")
		}
	}
	if b.Mounts != nil {
		paths = append(paths, b.Mounts.Path)
	}
	if !isWord(b.Context, MaxContext) || !isWord(b.Keyring, MaxKeyring) {
		return fmt.Errorf("%q, %q: want a security context and the name of a keyring", b.Context, b.Keyring)
	}
	for _, p := range paths {
		if !strings.HasPrefix(p, "/") || len(p) >= MaxPath {
			return fmt.Errorf("%q: want an absolute path of at most %d bytes", p, MaxPath-1)
		}
	}
	for _, kv := range b.Env {
		if strings.IndexByte(kv, '=') < 1 {
			return fmt.Errorf("%q: want NAME=VALUE", kv)
		}
	}
	return nil
}

// isWord says whether s is printable ASCII without blanks, or empty, and shorter than
// max.
func isWord(s string, max int) bool {
	return len(s) < max && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
