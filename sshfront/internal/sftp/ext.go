package sftp

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"p9auth/internal/words"
)

// Flags of statvfs@openssh.com: PROTOCOL, section 4.4.
const (
	vfsReadOnly = 1
	vfsNoSuid   = 2
)

// statvfs answers statvfs@openssh.com.
func (s *Server) statvfs(id uint32, f *fields) error {
	path := f.text()
	if f.err != nil {
		return nil
	}
	if s.log.on(info) {
		s.log.printf(debug3, "request %d: statvfs", id)
		s.log.printf(info, "statvfs \"%s\"", path)
	}
	var st unix.Statfs_t
	s.statvfsReply(id, &st, unix.Statfs(path, &st))
	return nil
}

// fstatvfs answers fstatvfs@openssh.com.
func (s *Server) fstatvfs(id uint32, f *fields) error {
	i := s.handle(f)
	if f.err != nil {
		return nil
	}
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: fstatvfs \"%s\" (handle %d)", id, s.handles.name(i), uint32(i))
	}
	h := s.handles.file(i)
	if h == nil {
		s.status(id, statusFailure)
		return nil
	}
	var st unix.Statfs_t
	s.statvfsReply(id, &st, unix.Fstatfs(h.fd, &st))
	return nil
}

func (s *Server) statvfsReply(id uint32, st *unix.Statfs_t, err error) {
	if err != nil {
		s.result(id, err)
		return
	}
	size := uint64(st.Frsize)
	if size == 0 {
		size = uint64(st.Bsize)
	}
	flags := uint64(0)
	if st.Flags&unix.ST_RDONLY != 0 {
		flags |= vfsReadOnly
	}
	if st.Flags&unix.ST_NOSUID != 0 {
		flags |= vfsNoSuid
	}
	s.begin(typeExtendedReply, id)
	s.putU64(uint64(st.Bsize))
	s.putU64(size)
	s.putU64(st.Blocks)
	s.putU64(st.Bfree)
	s.putU64(st.Bavail)
	s.putU64(st.Files)
	s.putU64(st.Ffree)
	s.putU64(st.Ffree) // statvfs(3) has no other number for ordinary users
	s.putU64(uint64(uint32(st.Fsid.Val[0])) | uint64(uint32(st.Fsid.Val[1]))<<32)
	s.putU64(flags)
	s.putU64(uint64(st.Namelen))
	s.end()
}

// fsync answers fsync@openssh.com.
func (s *Server) fsync(id uint32, f *fields) error {
	i := s.handle(f)
	if f.err != nil {
		return nil
	}
	if s.log.on(verbose) {
		s.log.printf(debug3, "request %d: fsync (handle %d)", id, uint32(i))
		s.log.printf(verbose, "fsync \"%s\"", s.handles.name(i))
	}
	h := s.handles.file(i)
	if h == nil {
		s.status(id, statusNoSuchFile)
		return nil
	}
	s.result(id, unix.Fsync(h.fd))
	return nil
}

// limits answers limits@openssh.com.
func (s *Server) limits(id uint32, f *fields) error {
	s.log.printf(debug1, "request %d: limits", id)
	files := uint64(0)
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil && l.Cur > 5 {
		files = l.Cur - 5 // for standard descriptors, syslog and one more
	}
	s.begin(typeExtendedReply, id)
	s.putU64(maxPacket)
	s.putU64(maxData)
	s.putU64(maxData)
	s.putU64(files)
	s.end()
	return nil
}

// copyChunk is how much copy-data copies in one go.
const copyChunk = 64 << 10

// copyData answers copy-data (draft-ietf-secsh-filexfer-extensions-00, section
// 7). A length of 0 is all up to the end. As with sftp-server, a length that
// goes beyond the end is an error only if all of the last 64 KiB of it does.
func (s *Server) copyData(id uint32, f *fields) error {
	from, fromOff, n := s.handle(f), f.u64(), f.u64()
	to, toOff := s.handle(f), f.u64()
	if f.err != nil {
		return nil
	}
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: copy-data from \"%s\" (handle %d) off %d len %d to \"%s\" (handle %d) off %d",
			id, s.handles.name(from), from, fromOff, n, s.handles.name(to), to, toOff)
	}
	r, w := s.handles.file(from), s.handles.file(to)
	if r == nil || w == nil || from == to || r.name == w.name {
		s.status(id, statusFailure)
		return nil
	}
	if err := seek(r.fd, int64(fromOff)); err != nil {
		s.log.printf(failed, "process_extended_copy_data: read_seek failed")
		s.result(id, err)
		return nil
	}
	if w.flags&unix.O_APPEND == 0 {
		if err := seek(w.fd, int64(toOff)); err != nil {
			s.log.printf(failed, "process_extended_copy_data: write_seek failed")
			s.result(id, err)
			return nil
		}
	}
	s.status(id, s.copy(r, w, n))
	return nil
}

// copy copies n bytes, or all if n is 0, and returns the status.
func (s *Server) copy(r, w *handle, n uint64) uint32 {
	all := n == 0
	if s.chunk == nil {
		s.chunk = make([]byte, copyChunk)
	}
	for all || n > 0 {
		b := s.chunk
		if !all {
			b = b[:min(n, copyChunk)]
			n -= uint64(len(b))
		}
		got, err := readFull(r.fd, b)
		switch {
		case err != nil:
			s.log.printf(failed, "process_extended_copy_data: read failed: %s", words.Error(err))
			return codeOf(err)
		case got == 0 && (all || n == 0):
			return statusOK
		case got == 0:
			return statusEOF
		}
		r.read += uint64(got)
		if put, err := writeFull(w.fd, b[:got]); err != nil {
			s.log.printf(failed, "process_extended_copy_data: write failed: %d != %d: %s", put, got, words.Error(err))
			return codeOf(err)
		}
		w.written += uint64(got)
	}
	return statusOK
}

// readFull reads until b is full or nothing is left. What was read before an
// error is lost, as by sftp-server.
func readFull(fd int, b []byte) (int, error) {
	got := 0
	for got < len(b) {
		n, err := unix.Read(fd, b[got:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
		got += n
	}
	return got, nil
}

// writeFull writes all of b. After an error it says 0, as sftp-server does.
func writeFull(fd int, b []byte) (int, error) {
	put := 0
	for put < len(b) {
		n, err := unix.Write(fd, b[put:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return put, unix.EPIPE
		}
		put += n
	}
	return put, nil
}

// usersGroups answers users-groups-by-id@openssh.com. An id without a name
// gets an empty one.
func (s *Server) usersGroups(id uint32, f *fields) error {
	users, groups := fields{b: f.bytes()}, fields{b: f.bytes()}
	if f.err != nil {
		return nil
	}
	if s.log.on(debug1) {
		s.log.printf(debug1, "process_extended_get_users_groups_by_id: uids len = %d, gids len = %d", len(users.b), len(groups.b))
	}
	nusers, ngroups := len(users.b)/4, len(groups.b)/4
	s.begin(typeExtendedReply, id)
	for _, l := range []struct {
		ids  *fields
		what string
		name func(uint32) string
	}{{&users, "uid", s.names.userName}, {&groups, "gid", s.names.groupName}} {
		start := len(s.out)
		s.putU32(0)
		for len(l.ids.b) > 0 {
			n := l.ids.u32()
			if l.ids.err != nil {
				s.out = s.out[:s.mark]
				return broken("process_extended_get_users_groups_by_id: parse inner "+l.what, l.ids.err)
			}
			name := l.name(n)
			if s.log.on(debug3) {
				s.log.printf(debug3, "process_extended_get_users_groups_by_id: %s %d => \"%s\"", l.what, n, name)
			}
			s.putString(name)
		}
		binary.BigEndian.PutUint32(s.out[start:], uint32(len(s.out)-start-4))
	}
	s.end()
	s.log.printf(verbose, "users-groups-by-id: %d users, %d groups", nusers, ngroups)
	return nil
}
