// Package becomerecord is the record of a grant: what the capability file
// server tells become (internal/become/become.c). It is part of the one-time
// executable that become is, so it comes from factotum alone. Both ends are
// strict all the same: Parse has the checks of become's check(), and a test
// holds the two to each other.
package becomerecord

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"p9auth/capproto"
)

// A Record says who become becomes and, if the grant is bound, what it
// executes.
type Record struct {
	From     uint32   // the uid that redeems the capability
	UID      uint32   // the uid to become: real, effective and saved
	Groups   []uint32 // 1 to MaxGroups; the first is the primary group
	LoginUID bool     // set the audit login uid, which takes cap_audit_control
	Bound    *Bound   // nil leaves it to the redeemer what is executed
}

// Bound is everything that a bound grant does. Nothing of it is the
// redeemer's choice.
type Bound struct {
	// Root is the directory to change root to, nil for none.
	Root *Root

	Dir  string   // absolute path of the directory to enter as the new user, inside the root; without a root, "" stays in the redeemer's
	Path string   // absolute path of the program, outside of the root; no script if there is one
	Argv []string // at least argv[0]
	Env  []string // NAME=VALUE

	Umask  uint32        // file mode mask, 0 to 0777
	Limits map[int]Limit // by RLIMIT_ constant of the kernel; others stay as they are

	// TTY is the terminal that descriptors 0, 1 and 2 must be, nil for anything.
	TTY *TTY

	// KeepLoginUID leaves the audit login uid as it is. The server obeys it; it is
	// no part of the binary form, which says what become does.
	KeepLoginUID bool

	// FDs are the descriptors that stay open, ascending. The first three are
	// 0, 1 and 2; those of the three that are closed are opened to /dev/null.
	FDs []uint32
}

// Root is a root directory. The caller has checked who can write where the path
// leads: become follows it again, and enters only the directory of which
// fstat(2) says Dev and Ino.
//
// become executes Path through a descriptor that it has opened before, and
// leaves that open for the program: it is the one after FDs, which must not have
// gaps then. After it come the masters of PTYs terminals of the user, fewer if
// there are not so many to be had.
type Root struct {
	Path     string
	Dev, Ino uint64
	PTYs     uint32 // 0 to MaxPTYs
}

// TTY is a terminal, by what fstat(2) says of its file in /dev.
type TTY struct{ Dev, Ino uint64 }

// A Limit is a resource limit, see getrlimit(2); ^uint64(0) is unlimited.
type Limit struct{ Soft, Hard uint64 }

// Bounds of a record.
const (
	MaxSize    = 1 << 20 // bytes in binary form
	MaxGroups  = 65536   // the kernel's NGROUPS_MAX
	MaxFDs     = 64
	MaxPTYs    = 16
	MaxStrings = 32768 // in Argv and Env together
	MaxPath    = 4096  // bytes of a path with its NUL, PATH_MAX
	NumLimits  = 16    // the kernel's RLIM_NLIMITS
)

// The binary form is that of struct record in become.c: a header of fixed size,
// little endian, then the groups, the descriptors and the strings.
const (
	headerSize = 344
	magic      = "p9grant2"

	flagBound    = 1
	flagLoginUID = 2
	flagRoot     = 4
	flagTTY      = 8
	flags        = 15

	noID = capproto.NoID
)

// header is struct record of become.c, as encoding/binary writes it.
type header struct {
	Magic            [8]byte
	Size, Flags      uint32
	From, UID        uint32
	NGroups, NFDs    uint32
	Umask, Limits    uint32
	Argc, Envc       uint32
	PTYs, Zero       uint32
	RootDev, RootIno uint64
	Limit            [NumLimits]Limit
	TTYDev, TTYIno   uint64
}

var errRecord = errors.New("not the record of a grant")

// Encode returns the binary form. The error says what is wrong with the record.
func (r Record) Encode() ([]byte, error) {
	h := header{From: r.From, UID: r.UID, NGroups: uint32(len(r.Groups))}
	copy(h.Magic[:], magic)
	if r.LoginUID {
		h.Flags |= flagLoginUID
	}
	var words []uint32
	var text []byte
	words = append(words, r.Groups...)
	if b := r.Bound; b != nil {
		h.Flags |= flagBound
		root := ""
		if d := b.Root; d != nil {
			h.Flags |= flagRoot
			root, h.RootDev, h.RootIno, h.PTYs = d.Path, d.Dev, d.Ino, d.PTYs
		}
		if t := b.TTY; t != nil {
			h.Flags |= flagTTY
			h.TTYDev, h.TTYIno = t.Dev, t.Ino
		}
		h.NFDs, h.Umask = uint32(len(b.FDs)), b.Umask
		h.Argc, h.Envc = uint32(len(b.Argv)), uint32(len(b.Env))
		for n, l := range b.Limits {
			if n < 0 || n >= NumLimits {
				return nil, fmt.Errorf("%d is not a resource", n)
			}
			h.Limits |= 1 << n
			h.Limit[n] = l
		}
		words = append(words, b.FDs...)
		for _, s := range slices.Concat([]string{root, b.Dir, b.Path}, b.Argv, b.Env) {
			if strings.IndexByte(s, 0) >= 0 {
				return nil, fmt.Errorf("%q: has a NUL", s)
			}
			text = append(append(text, s...), 0)
		}
	}
	size := headerSize + 4*len(words) + len(text)
	if size > MaxSize {
		return nil, fmt.Errorf("the record has %d bytes, at most %d", size, MaxSize)
	}
	h.Size = uint32(size)
	out, err := binary.Append(make([]byte, 0, size), binary.LittleEndian, h)
	if err != nil {
		return nil, err
	}
	for _, w := range words {
		out = binary.LittleEndian.AppendUint32(out, w)
	}
	out = append(out, text...)
	// What become would refuse must not be promised to anybody.
	if _, err := Parse(out); err != nil {
		return nil, err
	}
	return out, nil
}

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
	case string(h.Magic[:]) != magic, int(h.Size) != len(b), h.Flags&^flags != 0, h.Zero != 0:
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
		if h.Flags&^flagLoginUID != 0 || h.NFDs != 0 || h.Umask != 0 || h.Limits != 0 || h.Argc != 0 || h.Envc != 0 || len(text) != 0 {
			return Record{}, errRecord
		}
		return r, nil
	}
	bound := &Bound{Umask: h.Umask}
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
	b.Dir, b.Path = next(), next()
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
