package sftp

import (
	"golang.org/x/sys/unix"
)

// A handle is an open file or directory.
type handle struct {
	kind          kind
	fd            int
	flags         int // of open(2)
	name          string
	read, written uint64 // bytes
	dir           *entries
	next          int // the next free one, where kind is unused
}

type kind uint8

const (
	unused kind = iota
	file
	directory
)

// handles are the open handles. A client names one by its place, in four
// bytes. The place that was freed last is taken first, as by sftp-server; how
// many there may be the kernel says, by RLIMIT_NOFILE.
type handles struct {
	all  []handle
	free int // first free one, or -1
	// spare are buffers of directories that were closed.
	spare []*entries
}

// add takes a place.
func (hs *handles) add(h handle) int {
	if hs.free < 0 {
		hs.all = append(hs.all, handle{next: -1})
		hs.free = len(hs.all) - 1
	}
	i := hs.free
	hs.free = hs.all[i].next
	hs.all[i] = h
	return i
}

// handle returns the place that a client names, or -1 if nothing is open there.
func (s *Server) handle(f *fields) int {
	b := f.bytes()
	if len(b) != 4 {
		return -1
	}
	i := int32(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))
	if i < 0 || int(i) >= len(s.handles.all) || s.handles.all[i].kind == unused {
		return -1
	}
	return int(i)
}

// file returns the open file at a place, or nil.
func (hs *handles) file(i int) *handle {
	if i < 0 || hs.all[i].kind != file {
		return nil
	}
	return &hs.all[i]
}

// dir returns the open directory at a place, or nil.
func (hs *handles) dir(i int) *handle {
	if i < 0 || hs.all[i].kind != directory {
		return nil
	}
	return &hs.all[i]
}

// name is for lines of the log; where nothing is open it is what C's printf
// makes of no string.
func (hs *handles) name(i int) string {
	if i < 0 {
		return "(null)"
	}
	return hs.all[i].name
}

// close closes the handle at a place.
func (hs *handles) close(i int) error {
	if i < 0 {
		return unix.ENOENT
	}
	h := &hs.all[i]
	err := unix.Close(h.fd)
	if h.dir != nil && len(hs.spare) < 4 {
		hs.spare = append(hs.spare, h.dir)
	}
	*h = handle{next: hs.free}
	hs.free = i
	return err
}

// logClose logs that a handle is closed; how is "" or "forced ".
func (hs *handles) logClose(l *logger, i int, how string) {
	if !l.on(info) {
		return
	}
	if h := hs.file(i); h != nil {
		l.printf(info, "%sclose \"%s\" bytes read %d written %d", how, h.name, h.read, h.written)
	} else {
		l.printf(info, "%sclosedir \"%s\"", how, hs.name(i))
	}
}

// logAll logs the handles that the client left open.
func (hs *handles) logAll(l *logger) {
	for i := range hs.all {
		if hs.all[i].kind != unused {
			hs.logClose(l, i, "forced ")
		}
	}
}
