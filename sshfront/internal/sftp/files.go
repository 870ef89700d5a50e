package sftp

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/internal/words"
)

// open answers SSH_FXP_OPEN.
func (s *Server) open(id uint32, f *fields) error {
	name, pflags, a := f.text(), f.u32(), f.attrs()
	if f.err != nil {
		return nil
	}
	mode := uint32(0o666)
	if a.flags&attrPerm != 0 {
		mode = a.perm
	}
	flags := openFlags(pflags)
	if s.log.on(info) {
		s.log.printf(debug3, "request %d: open flags %d", id, int32(pflags))
		s.log.printf(info, "open \"%s\" flags %s mode 0%o", name, flagNames(pflags), mode)
	}
	if s.opt.readOnly && (flags&unix.O_ACCMODE != unix.O_RDONLY || flags&(unix.O_CREAT|unix.O_TRUNC) != 0) {
		s.log.printf(verbose, "Refusing open request in read-only mode")
		s.status(id, statusPermissionDenied)
		return nil
	}
	fd, err := open(name, flags, mode)
	if err != nil {
		s.result(id, err)
		return nil
	}
	s.handleReply(id, s.handles.add(handle{kind: file, fd: fd, flags: flags, name: name}))
	return nil
}

// open opens a file. The wait for the other end of a FIFO may be interrupted.
func open(name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// openFlags are the flags of open(2) for those of the protocol.
func openFlags(p uint32) int {
	flags := unix.O_RDONLY
	switch p & (openRead | openWrite) {
	case openRead | openWrite:
		flags = unix.O_RDWR
	case openWrite:
		flags = unix.O_WRONLY
	}
	if p&openAppend != 0 {
		flags |= unix.O_APPEND
	}
	if p&openCreate != 0 {
		flags |= unix.O_CREAT
	}
	if p&openTrunc != 0 {
		flags |= unix.O_TRUNC
	}
	if p&openExcl != 0 {
		flags |= unix.O_EXCL
	}
	return flags
}

func flagNames(p uint32) string {
	var l []string
	for i, name := range []string{"READ", "WRITE", "APPEND", "CREATE", "TRUNCATE", "EXCL"} {
		if p&(1<<i) != 0 {
			l = append(l, name)
		}
	}
	return strings.Join(l, ",")
}

// close answers SSH_FXP_CLOSE.
func (s *Server) close(id uint32, f *fields) error {
	i := s.handle(f)
	if f.err != nil {
		return nil
	}
	if s.log.on(info) {
		s.log.printf(debug3, "request %d: close handle %d", id, uint32(i))
		s.handles.logClose(&s.log, i, "")
	}
	s.result(id, s.handles.close(i))
	return nil
}

// read answers SSH_FXP_READ. The kernel puts the data where the reply has it.
func (s *Server) read(id uint32, f *fields) error {
	i, off, n := s.handle(f), f.u64(), f.u32()
	if f.err != nil {
		return nil
	}
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: read \"%s\" (handle %d) off %d len %d", id, s.handles.name(i), i, off, n)
	}
	h := s.handles.file(i)
	if h == nil {
		s.status(id, statusFailure)
		return nil
	}
	if n > maxData {
		s.log.printf(debug2, "read change len %d to %d", n, maxData)
		n = maxData
	}
	s.begin(typeData, id)
	at := len(s.out) + 4
	s.out = grow(s.out, 4+int(n))
	got, err := readAt(h.fd, s.out[at:], int64(off))
	if err != nil || got == 0 && n > 0 {
		s.out = s.out[:s.mark]
		if err == nil {
			s.status(id, statusEOF)
			return nil
		}
		s.complain("process_read", h, err)
		s.result(id, err)
		return nil
	}
	s.out = s.out[:at-4]
	s.putU32(uint32(got))
	s.out = s.out[:at+got]
	s.end()
	h.read += uint64(got)
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: sent data len %d", id, got)
	}
	return nil
}

// grow makes a slice n bytes longer. It leaves in them what was there.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		b = append(make([]byte, 0, 2*len(b)+n), b...)
	}
	return b[:len(b)+n]
}

// A seekError is an error of lseek(2) rather than of read(2) or write(2).
type seekError struct{ unix.Errno }

func (e seekError) Unwrap() error { return e.Errno }

func seek(fd int, off int64) error {
	if _, err := unix.Seek(fd, off, unix.SEEK_SET); err != nil {
		return seekError{err.(unix.Errno)}
	}
	return nil
}

// readAt reads as lseek(2) and read(2) would, in one call where it can. Where
// pread(2) fails or is at an end, lseek may have another opinion: of an offset
// that no file can have, say.
func readAt(fd int, b []byte, off int64) (int, error) {
	if len(b) == 0 {
		return 0, seek(fd, off)
	}
	for {
		n, err := pread(fd, b, off)
		if err == unix.EINTR {
			continue
		}
		if n > 0 {
			return n, nil
		}
		if serr := seek(fd, off); serr != nil || err == nil {
			return 0, serr
		}
		n, err = unix.Read(fd, b)
		return max(n, 0), err
	}
}

// complain logs that a read or a write failed.
func (s *Server) complain(where string, h *handle, err error) {
	if !s.log.on(failed) {
		return
	}
	what := strings.TrimPrefix(where, "process_")
	if se, ok := err.(seekError); ok {
		what, err = "seek", se.Errno
	}
	s.log.printf(failed, "%s: %s \"%.100s\": %s", where, what, h.name, words.Error(err))
}

// write answers SSH_FXP_WRITE. The kernel takes the data from where the
// request has it.
func (s *Server) write(id uint32, f *fields) error {
	i, off, data := s.handle(f), f.u64(), f.bytes()
	if f.err != nil {
		return nil
	}
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: write \"%s\" (handle %d) off %d len %d", id, s.handles.name(i), i, off, len(data))
	}
	h := s.handles.file(i)
	if h == nil {
		s.status(id, statusFailure)
		return nil
	}
	n, err := h.writeAt(data, int64(off))
	switch {
	case err != nil:
		s.complain("process_write", h, err)
		s.result(id, err)
	case n != len(data):
		s.log.printf(debug2, "process_write: nothing at all written")
		s.status(id, statusFailure)
	default:
		h.written += uint64(n)
		s.status(id, statusOK)
	}
	return nil
}

// writeAt writes as lseek(2) and write(2) would, in one call where it can.
// There is no lseek for a file that is appended to.
func (h *handle) writeAt(b []byte, off int64) (int, error) {
	for len(b) > 0 && h.flags&unix.O_APPEND == 0 {
		n, err := pwrite(h.fd, b, off)
		if err == nil {
			return n, nil
		}
		if err != unix.EINTR {
			break // nothing is written; see what they say
		}
	}
	if h.flags&unix.O_APPEND == 0 {
		if err := seek(h.fd, off); err != nil {
			return 0, err
		}
	}
	for {
		n, err := unix.Write(h.fd, b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// lstat and stat answer SSH_FXP_LSTAT and SSH_FXP_STAT.
func (s *Server) lstat(id uint32, f *fields) error { return s.statName(id, f, "l", unix.Lstat) }
func (s *Server) stat(id uint32, f *fields) error  { return s.statName(id, f, "", unix.Stat) }

func (s *Server) statName(id uint32, f *fields, l string, stat func(string, *unix.Stat_t) error) error {
	name := f.text()
	if f.err != nil {
		return nil
	}
	if s.log.on(verbose) {
		s.log.printf(debug3, "request %d: %sstat", id, l)
		s.log.printf(verbose, "%sstat name \"%s\"", l, name)
	}
	if err := stat(name, &s.st); err != nil {
		s.result(id, err)
		return nil
	}
	s.attrsReply(id, &s.st)
	return nil
}

// fstat answers SSH_FXP_FSTAT.
func (s *Server) fstat(id uint32, f *fields) error {
	i := s.handle(f)
	if f.err != nil {
		return nil
	}
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: fstat \"%s\" (handle %d)", id, s.handles.name(i), uint32(i))
	}
	h := s.handles.file(i)
	if h == nil {
		s.status(id, statusFailure)
		return nil
	}
	if err := unix.Fstat(h.fd, &s.st); err != nil {
		s.result(id, err)
		return nil
	}
	s.attrsReply(id, &s.st)
	return nil
}

// setters are the system calls that set attributes of one file.
type setters struct {
	size  func(int64) error
	perm  func(uint32) error
	times func([2]unix.Timespec) error
	owner func(uid, gid int) error
}

// set sets attributes, all that it can. It returns the last error.
func (s *Server) set(name string, a attrs, set setters) error {
	var last error
	keep := func(err error) {
		if err != nil {
			last = err
		}
	}
	if a.flags&attrSize != 0 {
		s.log.printf(info, "set \"%s\" size %d", name, a.size)
		keep(set.size(int64(a.size)))
	}
	if a.flags&attrPerm != 0 {
		s.log.printf(info, "set \"%s\" mode %04o", name, a.perm)
		keep(set.perm(a.perm & 0o7777))
	}
	if a.flags&attrTimes != 0 {
		if s.log.on(info) {
			s.log.printf(info, "set \"%s\" modtime %s", name, time.Unix(int64(a.mtime), 0).Format("20060102-15:04:05"))
		}
		keep(set.times([2]unix.Timespec{{Sec: int64(a.atime)}, {Sec: int64(a.mtime)}}))
	}
	if a.flags&attrUIDGID != 0 {
		s.log.printf(info, "set \"%s\" owner %d group %d", name, a.uid, a.gid)
		keep(set.owner(int(int32(a.uid)), int(int32(a.gid))))
	}
	return last
}

// setstat answers SSH_FXP_SETSTAT.
func (s *Server) setstat(id uint32, f *fields) error {
	name, a := f.text(), f.attrs()
	if f.err != nil {
		return nil
	}
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: setstat name \"%s\"", id, name)
	}
	s.result(id, s.set(name, a, setters{
		size:  func(n int64) error { return unix.Truncate(name, n) },
		perm:  func(m uint32) error { return unix.Chmod(name, m) },
		times: func(t [2]unix.Timespec) error { return unix.UtimesNanoAt(unix.AT_FDCWD, name, t[:], 0) },
		owner: func(uid, gid int) error { return unix.Chown(name, uid, gid) },
	}))
	return nil
}

// fsetstat answers SSH_FXP_FSETSTAT.
func (s *Server) fsetstat(id uint32, f *fields) error {
	i, a := s.handle(f), f.attrs()
	if f.err != nil {
		return nil
	}
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: fsetstat handle %d", id, i)
	}
	h := s.handles.file(i)
	if h == nil {
		s.status(id, statusFailure)
		return nil
	}
	s.result(id, s.set(h.name, a, setters{
		size:  func(n int64) error { return unix.Ftruncate(h.fd, n) },
		perm:  func(m uint32) error { return unix.Fchmod(h.fd, m) },
		times: func(t [2]unix.Timespec) error { return futimens(h.fd, &t) },
		owner: func(uid, gid int) error { return unix.Fchown(h.fd, uid, gid) },
	}))
	return nil
}

// lsetstat answers lsetstat@openssh.com: setstat of a link itself.
func (s *Server) lsetstat(id uint32, f *fields) error {
	name, a := f.text(), f.attrs()
	if f.err != nil {
		return nil
	}
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: lsetstat name \"%s\"", id, name)
	}
	if a.flags&attrSize != 0 {
		s.status(id, statusBadMessage)
		return nil
	}
	s.result(id, s.set(name, a, setters{
		perm: func(m uint32) error { return lchmod(name, m) },
		times: func(t [2]unix.Timespec) error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, name, t[:], unix.AT_SYMLINK_NOFOLLOW)
		},
		owner: func(uid, gid int) error { return unix.Lchown(name, uid, gid) },
	}))
	return nil
}
