package sftp

import (
	"strings"

	"golang.org/x/sys/unix"
)

// one runs what asks for one name.
func (s *Server) one(id uint32, f *fields, what, label string, at level, do func(string) error) error {
	name := f.text()
	if f.err != nil {
		return nil
	}
	if s.log.on(info) {
		s.log.printf(debug3, "request %d: %s", id, what)
		s.log.printf(at, "%s \"%s\"", label, name)
	}
	s.result(id, do(name))
	return nil
}

// two runs what asks for two names.
func (s *Server) two(id uint32, f *fields, what string, do func(from, to string) error) error {
	from, to := f.text(), f.text()
	if f.err != nil {
		return nil
	}
	if s.log.on(info) {
		s.log.printf(debug3, "request %d: %s", id, what)
		s.log.printf(info, "%s old \"%s\" new \"%s\"", what, from, to)
	}
	s.result(id, do(from, to))
	return nil
}

// remove answers SSH_FXP_REMOVE: of what is not a directory.
func (s *Server) remove(id uint32, f *fields) error {
	return s.one(id, f, "remove", "remove name", info, unix.Unlink)
}

// rmdir answers SSH_FXP_RMDIR.
func (s *Server) rmdir(id uint32, f *fields) error {
	return s.one(id, f, "rmdir", "rmdir name", info, unix.Rmdir)
}

// symlink answers SSH_FXP_SYMLINK. The target comes first, as OpenSSH has it,
// unlike the draft.
func (s *Server) symlink(id uint32, f *fields) error {
	return s.two(id, f, "symlink", unix.Symlink)
}

// hardlink answers hardlink@openssh.com.
func (s *Server) hardlink(id uint32, f *fields) error {
	return s.two(id, f, "hardlink", func(from, to string) error { return unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, to, 0) })
}

// posixRename answers posix-rename@openssh.com, which replaces what is there.
func (s *Server) posixRename(id uint32, f *fields) error {
	return s.two(id, f, "posix-rename", unix.Rename)
}

// rename answers SSH_FXP_RENAME, which replaces nothing.
func (s *Server) rename(id uint32, f *fields) error {
	return s.two(id, f, "rename", renameNew)
}

// errExists becomes the status that says no more than that it failed.
const errExists = unix.EEXIST

// renameNew renames a file to a name that nothing has. For regular files it
// does so without a race.
func renameNew(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		switch err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, to, 0); err {
		case nil:
			if err := unix.Unlink(from); err != nil {
				unix.Unlink(to)
				return err
			}
			return nil
		case unix.EOPNOTSUPP, unix.ENOSYS, unix.EXDEV, unix.EPERM:
			// This file system has no links, or not of this file.
		default:
			return err
		}
	}
	if unix.Stat(to, &st) == nil {
		return errExists
	}
	return unix.Rename(from, to)
}

// mkdir answers SSH_FXP_MKDIR.
func (s *Server) mkdir(id uint32, f *fields) error {
	name, a := f.text(), f.attrs()
	if f.err != nil {
		return nil
	}
	mode := uint32(0o777)
	if a.flags&attrPerm != 0 {
		mode = a.perm & 0o7777
	}
	if s.log.on(info) {
		s.log.printf(debug3, "request %d: mkdir", id)
		s.log.printf(info, "mkdir name \"%s\" mode 0%o", name, mode)
	}
	s.result(id, unix.Mkdir(name, mode))
	return nil
}

// readlink answers SSH_FXP_READLINK.
func (s *Server) readlink(id uint32, f *fields) error {
	path := f.text()
	if f.err != nil {
		return nil
	}
	if s.log.on(verbose) {
		s.log.printf(debug3, "request %d: readlink", id)
		s.log.printf(verbose, "readlink \"%s\"", path)
	}
	var b [pathMax - 1]byte
	n, err := unix.Readlink(path, b[:])
	if err != nil {
		s.result(id, err)
		return nil
	}
	s.nameReply(id, string(b[:n]))
	return nil
}

// realpath answers SSH_FXP_REALPATH.
func (s *Server) realpath(id uint32, f *fields) error {
	path := f.text()
	if f.err != nil {
		return nil
	}
	if path == "" {
		path = "."
	}
	if s.log.on(verbose) {
		s.log.printf(debug3, "request %d: realpath", id)
		s.log.printf(verbose, "realpath \"%s\"", path)
	}
	return s.resolved(id, path)
}

func (s *Server) resolved(id uint32, path string) error {
	name, err := resolve(path)
	if err != nil {
		s.result(id, err)
		return nil
	}
	s.nameReply(id, name)
	return nil
}

// expandPath answers expand-path@openssh.com: realpath that knows ~. The
// caller's own is the directory that the server started in.
func (s *Server) expandPath(id uint32, f *fields) error {
	path := f.text()
	if f.err != nil {
		return nil
	}
	cwd, err := unix.Getwd()
	if err != nil {
		s.result(id, err)
		return nil
	}
	s.log.printf(debug3, "request %d: expand, original \"%s\"", id, path)
	switch {
	case path == "":
		path = "."
	case path == "~":
		path = cwd
	case strings.HasPrefix(path, "~/"):
		path = cwd + "/" + path[2:]
	case path[0] == '~':
		if path, err = s.tilde(path); err != nil {
			s.statusText(id, statusNoSuchFile, "no such user")
			return nil
		}
	case path[0] != '/':
		path = cwd + "/" + path
	}
	s.log.printf(verbose, "expand \"%s\"", path)
	return s.resolved(id, path)
}

// tilde replaces ~, which is the account's home, or ~user at the beginning of
// a path.
func (s *Server) tilde(path string) (string, error) {
	if path == "" || path[0] != '~' {
		return path, nil
	}
	name, rest, _ := strings.Cut(path[1:], "/")
	home, ok := s.account.Home, true
	if name != "" {
		if home, ok = s.names.home(name); !ok {
			s.log.printf(failed, "tilde_expand: No such user %s", name)
			return "", unix.ENOENT
		}
	}
	if !strings.HasSuffix(home, "/") {
		home += "/"
	}
	home += strings.TrimLeft(rest, "/")
	if len(home) >= pathMax {
		s.log.printf(failed, "tilde_expand: Path too long")
		return "", unix.ENAMETOOLONG
	}
	return home, nil
}

// homeDirectory answers home-directory.
func (s *Server) homeDirectory(id uint32, f *fields) error {
	name := f.text()
	if f.err != nil {
		return nil
	}
	s.log.printf(debug3, "request %d: home-directory \"%s\"", id, name)
	home, ok := s.account.Home, true
	if name != "" {
		home, ok = s.names.home(name)
	}
	if !ok {
		s.status(id, statusFailure)
		return nil
	}
	s.log.printf(verbose, "home-directory \"%s\"", home)
	s.nameReply(id, home)
	return nil
}

// maxLinks is how many symbolic links a path may lead through.
const maxLinks = 33

// resolve makes a path absolute, without links, "." and "..". All of it but the
// last name has to exist. It is realpath(3) as OpenSSH has it in
// sftp-realpath.c.
func resolve(path string) (string, error) {
	if path == "" {
		return "", unix.ENOENT
	}
	var done []byte
	left := path
	if path[0] == '/' {
		done, left = append(done, '/'), path[1:]
	} else {
		cwd, err := unix.Getwd()
		if err != nil {
			return "", err
		}
		done = append(done, cwd...)
	}
	if len(left) >= pathMax || len(done) >= pathMax {
		return "", unix.ENAMETOOLONG
	}
	links := 0
	for left != "" {
		var name string
		var more bool
		name, left, more = strings.Cut(left, "/")
		if done[len(done)-1] != '/' {
			if len(done)+1 >= pathMax {
				return "", unix.ENAMETOOLONG
			}
			done = append(done, '/')
		}
		switch name {
		case "", ".":
			continue
		case "..":
			done = parent(done)
			continue
		}
		if done = append(done, name...); len(done) >= pathMax {
			return "", unix.ENAMETOOLONG
		}
		var st unix.Stat_t
		if err := unix.Lstat(string(done), &st); err != nil {
			if err == unix.ENOENT && !more {
				break
			}
			return "", err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			continue
		}
		if links++; links > maxLinks {
			return "", unix.ELOOP
		}
		var b [pathMax - 1]byte
		n, err := unix.Readlink(string(done), b[:])
		if err != nil {
			return "", err
		}
		to := string(b[:n])
		if strings.HasPrefix(to, "/") {
			done = done[:1]
		} else {
			done = parent(done)
		}
		if more {
			if !strings.HasSuffix(to, "/") {
				to += "/"
			}
			if to += left; len(to) >= pathMax {
				return "", unix.ENAMETOOLONG
			}
		}
		left = to
	}
	if len(done) > 1 && done[len(done)-1] == '/' {
		done = done[:len(done)-1]
	}
	return string(done), nil
}

// parent cuts the last name, and a slash behind it, off an absolute path.
func parent(path []byte) []byte {
	if len(path) > 1 {
		path = path[:len(path)-1]
	}
	for path[len(path)-1] != '/' {
		path = path[:len(path)-1]
	}
	return path
}
