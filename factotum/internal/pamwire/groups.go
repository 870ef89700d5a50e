package pamwire

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/sys"
)

// A message has no room for more than capproto.MaxGroups groups. Opened brings those
// beyond in a pipe, 4 bytes each, little-endian.

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536

// MoreGroups is the pipe that goes along with an Opened that has more groups than a
// message, with all of them in it. The caller closes it.
func (o Opened) MoreGroups() (*os.File, error) {
	var b []byte
	for _, g := range o.Groups[capproto.MaxGroups:] {
		b = binary.LittleEndian.AppendUint32(b, g)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if _, err = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, len(b)); err == nil {
		_, err = w.Write(b)
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("a pipe for %d groups: %w", len(o.Groups), err)
	}
	return r, nil
}

// withGroups adds the groups of the pipe, which it closes if there is no error.
func (o Opened) withGroups(f *os.File) (Event, error) {
	const most = 4 * (maxGroups - capproto.MaxGroups)
	b, err := sys.ReadAll(f, most)
	if err != nil {
		return nil, fmt.Errorf("%w: the pipe of groups: %w", ErrWire, err)
	}
	if len(o.Groups) != capproto.MaxGroups || len(b) == 0 || len(b) != 4*o.more {
		return nil, fmt.Errorf("%w: a pipe of %d bytes for %d groups beyond %d", ErrWire, len(b), o.more, len(o.Groups))
	}
	o.more = 0
	for ; len(b) > 0; b = b[4:] {
		g := binary.LittleEndian.Uint32(b)
		if g == capproto.NoID {
			return nil, fmt.Errorf("%w: a group that is nobody's", ErrWire)
		}
		o.Groups = append(o.Groups, g)
	}
	f.Close()
	return o, nil
}
