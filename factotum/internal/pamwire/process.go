package pamwire

import (
	"fmt"
	"strconv"
	"strings"

	"p9auth/capproto"
)

// A Process is what the session's modules have set of the worker, and nobody but the
// user's own process can take on: see becomerecord.Process.
type Process struct {
	Context              string  // the security context of what is executed next: setexeccon(3)
	Keyring              string  // the name of a session keyring that the worker has made for the user
	Mounts               *Mounts // the worker's mount namespace, if it is one of its own
	Inheritable, Ambient uint64  // capabilities by their numbers; some of the former are ambient, too
	TTYAudit             uint32  // bit 0: what is typed at terminals is audited, bit 1: passwords, too
}

// Mounts is a mount namespace, by what stat(2) says of its file in /proc.
type Mounts struct{ Dev, Ino uint64 }

// Bounds of Process.
const (
	maxContext = 4095
	maxKeyring = 63
)

// Any says that there is something that must not be lost. A session keyring can be: the
// user gets another.
func (p Process) Any() bool {
	return p.Context != "" || p.Mounts != nil || p.Inheritable != 0 || p.TTYAudit != 0
}

func (p Process) add(m *capproto.Msg) {
	add(m, "context", p.Context)
	add(m, "keyring", p.Keyring)
	if p.Mounts != nil {
		m.Add("mounts", inode(p.Mounts.Dev, p.Mounts.Ino))
	}
	if p.Inheritable != 0 {
		m.Add("inheritable", strconv.FormatUint(p.Inheritable, 10))
	}
	if p.Ambient != 0 {
		m.Add("ambient", strconv.FormatUint(p.Ambient, 10))
	}
	if p.TTYAudit != 0 {
		m.Add("ttyaudit", utoa(p.TTYAudit))
	}
}

func (r *reader) process() Process {
	p := Process{Context: r.word("context", maxContext), Keyring: r.word("keyring", maxKeyring), Inheritable: r.set("inheritable"), Ambient: r.set("ambient")}
	if r.has("mounts") {
		dev, ino := r.inode("mounts")
		p.Mounts = &Mounts{dev, ino}
	}
	if p.Ambient&^p.Inheritable != 0 {
		r.fail("ambient= has more than inheritable=")
	}
	if r.has("ttyaudit") {
		p.TTYAudit = uint32(r.positive("ttyaudit"))
		if p.TTYAudit > 3 {
			r.fail("ttyaudit= has unknown bits")
		}
	}
	return p
}

// word takes printable ASCII without blanks, or nothing.
func (r *reader) word(name string, max int) string {
	v := r.optional(name, max)
	if strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c > '~' }) {
		r.fail("%s= is not a word", name)
	}
	return v
}

// set takes a set of 64 bits that is not empty, or nothing.
func (r *reader) set(name string) uint64 {
	if !r.has(name) {
		return 0
	}
	n := r.uint(name, r.some(name, 20), 64)
	if n == 0 {
		r.fail("%s= is empty", name)
	}
	return n
}

// inode is DEV:INO, what stat(2) says.
func inode(dev, ino uint64) string { return fmt.Sprintf("%d:%d", dev, ino) }

func (r *reader) inode(name string) (dev, ino uint64) {
	d, i, _ := strings.Cut(r.some(name, 64), ":")
	return r.uint(name, d, 64), r.uint(name, i, 64)
}
