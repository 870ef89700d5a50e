package daemon

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/doasconf"
	"p9auth/internal/sys"
)

// doasConf is where the rules of doas are.
const doasConf = "/etc/doas.conf"

// readRules reads a file of rules, which must be root's, and writable for nobody else.
// The error is for the caller, in opendoas's words.
func readRules(path string) ([]doasconf.Rule, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("doas is not enabled, %s: %s", path, reason(err))
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("%s: %s", path, reason(err))
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%s is not a regular file", path)
	case st.Mode&0o022 != 0:
		return nil, fmt.Errorf("%s is writable by group or other", path)
	case st.Uid != 0:
		return nil, fmt.Errorf("%s is not owned by root", path)
	}
	b, err := sys.ReadAll(f, doasconf.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("%s: %v", path, err)
	}
	return doasconf.Parse(b)
}

// reason is what strerror(3) says of an error.
func reason(err error) string {
	text := err.Error()
	if e, ok := err.(*os.PathError); ok {
		text = e.Err.Error()
	}
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// names are the users and groups that rules name, with their numbers.
type names struct{ users, groups map[string]uint32 }

func (n names) UID(user string) (uint32, bool)  { id, ok := n.users[user]; return id, ok }
func (n names) GID(group string) (uint32, bool) { id, ok := n.groups[group]; return id, ok }

// resolve asks the worker for the numbers of users and groups.
func (c *conversation) resolve(users, groups []string) (n names, err error) {
	n = names{map[string]uint32{}, map[string]uint32{}}
	q := pamwire.Resolve{Users: someNames(users), Groups: someNames(groups)}
	if len(q.Users) > pamwire.MaxNames || len(q.Groups) > pamwire.MaxNames {
		return n, &fatal{&capproto.Error{Code: capproto.CodeLimit, Text: fmt.Sprintf("%s names more than %d users or groups", doasConf, pamwire.MaxNames)}}
	}
	if err := c.tell(q); err != nil {
		return n, err
	}
	e, err := c.await()
	if err != nil {
		return n, err
	}
	a, ok := e.(pamwire.Resolved)
	if !ok || len(a.Users) != len(q.Users) || len(a.Groups) != len(q.Groups) {
		return n, c.unexpected(e)
	}
	for i, name := range q.Users {
		if id, ok := doasconf.ParseID(a.Users[i]); ok {
			n.users[name] = id
		}
	}
	for i, name := range q.Groups {
		if id, ok := doasconf.ParseID(a.Groups[i]); ok {
			n.groups[name] = id
		}
	}
	return n, nil
}

// someNames leaves out the empty name, which nobody has.
func someNames(list []string) []string {
	var some []string
	for _, s := range list {
		if s != "" {
			some = append(some, s)
		}
	}
	return some
}
