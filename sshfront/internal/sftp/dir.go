package sftp

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxNames    = 100      // in one reply to readdir, as sftp-server sends
	entriesSize = 32 << 10 // of a buffer for getdents64(2)
	halfYear    = 365 * 24 * 60 * 60 / 2
)

// entries are the names of a directory that the kernel gave and no reply has
// had: b[at:end], as getdents64(2) writes them.
type entries struct {
	at, end int
	b       [entriesSize]byte
}

// opendir answers SSH_FXP_OPENDIR.
func (s *Server) opendir(id uint32, f *fields) error {
	path := f.text()
	if f.err != nil {
		return nil
	}
	if s.log.on(info) {
		s.log.printf(debug3, "request %d: opendir", id)
		s.log.printf(info, "opendir \"%s\"", path)
	}
	fd, err := open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_DIRECTORY, 0)
	if err != nil {
		s.result(id, err)
		return nil
	}
	s.handleReply(id, s.handles.add(handle{kind: directory, fd: fd, name: path}))
	return nil
}

// readdir answers SSH_FXP_READDIR: with at most a hundred names that can be
// looked at.
func (s *Server) readdir(id uint32, f *fields) error {
	i := s.handle(f)
	if f.err != nil {
		return nil
	}
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: readdir \"%s\" (handle %d)", id, s.handles.name(i), i)
	}
	h := s.handles.dir(i)
	if h == nil {
		s.status(id, statusFailure)
		return nil
	}
	if h.dir == nil {
		if n := len(s.handles.spare); n > 0 {
			h.dir, s.handles.spare = s.handles.spare[n-1], s.handles.spare[:n-1]
		} else {
			h.dir = new(entries)
		}
		h.dir.at, h.dir.end = 0, 0
	}
	s.begin(typeName, id)
	count := len(s.out)
	s.putU32(0)
	n := uint32(0)
	now := time.Now().Unix()
	for n < maxNames {
		name := h.dir.next(h.fd)
		if name == nil {
			break
		}
		if lstatAt(h.fd, name, &s.st) != nil {
			continue
		}
		name = name[:len(name)-1]
		s.putU32(uint32(len(name)))
		s.out = append(s.out, name...)
		long := len(s.out)
		s.putU32(0)
		s.out = s.appendLong(s.out, name, &s.st, now)
		binary.BigEndian.PutUint32(s.out[long:], uint32(len(s.out)-long-4))
		s.putAttrs(&s.st)
		n++
	}
	if n == 0 {
		s.out = s.out[:s.mark]
		s.status(id, statusEOF)
		return nil
	}
	binary.BigEndian.PutUint32(s.out[count:], n)
	s.end()
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: sent names count %d", id, n)
	}
	return nil
}

// next returns the next name, with NUL at its end, or nil. It is valid until
// the next call.
func (e *entries) next(fd int) []byte {
	for {
		if e.at == e.end {
			n, err := unix.Getdents(fd, e.b[:])
			if err != nil || n <= 0 {
				return nil
			}
			e.at, e.end = 0, n
		}
		// struct linux_dirent64: inode, offset, length of the record, type, name.
		const head = 8 + 8 + 2 + 1
		r := e.b[e.at:e.end]
		size := int(binary.NativeEndian.Uint16(r[16:]))
		e.at += size
		if binary.NativeEndian.Uint64(r) == 0 {
			continue // no file, as readdir(3)
		}
		r = r[head:size]
		return r[:bytes.IndexByte(r, 0)+1]
	}
}

// appendLong appends the line that "ls -l" would print, as sftp-server does. now
// is in seconds since 1970.
func (s *Server) appendLong(b, name []byte, st *unix.Stat_t, now int64) []byte {
	b = appendMode(b, st.Mode)
	b = append(b, ' ')
	b = appendRight(b, uint64(st.Nlink), 3)
	b = append(b, ' ')
	b = appendLeft(b, s.names.user(st.Uid), 8)
	b = append(b, ' ')
	b = appendLeft(b, s.names.group(st.Gid), 8)
	b = append(b, ' ')
	b = appendRight(b, uint64(st.Size), 8)
	b = append(b, ' ')
	b = appendDate(b, int64(st.Mtim.Sec), now)
	b = append(b, ' ')
	return append(b, name...)
}

// appendMode appends the eleven characters of strmode(3).
func appendMode(b []byte, mode uint32) []byte {
	t := byte('?')
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		t = 'd'
	case unix.S_IFCHR:
		t = 'c'
	case unix.S_IFBLK:
		t = 'b'
	case unix.S_IFREG:
		t = '-'
	case unix.S_IFLNK:
		t = 'l'
	case unix.S_IFSOCK:
		t = 's'
	case unix.S_IFIFO:
		t = 'p'
	}
	b = append(b, t)
	for i, special := range [...]struct {
		bit  uint32
		both byte // it and execute
		only byte
	}{{unix.S_ISUID, 's', 'S'}, {unix.S_ISGID, 's', 'S'}, {unix.S_ISVTX, 't', 'T'}} {
		m := mode >> (6 - 3*i)
		r, w, x := byte('-'), byte('-'), byte('-')
		if m&4 != 0 {
			r = 'r'
		}
		if m&2 != 0 {
			w = 'w'
		}
		switch {
		case m&1 != 0 && mode&special.bit != 0:
			x = special.both
		case mode&special.bit != 0:
			x = special.only
		case m&1 != 0:
			x = 'x'
		}
		b = append(b, r, w, x)
	}
	return append(b, ' ')
}

func appendRight(b []byte, v uint64, width int) []byte {
	var digits [20]byte
	d := strconv.AppendUint(digits[:0], v, 10)
	for n := len(d); n < width; n++ {
		b = append(b, ' ')
	}
	return append(b, d...)
}

func appendLeft(b []byte, v string, width int) []byte {
	b = append(b, v...)
	for n := len(v); n < width; n++ {
		b = append(b, ' ')
	}
	return b
}

// appendDate appends a time of modification: with the time of day if it was
// in the last half year, with the year otherwise. A year that does not fit is
// left out with the rest, as by sftp-server.
func appendDate(b []byte, mtime, now int64) []byte {
	const months = "JanFebMarAprMayJunJulAugSepOctNovDec"
	t := time.Unix(mtime, 0)
	year, month, day := t.Date()
	start := len(b)
	b = append(b, months[3*int(month)-3:3*int(month)]...)
	b = append(b, ' ')
	b = appendRight(b, uint64(day), 2)
	b = append(b, ' ')
	if now-halfYear < mtime && now >= mtime {
		hour, minute, _ := t.Clock()
		return append(b, byte('0'+hour/10), byte('0'+hour%10), ':', byte('0'+minute/10), byte('0'+minute%10))
	}
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(year), 10)
	if len(b)-start > 12 {
		b = b[:start]
	}
	return b
}
