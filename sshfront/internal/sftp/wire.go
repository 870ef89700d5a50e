package sftp

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Types of packets: draft-ietf-secsh-filexfer-02, section 3.
const (
	typeInit     = 1
	typeVersion  = 2
	typeOpen     = 3
	typeClose    = 4
	typeRead     = 5
	typeWrite    = 6
	typeLstat    = 7
	typeFstat    = 8
	typeSetstat  = 9
	typeFsetstat = 10
	typeOpendir  = 11
	typeReaddir  = 12
	typeRemove   = 13
	typeMkdir    = 14
	typeRmdir    = 15
	typeRealpath = 16
	typeStat     = 17
	typeRename   = 18
	typeReadlink = 19
	typeSymlink  = 20

	typeStatus        = 101
	typeHandle        = 102
	typeData          = 103
	typeName          = 104
	typeAttrs         = 105
	typeExtended      = 200
	typeExtendedReply = 201
)

// Status codes: section 7.
const (
	statusOK               = 0
	statusEOF              = 1
	statusNoSuchFile       = 2
	statusPermissionDenied = 3
	statusFailure          = 4
	statusBadMessage       = 5
	statusUnsupported      = 8
)

// statusTexts are OpenSSH's texts, by code.
var statusTexts = [...]string{
	"Success", "End of file", "No such file", "Permission denied", "Failure", "Bad message", "No connection", "Connection lost", "Operation unsupported",
}

// Flags of open: section 6.3.
const (
	openRead   = 0x01
	openWrite  = 0x02
	openAppend = 0x04
	openCreate = 0x08
	openTrunc  = 0x10
	openExcl   = 0x20
)

// Flags of attributes: section 5.
const (
	attrSize     = 0x00000001
	attrUIDGID   = 0x00000002
	attrPerm     = 0x00000004
	attrTimes    = 0x00000008
	attrExtended = 0x80000000
)

const (
	protocolVersion = 3
	maxPacket       = 256 << 10        // bytes after the length, as in sftp-common.h
	maxData         = maxPacket - 1024 // bytes that one read or write carries
	maxAttrs        = 0x100000         // extended attributes in one packet, as in sftp-common.c
	pathMax         = 4096             // PATH_MAX, with the NUL
)

// What can be wrong with a packet, in the words of OpenSSH's ssherr.c.
var (
	errIncomplete = errors.New("incomplete message")
	errFormat     = errors.New("invalid format")
	errTooLarge   = errors.New("string is too large")
)

// fields takes a packet apart. After the first mistake it returns zero values,
// and err says what was wrong.
type fields struct {
	b   []byte
	err error
	log *logger // or nil
}

func (f *fields) take(n int) []byte {
	if f.err == nil && len(f.b) < n {
		f.err = errIncomplete
	}
	if f.err != nil {
		return nil
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

func (f *fields) u32() uint32 {
	if b := f.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (f *fields) u64() uint64 {
	if b := f.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// bytes returns a string of the packet, which is valid until the next packet.
func (f *fields) bytes() []byte {
	n := f.u32()
	if f.err == nil && n > 0x8000000-4 {
		f.err = errTooLarge
	}
	if f.err != nil {
		return nil
	}
	return f.take(int(n))
}

// text returns a string without NUL. One NUL at its end is left out, as
// OpenSSH does.
func (f *fields) text() string {
	b := f.bytes()
	if i := bytes.IndexByte(b, 0); i >= 0 {
		if i < len(b)-1 {
			f.err = errFormat
			return ""
		}
		b = b[:i]
	}
	return string(b)
}

// attrs are attributes that a client sends.
type attrs struct {
	flags        uint32
	size         uint64
	uid, gid     uint32
	perm         uint32
	atime, mtime uint32 // seconds since 1970
}

func (f *fields) attrs() attrs {
	a := attrs{flags: f.u32()}
	if a.flags&attrSize != 0 {
		a.size = f.u64()
	}
	if a.flags&attrUIDGID != 0 {
		a.uid, a.gid = f.u32(), f.u32()
	}
	if a.flags&attrPerm != 0 {
		a.perm = f.u32()
	}
	if a.flags&attrTimes != 0 {
		a.atime, a.mtime = f.u32(), f.u32()
	}
	if a.flags&attrExtended != 0 {
		n := f.u32()
		if n > maxAttrs {
			f.err = errFormat
		}
		for ; n > 0 && f.err == nil; n-- {
			name, value := f.text(), f.bytes()
			if f.err == nil && f.log != nil && f.log.on(debug3) {
				f.log.printf(debug3, "Got file attribute \"%.100s\" len %d", name, len(value))
			}
		}
	}
	return a
}

// begin begins a reply in s.out; end completes it.
func (s *Server) begin(typ byte, id uint32) {
	s.mark = len(s.out)
	s.out = append(s.out, 0, 0, 0, 0, typ)
	s.out = binary.BigEndian.AppendUint32(s.out, id)
}

func (s *Server) end() {
	binary.BigEndian.PutUint32(s.out[s.mark:], uint32(len(s.out)-s.mark-4))
}

func (s *Server) putU32(v uint32) { s.out = binary.BigEndian.AppendUint32(s.out, v) }
func (s *Server) putU64(v uint64) { s.out = binary.BigEndian.AppendUint64(s.out, v) }

func (s *Server) putString(v string) {
	s.putU32(uint32(len(v)))
	s.out = append(s.out, v...)
}

// putAttrs appends what a client gets to know of a file.
func (s *Server) putAttrs(st *unix.Stat_t) {
	s.putU32(attrSize | attrUIDGID | attrPerm | attrTimes)
	s.putU64(uint64(st.Size))
	s.putU32(st.Uid)
	s.putU32(st.Gid)
	s.putU32(st.Mode)
	s.putU32(uint32(st.Atim.Sec))
	s.putU32(uint32(st.Mtim.Sec))
}

// status answers a request with a code and its text.
func (s *Server) status(id, code uint32) { s.statusText(id, code, statusTexts[code]) }

func (s *Server) statusText(id, code uint32, text string) {
	if s.log.on(debug3) {
		s.log.printf(debug3, "request %d: sent status %d", id, code)
	}
	if s.log.level > verbose || code != statusOK && code != statusEOF && s.log.on(info) {
		s.log.printf(info, "sent status %s", statusTexts[code])
	}
	s.begin(typeStatus, id)
	s.putU32(code)
	// Earlier versions of the protocol have no text.
	if s.version >= 3 {
		s.putString(text)
		s.putString("")
	}
	s.end()
}

// result answers a request that was carried out, or that failed with an errno.
func (s *Server) result(id uint32, err error) { s.status(id, codeOf(err)) }

// codeOf is the status that OpenSSH sends for an error.
func codeOf(err error) uint32 {
	if err == nil {
		return statusOK
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return statusFailure
	}
	switch errno {
	case 0:
		return statusOK
	case unix.ENOENT, unix.ENOTDIR, unix.EBADF, unix.ELOOP:
		return statusNoSuchFile
	case unix.EPERM, unix.EACCES, unix.EFAULT:
		return statusPermissionDenied
	case unix.ENAMETOOLONG, unix.EINVAL:
		return statusBadMessage
	case unix.ENOSYS:
		return statusUnsupported
	}
	return statusFailure
}

// handleReply sends the handle i.
func (s *Server) handleReply(id uint32, i int) {
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: sent handle %d", id, i)
	}
	s.begin(typeHandle, id)
	s.putU32(4)
	s.putU32(uint32(i))
	s.end()
}

// nameReply sends one name without attributes.
func (s *Server) nameReply(id uint32, name string) {
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: sent names count 1", id)
	}
	s.begin(typeName, id)
	s.putU32(1)
	s.putString(name)
	s.putString(name)
	s.putU32(0)
	s.end()
}

// attrsReply sends the attributes in st.
func (s *Server) attrsReply(id uint32, st *unix.Stat_t) {
	if s.log.on(debug1) {
		s.log.printf(debug1, "request %d: sent attrib have 0x%x", id, attrSize|attrUIDGID|attrPerm|attrTimes)
	}
	s.begin(typeAttrs, id)
	s.putAttrs(st)
	s.end()
}
