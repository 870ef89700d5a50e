package records

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"time"
)

// lastlogOnDisk is struct lastlog of x86_64.
type lastlogOnDisk struct {
	Sec  int32
	Line [32]byte
	Host [256]byte
}

const lastlogSize = 292

// A Last is what lastlog knows of a user. Its Time is zero if it knows nothing.
type Last struct {
	Line, Host string
	Time       time.Time
}

// LastLogin reads a user's entry in lastlog.
func LastLogin(path string, uid uint32) (l Last, err error) {
	if !supported {
		return l, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	defer f.Close()
	b := make([]byte, lastlogSize)
	if _, err := f.ReadAt(b, int64(uid)*lastlogSize); err != nil {
		return l, nil // beyond its end: never
	}
	var d lastlogOnDisk
	binary.Read(bytes.NewReader(b), binary.LittleEndian, &d)
	if d.Sec != 0 {
		l = Last{text(d.Line[:]), text(d.Host[:]), time.Unix(int64(d.Sec), 0)}
	}
	return l, nil
}

// SetLastLogin writes a user's entry in lastlog.
func SetLastLogin(path string, uid uint32, l Last) error {
	f, err := open(path, os.O_WRONLY)
	if f == nil {
		return err
	}
	defer f.Close()
	d := lastlogOnDisk{Sec: int32(l.Time.Unix())}
	set(d.Line[:], l.Line)
	set(d.Host[:], l.Host)
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, d)
	_, err = f.WriteAt(b.Bytes(), int64(uid)*lastlogSize)
	return err
}
