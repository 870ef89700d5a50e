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

	Process

	// KeepLoginUID leaves the audit login uid as it is. The server obeys it; it is
	// no part of the binary form, which says what become does.
	KeepLoginUID bool

	// FDs are the descriptors that stay open, ascending. The first three are
	// 0, 1 and 2; those of the three that are closed are opened to /dev/null.
	FDs []uint32
}

// A Process is what PAM's session modules set of the process that they run in, and
// nobody but the user's own process can take on. Its zero value sets nothing.
type Process struct {
	// Context is the security context of the program and of the session keyring, "" for
	// the kernel's choice: see setexeccon(3).
	Context string

	// Keyring is the name of the session keyring to join, "" for a new one.
	Keyring string

	// Mounts is the mount namespace to enter, nil for the redeemer's. All paths are
	// those of that namespace.
	Mounts *Mounts

	// Inheritable and Ambient are capabilities by their numbers, see
	// capabilities(7). Those that are ambient are inheritable, too.
	Inheritable, Ambient uint64

	// TTYAudit has bit 0 if what is typed at terminals is audited, and bit 1 if
	// passwords are, too: see pam_tty_audit(8).
	TTYAudit uint32
}

// Mounts is a mount namespace: its file in /proc, and what fstat(2) says of it.
type Mounts struct {
	Path     string
	Dev, Ino uint64
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
	MaxContext = 4096  // bytes of a security context with its NUL
	MaxKeyring = 64    // bytes of a keyring's name with its NUL
	NumLimits  = 16    // the kernel's RLIM_NLIMITS
)

// The binary form is that of struct record in become.c: a header of fixed size,
// little endian, then the groups, the descriptors and the strings.
const (
	headerSize = 376
	magic      = "p9grant3"

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
	PTYs, TTYAudit   uint32
	RootDev, RootIno uint64
	Limit            [NumLimits]Limit
	TTYDev, TTYIno   uint64

	MountsDev, MountsIno uint64
	Inheritable, Ambient uint64
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
		mounts := ""
		if m := b.Mounts; m != nil {
			if m.Path == "" {
				return nil, errors.New("a mount namespace without a path")
			}
			mounts, h.MountsDev, h.MountsIno = m.Path, m.Dev, m.Ino
		}
		h.TTYAudit, h.Inheritable, h.Ambient = b.TTYAudit, b.Inheritable, b.Ambient
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
		for _, s := range slices.Concat([]string{root, b.Dir, b.Path, b.Context, b.Keyring, mounts}, b.Argv, b.Env) {
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
