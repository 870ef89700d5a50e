package authkeys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Open opens a user's file for reading, as sshd(8) opens authorized_keys: it
// must be a regular file and, if strict is not nil (StrictModes), pass CheckPath. The
// calling goroutine must be locked to a thread whose fsuid, fsgid and groups
// are the user's; all system calls are made on it. The error of a file that
// does not exist is fs.ErrNotExist.
func Open(path, home string, uid uint32, strict Private) (*os.File, error) {
	// O_NONBLOCK: a FIFO in place of the file must not hold us.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil && strict != nil {
		err = CheckPath(f, path, home, uid, strict)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Private reports whether a group, of a file of that owner, has the user as its only
// member, so that the group may write to the file.
type Private func(gid, owner uint32) bool

// NoGroup is the Private of files to which no group may write.
func NoGroup(gid, owner uint32) bool { return false }

// CheckPath is safe_path of Debian's sshd: the open file f, and every directory above
// it on its path without symbolic links, up to the user's home directory or to the
// root, must belong to root or to the user and be writable by nobody else. The
// path must still lead to the file that is open. Errors are in sshd's words,
// for the log line "Authentication refused: ...".
func CheckPath(f *os.File, path, home string, uid uint32, private Private) error {
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("cannot stat file %s: %w", path, err)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("realpath %s failed: %w", path, err)
	}
	if !filepath.IsAbs(real) {
		return fmt.Errorf("%s is not an absolute path", path)
	}
	if now, err := os.Lstat(real); err != nil || !os.SameFile(st, now) {
		return fmt.Errorf("%s was replaced while it was being checked", real)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", real)
	}
	if !safe(st, uid, private) {
		return fmt.Errorf("bad ownership or modes for file %s", real)
	}
	if home, err = filepath.EvalSymlinks(home); err != nil {
		home = "" // no such directory: go up to the root
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		st, err := os.Lstat(dir)
		if err != nil || !st.IsDir() || !safe(st, uid, private) {
			return fmt.Errorf("bad ownership or modes for directory %s", dir)
		}
		if dir == home || dir == "/" {
			return nil
		}
	}
}

// safe reports whether a file belongs to root or the user and is writable by
// nobody else.
func safe(st fs.FileInfo, uid uint32, private Private) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && (sys.Uid == 0 || sys.Uid == uid) && st.Mode().Perm()&0o002 == 0 &&
		(st.Mode().Perm()&0o020 == 0 || private(sys.Gid, sys.Uid))
}

// IsMissing reports whether an error of Open only means that there is no such
// file.
func IsMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
