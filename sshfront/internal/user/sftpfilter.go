package user

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// Types of packets: draft-ietf-secsh-filexfer-02, section 3.
const (
	fxpInit     = 1
	fxpOpen     = 3
	fxpStatus   = 101
	fxpExtended = 200

	fxPermissionDenied = 3

	maxSFTP = 256 << 10 // bytes of a packet
)

// fxp are the requests by type: the name that -P and -p of sftp-server(8) know
// them by, and with how many strings they begin that are worth a line in the
// log; 0: none is written.
var fxp = map[byte]struct {
	name string
	log  int
}{
	fxpOpen: {"open", 1}, 4: {"close", 0}, 5: {"read", 0}, 6: {"write", 0}, 7: {"lstat", 0}, 8: {"fstat", 0}, 9: {"setstat", 1},
	10: {"fsetstat", 0}, 11: {"opendir", 1}, 12: {"readdir", 0}, 13: {"remove", 1}, 14: {"mkdir", 1}, 15: {"rmdir", 1},
	16: {"realpath", 0}, 17: {"stat", 0}, 18: {"rename", 2}, 19: {"readlink", 0}, 20: {"symlink", 2},
}

// extended are the requests that PROTOCOL of OpenSSH adds and pkg/sftp knows.
var extended = map[string]struct {
	name string
	log  int
}{
	"posix-rename@openssh.com": {"posix-rename", 2}, "hardlink@openssh.com": {"hardlink", 2}, "statvfs@openssh.com": {"statvfs", 0},
}

// requestNames are the names that -P and -p take.
func requestNames() []string {
	var l []string
	for _, r := range fxp {
		l = append(l, r.name)
	}
	for _, r := range extended {
		l = append(l, r.name)
	}
	slices.Sort(l)
	return l
}

// An sftpFilter is what an SFTP server reads from and writes to: it answers
// requests that are not permitted itself, and writes lines about others.
type sftpFilter struct {
	permits func(name string) bool
	log     func(line string) // nil: none is written

	r    *bufio.Reader
	left int // of the packet that is being read

	mu    sync.Mutex // what follows is about writing
	w     io.WriteCloser
	head  []byte // of the packet that is being written, less than 4 bytes
	rest  int    // of it, after its length
	queue []byte // answers of ours, for when it is whole
}

func newSFTPFilter(r io.Reader, w io.WriteCloser, permits func(string) bool, log func(string)) *sftpFilter {
	return &sftpFilter{permits: permits, log: log, r: bufio.NewReaderSize(r, 32<<10), w: w}
}

var errSFTP = errors.New("the client sends what is no SFTP packet")

// Read reads packets that are permitted.
func (f *sftpFilter) Read(b []byte) (int, error) {
	for f.left == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n, err := f.r.Read(b[:min(len(b), f.left)])
	f.left -= n
	return n, err
}

// next looks at the next packet.
func (f *sftpFilter) next() error {
	h, err := f.r.Peek(5)
	if err != nil {
		if err == io.EOF && len(h) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	n := int(binary.BigEndian.Uint32(h))
	if n < 1 || n > maxSFTP {
		return errSFTP
	}
	typ := h[4]
	if typ == fxpInit {
		f.left = 4 + n
		return nil
	}
	// Names are at the beginning; of what is longer than the buffer there is
	// only data behind it.
	p, err := f.r.Peek(min(4+n, f.r.Size()))
	if err != nil || len(p) < 9 {
		return errSFTP
	}
	id, body := binary.BigEndian.Uint32(p[5:]), p[9:]
	r := fxp[typ]
	if typ == fxpExtended {
		var name string
		if name, body, err = cutString(body); err != nil {
			return err
		}
		// One that is unknown the server refuses.
		r = extended[name]
	}
	if r.name != "" && !f.permits(r.name) {
		if f.log != nil {
			f.log("Refusing " + r.name + " request")
		}
		if _, err := f.r.Discard(4 + n); err != nil {
			return err
		}
		return f.refuse(id)
	}
	if f.log != nil && r.log > 0 {
		line := r.name
		for range r.log {
			var s string
			if s, body, err = cutString(body); err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", s)
		}
		if typ == fxpOpen && len(body) >= 4 {
			line += " flags " + openFlags(binary.BigEndian.Uint32(body))
		}
		f.log(line)
	}
	f.left = 4 + n
	return nil
}

func cutString(b []byte) (string, []byte, error) {
	if len(b) < 4 {
		return "", nil, errSFTP
	}
	n := binary.BigEndian.Uint32(b)
	if int64(n) > int64(len(b)-4) {
		return "", nil, errSFTP
	}
	return string(b[4 : 4+n]), b[4+n:], nil
}

func openFlags(v uint32) string {
	var l []string
	for i, name := range []string{"READ", "WRITE", "APPEND", "CREATE", "TRUNCATE", "EXCL"} {
		if v&(1<<i) != 0 {
			l = append(l, name)
		}
	}
	return strings.Join(l, ",")
}

// refuse answers a request that is not permitted.
func (f *sftpFilter) refuse(id uint32) error {
	const text = "Permission denied"
	b := binary.BigEndian.AppendUint32(nil, uint32(1+4+4+4+len(text)+4))
	b = append(b, fxpStatus)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, fxPermissionDenied)
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = append(b, text...)
	b = binary.BigEndian.AppendUint32(b, 0) // language
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = append(f.queue, b...)
	return f.flush()
}

// flush writes answers of ours, if no packet is half written.
func (f *sftpFilter) flush() error {
	if f.rest > 0 || len(f.head) > 0 || len(f.queue) == 0 {
		return nil
	}
	_, err := f.w.Write(f.queue)
	f.queue = f.queue[:0]
	return err
}

// Write writes the server's packets, in whatever pieces.
func (f *sftpFilter) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.w.Write(b)
	if err != nil {
		return n, err
	}
	for p := b; len(p) > 0; {
		if f.rest == 0 {
			k := min(4-len(f.head), len(p))
			f.head, p = append(f.head, p[:k]...), p[k:]
			if len(f.head) == 4 {
				f.rest, f.head = int(binary.BigEndian.Uint32(f.head)), f.head[:0]
			}
			continue
		}
		k := min(f.rest, len(p))
		f.rest, p = f.rest-k, p[k:]
	}
	return n, f.flush()
}

// Close closes what is written to.
func (f *sftpFilter) Close() error { return f.w.Close() }
