package sftp

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxCached is how many names are remembered, of users and of groups.
const maxCached = 4096

// maxAsked is how many lookups one session may ask the user process for: each
// costs a process.
const maxAsked = 1000

// names finds the names of users and groups, in /etc/passwd and /etc/group,
// and then by asking the user process, which may start programs and so reaches
// what nsswitch.conf(5) names.
type names struct {
	users, groups map[uint32]string // "" where there is none
	ask           io.ReadWriter     // nil: nobody can be asked
	answers       *bufio.Reader     // of ask
	asked         int
}

// user and group return a name, or the number, for a line of a listing.
func (n *names) user(id uint32) string  { return orNumber(n.userName(id), id) }
func (n *names) group(id uint32) string { return orNumber(n.groupName(id), id) }

func orNumber(name string, id uint32) string {
	if name == "" {
		return strconv.FormatUint(uint64(id), 10)
	}
	return name
}

// userName returns a user's name, or "".
func (n *names) userName(id uint32) string {
	return cached(&n.users, id, func(number string) string {
		return n.entry("passwd", number, 2)[0]
	})
}

// groupName returns a group's name, or "".
func (n *names) groupName(id uint32) string {
	return cached(&n.groups, id, func(number string) string {
		return n.entry("group", number, 2)[0]
	})
}

func cached(m *map[uint32]string, id uint32, find func(number string) string) string {
	if name, ok := (*m)[id]; ok {
		return name
	}
	if *m == nil || len(*m) >= maxCached {
		*m = make(map[uint32]string)
	}
	name := find(strconv.FormatUint(uint64(id), 10))
	(*m)[id] = name
	return name
}

// home returns a user's home directory.
func (n *names) home(name string) (string, bool) {
	e := n.entry("passwd", name, 0)
	return e[5], e[0] != ""
}

// An entry has the fields of passwd(5) or group(5); they are empty if there is
// none.
type entry [7]string

func parseEntry(line string) (e entry) {
	copy(e[:], strings.Split(line, ":"))
	return e
}

// entry finds the entry of a database ("passwd" or "group") whose given field
// is key.
func (n *names) entry(database, key string, field int) entry {
	if key == "" {
		return entry{}
	}
	if e := fileEntry("/etc/"+database, key, field); e[0] != "" {
		return e
	}
	return n.getent(database, key, field)
}

// fileEntry looks in a file. It does not use package os, which would open
// descriptors of its own that the client is promised for its files (limits).
func fileEntry(path, key string, field int) entry {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return entry{}
	}
	defer unix.Close(fd)
	lines := bufio.NewScanner(descriptor(fd))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// Not "+" and "-" of nss_compat, nor comments.
		b := lines.Bytes()
		if len(b) == 0 || b[0] == '+' || b[0] == '-' || b[0] == '#' || !bytes.Contains(b, []byte(key)) {
			continue
		}
		if e := parseEntry(lines.Text()); e[field] == key {
			return e
		}
	}
	return entry{}
}

// A descriptor is read from and written to.
type descriptor int

func (d descriptor) Write(b []byte) (int, error) { return unix.Write(int(d), b) }

func (d descriptor) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(d), b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// getent asks the user process.
func (n *names) getent(database, key string, field int) entry {
	none := entry{}
	if n.ask == nil || n.asked >= maxAsked || !CanAsk(key) {
		return none
	}
	n.asked++
	if _, err := fmt.Fprintf(n.ask, "%s %s\n", database, key); err != nil {
		n.ask = nil
		return none
	}
	line, err := n.answers.ReadString('\n')
	if err != nil {
		n.ask = nil
		return none
	}
	e := parseEntry(strings.TrimSuffix(line, "\n"))
	if e[field] != key {
		return none
	}
	return e
}

// CanAsk says whether a name can be looked up by getent(1) and passed on in
// a line.
func CanAsk(key string) bool {
	if key == "" || len(key) > 256 || key[0] == '-' {
		return false
	}
	return strings.IndexFunc(key, func(r rune) bool { return r <= ' ' || r == ':' || r == 0x7f }) < 0
}

// NeedNames says whether nsswitch.conf(5) names users or groups that are not in
// files, so that lookups may be worth a process. systemd's own are left out,
// as every Debian has them and they own few files.
func NeedNames() bool {
	b, err := os.ReadFile("/etc/nsswitch.conf")
	return err == nil && needNames(string(b))
}

func needNames(conf string) bool {
	for line := range strings.Lines(conf) {
		line, _, _ = strings.Cut(line, "#")
		database, sources, _ := strings.Cut(line, ":")
		if d := strings.TrimSpace(database); d != "passwd" && d != "group" {
			continue
		}
		for _, source := range strings.Fields(sources) {
			if source != "files" && source != "compat" && source != "systemd" && source[0] != '[' {
				return true
			}
		}
	}
	return false
}
