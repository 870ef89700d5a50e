package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/internal/doasconf"
	"p9auth/internal/sys"
)

// find finds a program as execvp(3) does: in the directories of PATH if its name has no
// slash. It is the caller who looks, and factotum who says whether that counts.
func find(cmd string) (path string, err error) {
	if strings.Contains(cmd, "/") {
		return absolute(cmd), nil
	}
	err = fmt.Errorf("%s: command not found", cmd)
	if cmd == "" {
		return "", err
	}
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		path := absolute(dir + "/" + cmd)
		if dir == "" {
			path = absolute(cmd)
		}
		st, serr := os.Stat(path)
		if serr != nil {
			continue
		}
		if st.Mode().IsRegular() && unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
		err = fmt.Errorf("%s: Permission denied", cmd)
	}
	return "", err
}

// executable says in opendoas's words what is wrong with the program, as far as the caller
// can see it. What only the target can see is found out when it is executed.
func executable(cmd, path string) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: command not found", cmd)
	case err == nil && (!st.Mode().IsRegular() || st.Mode()&0o111 == 0):
		return fmt.Errorf("%s: Permission denied", cmd)
	}
	return nil
}

// absolute is a path with the directory before it, as it stands otherwise: a link that
// ".." goes through is the kernel's to follow.
func absolute(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(dir, "/") + "/" + path
}

// caller is the caller's name, for the question.
func caller() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

// errDenied says that the rules deny a command, after that was printed.
var errDenied = errors.New("deny")

// check is doas -C: what the rules of a file say of a command. It is the caller who
// reads it.
func check(o options) error {
	text, err := sys.ReadFile(o.check, doasconf.MaxSize)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			if errno, ok := path.Err.(unix.Errno); ok {
				return fmt.Errorf("could not open config file %s: %s", o.check, strerror(errno))
			}
		}
		return err
	}
	rules, err := doasconf.Parse(text)
	if err != nil || len(o.command) == 0 {
		return err
	}
	files := files{}
	q := doasconf.Request{UID: uint32(os.Getuid()), Argv: o.command}
	ok := false
	if q.Target, ok = files.UID(o.user); !ok {
		if q.Target, ok = doasconf.ParseID(o.user); !ok {
			return errors.New("unknown user")
		}
	}
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	for _, g := range append(groups, os.Getgid()) {
		q.Groups = append(q.Groups, uint32(g))
	}
	r := doasconf.Decide(rules, q, files)
	switch {
	case r == nil || !r.Permit:
		fmt.Println("deny")
		return errDenied
	case r.NoPass:
		fmt.Println("permit nopass")
	default:
		fmt.Println("permit")
	}
	return nil
}

// strerror is the error as C programs print it.
func strerror(e unix.Errno) string {
	s := e.Error()
	return strings.ToUpper(s[:1]) + s[1:]
}

// files are the users and groups of passwd(5) and group(5), which is where a program
// without the C library can look.
type files struct{}

func (files) UID(name string) (uint32, bool) { return entry("/etc/passwd", name) }
func (files) GID(name string) (uint32, bool) { return entry("/etc/group", name) }

// entry is the number in the third field of the line that begins with a name.
func entry(file, name string) (uint32, bool) {
	f, err := os.Open(file)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Split(s.Text(), ":"); len(fields) > 2 && fields[0] == name && name != "" {
			return doasconf.ParseID(fields[2])
		}
	}
	return 0, false
}
