// Package records writes down who logs in and out: utmp(5), wtmp(5), btmp and
// lastlog, which who(1), last(1), lastb(1) and lastlog(8) read, the database of
// wtmpdb(8), and the kernel's audit. A Login (login.go) has all of it; the other
// files are one kind of record each.
//
// The files are laid out as glibc does on amd64. On other architectures, where
// the layout differs, nothing is written. A file that does not exist is not made:
// where a distribution has given these files up (Debian 13 has), nothing is
// recorded in them, as with login(1).
//
// It runs in the PAM worker, as root. Its input is what the worker knows from the
// kernel and from PAM; every field is bounded.
package records

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Types of a record: ut_type in utmp(5).
const (
	InitProcess  = 5
	LoginProcess = 6
	UserProcess  = 7
	DeadProcess  = 8
)

// A Record is one of utmp, wtmp or btmp.
type Record struct {
	Type int
	PID  int
	Line string // the terminal without /dev/; at most 32 bytes are kept
	ID   string // at most 4 bytes; what of utmp is replaced
	User string // at most 32 bytes are kept
	Host string // the remote host, at most 256 bytes are kept
	SID  int    // the session id, getsid(2)
	Time time.Time
}

// onDisk is struct utmp of x86_64.
type onDisk struct {
	Type    int16
	_       [2]byte
	PID     int32
	Line    [32]byte
	ID      [4]byte
	User    [32]byte
	Host    [256]byte
	Exit    [2]int16
	Session int32
	Sec     int32
	Usec    int32
	Addr    [16]byte
	_       [20]byte
}

const size = 384 // of onDisk

// maxRecords bounds how much of utmp is looked at.
const maxRecords = 1 << 16

// patience is how long a lock is waited for: any user may hold one on utmp.
const patience = 2 * time.Second

var supported = runtime.GOARCH == "amd64"

func (r Record) encode() []byte {
	d := onDisk{Type: int16(r.Type), PID: int32(r.PID), Session: int32(r.SID),
		Sec: int32(r.Time.Unix()), Usec: int32(r.Time.Nanosecond() / 1000)}
	set(d.Line[:], r.Line)
	set(d.ID[:], r.ID)
	set(d.User[:], r.User)
	set(d.Host[:], r.Host)
	if a, err := netip.ParseAddr(r.Host); err == nil {
		if a = a.Unmap(); a.Is4() {
			b := a.As4()
			copy(d.Addr[:], b[:])
		} else {
			d.Addr = a.As16()
		}
	}
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, d)
	return b.Bytes()
}

// decode reads an onDisk, by its offsets: utmp is looked through at each login,
// and may be long.
func decode(b []byte) Record {
	num := func(at int) int { return int(int32(binary.LittleEndian.Uint32(b[at:]))) }
	return Record{Type: int(int16(binary.LittleEndian.Uint16(b))), PID: num(4), Line: text(b[8:40]), ID: text(b[40:44]), User: text(b[44:76]),
		Host: text(b[76:332]), SID: num(336), Time: time.Unix(int64(num(340)), int64(num(344))*1000)}
}

// set puts a string in a field. Control characters, which a terminal would obey,
// become question marks.
func set(field []byte, s string) {
	copy(field, strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s))
}

func text(field []byte) string {
	s, _, _ := strings.Cut(string(field), "\x00")
	return s
}

// open opens a file that may be missing, and locks it. It returns nil if there
// is no such file.
func open(path string, flags int) (*os.File, error) {
	if !supported {
		return nil, nil
	}
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	for limit := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock)
		if err == nil {
			return f, nil
		}
		if time.Now().After(limit) {
			f.Close()
			return nil, fmt.Errorf("another process holds a lock on %s: %w", path, err)
		}
	}
}

// Append adds a record to wtmp or btmp.
func Append(path string, r Record) error {
	f, err := open(path, os.O_WRONLY|os.O_APPEND)
	if f == nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(r.encode())
	return err
}

// Put puts a record into utmp. With byPID it replaces the record that agetty or systemd
// wrote for the same process, and takes over its ID. If there is none, and without byPID,
// it replaces a record with the same ID that is dead or of the same terminal.
func Put(path string, r Record, byPID bool) error {
	f, err := open(path, os.O_RDWR)
	if f == nil {
		return err
	}
	defer f.Close()
	at, found, err := find(f, func(o Record) bool {
		if byPID && o.Type >= InitProcess && o.Type <= UserProcess && o.PID == r.PID && o.ID != "" {
			r.ID = o.ID
			return true
		}
		return false
	})
	if err == nil && !found {
		at, _, err = find(f, func(o Record) bool {
			return o.ID == r.ID && (o.Type == DeadProcess || o.Type >= InitProcess && o.Type < DeadProcess && o.Line == r.Line)
		})
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(r.encode(), at)
	return err
}

// End marks the record of a terminal in utmp as dead, if it is of a process that is ours,
// and unless somebody else has done so. It says whether there is such a record.
func End(path string, ours func(pid int) bool, line string, now time.Time) (found bool, err error) {
	f, err := open(path, os.O_RDWR)
	if f == nil {
		return false, err
	}
	defer f.Close()
	var r Record
	at, found, err := find(f, func(o Record) bool {
		r = o
		return o.Type == UserProcess && o.Line == line && ours(o.PID)
	})
	if err != nil || !found {
		return false, err
	}
	r.Type, r.User, r.Host, r.Time = DeadProcess, "", "", now
	_, err = f.WriteAt(r.encode(), at)
	return true, err
}

// find returns where a record is, or where the file ends.
func find(f *os.File, is func(Record) bool) (at int64, found bool, err error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxRecords*size))
	if err != nil {
		return 0, false, err
	}
	for ; len(b) >= size; at, b = at+size, b[size:] {
		if is(decode(b[:size])) {
			return at, true, nil
		}
	}
	if at == maxRecords*size {
		return 0, false, fmt.Errorf("%s has too many records", f.Name())
	}
	return at, false, nil
}

// Size is the length of a file in bytes, 0 if there is none.
func Size(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

// Since returns the records that were appended after the file had a length, 64
// at most.
func Since(path string, length int64) []Record {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var list []Record
	b := make([]byte, size)
	for len(list) < 64 {
		if _, err := f.ReadAt(b, length); err != nil {
			break
		}
		list = append(list, decode(b))
		length += size
	}
	return list
}
