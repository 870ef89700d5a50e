package pamwire

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"p9auth/capproto"
)

// A reader takes the attributes out of a message, each once. It keeps the first
// error; finish returns it, or that something is left.
type reader struct {
	m     capproto.Msg
	taken []bool
	err   error
}

func newReader(m capproto.Msg) *reader { return &reader{m: m, taken: make([]bool, len(m.Attrs))} }

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s: %s", ErrWire, r.m.Verb, fmt.Sprintf(format, args...))
	}
}

func (r *reader) finish() error {
	for i, a := range r.m.Attrs {
		if !r.taken[i] {
			r.fail("unknown attribute %s=", a.Name)
		}
	}
	return r.err
}

// list takes all attributes of a name: at most n, of at most max bytes each.
func (r *reader) list(name string, n, max int) []string {
	var v []string
	for i, a := range r.m.Attrs {
		if a.Name != name {
			continue
		}
		r.taken[i] = true
		if len(v) == n {
			r.fail("more than %d of %s=", n, name)
			break
		}
		if len(a.Value) > max {
			r.fail("%s= of %d bytes, at most %d", name, len(a.Value), max)
		}
		v = append(v, a.Value)
	}
	return v
}

// has says whether there is an attribute of that name.
func (r *reader) has(name string) bool {
	_, ok := r.m.Lookup(name)
	return ok
}

// text takes an attribute that has to be there.
func (r *reader) text(name string, max int) string {
	v := r.list(name, 1, max)
	if len(v) == 0 {
		r.fail("no %s=", name)
		return ""
	}
	return v[0]
}

// some takes an attribute that has to be there and not to be empty.
func (r *reader) some(name string, max int) string {
	v := r.text(name, max)
	if v == "" {
		r.fail("%s= is empty", name)
	}
	return v
}

// optional takes an attribute that is left out where it would be empty.
func (r *reader) optional(name string, max int) string {
	if !r.has(name) {
		return ""
	}
	return r.some(name, max)
}

// flag takes an attribute that has one value only, or is not there.
func (r *reader) flag(name, value string) bool {
	v := r.optional(name, len(value))
	if v != "" && v != value {
		r.fail("%s= is not %s", name, value)
	}
	return v != ""
}

// blob takes bytes.
func (r *reader) blob(name string, max int) []byte {
	b, err := capproto.UnB64(r.some(name, max))
	if err != nil {
		r.fail("%s= is not base64", name)
	}
	return b
}

// uint reads a decimal number with neither sign nor leading zeros.
func (r *reader) uint(name, v string, bits int) uint64 {
	n, err := strconv.ParseUint(v, 10, bits)
	if err != nil || strconv.FormatUint(n, 10) != v {
		r.fail("%s= is not a number of %d bits", name, bits)
		return 0
	}
	return n
}

// id reads a uid or gid.
func (r *reader) id(name, v string) uint32 {
	n := r.uint(name, v, 32)
	if n == capproto.NoID {
		r.fail("%s= is the id of nobody", name)
	}
	return uint32(n)
}

func (r *reader) takeID(name string) uint32 { return r.id(name, r.some(name, 10)) }

// positive takes a number such as a pid.
func (r *reader) positive(name string) int {
	n := int(r.uint(name, r.some(name, 10), 31))
	if n == 0 {
		r.fail("%s= is 0", name)
	}
	return n
}

// addr takes an IP address, or none where it may be left out.
func (r *reader) addr(name string, needed bool) netip.Addr {
	if !needed && !r.has(name) {
		return netip.Addr{}
	}
	v := r.some(name, maxName)
	a, err := netip.ParseAddr(v)
	if err != nil || a.String() != v {
		r.fail("%s= is not an address", name)
		return netip.Addr{}
	}
	return a
}

// octal reads mode bits of at most max, with at least three digits.
func (r *reader) octal(name, v string, max uint32) uint32 {
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n > uint64(max) || octal(uint32(n)) != v {
		r.fail("%s= has no mode in octal", name)
		return 0
	}
	return uint32(n)
}

func octal(n uint32) string { return fmt.Sprintf("%03o", n) }

func utoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// ids reads uids or gids that are separated by commas, at least one.
func (r *reader) ids(name string) []uint32 {
	v := r.some(name, 11*capproto.MaxGroups)
	if n := strings.Count(v, ",") + 1; n > capproto.MaxGroups {
		r.fail("%s= has %d ids, at most %d", name, n, capproto.MaxGroups)
		return nil
	}
	var ids []uint32
	for s := range strings.SplitSeq(v, ",") {
		ids = append(ids, r.id(name, s))
	}
	return ids
}

// env takes variables, each NAME=VALUE.
func (r *reader) env(name string) []string {
	env := r.list(name, MaxEnv, MaxEnvSize+1)
	for _, kv := range env {
		if v, _, ok := strings.Cut(kv, "="); !ok || v == "" {
			r.fail("%s= is not NAME=VALUE", name)
		}
	}
	return env
}

// add appends an attribute unless it is empty.
func add(m *capproto.Msg, name, value string) {
	if value != "" {
		m.Add(name, value)
	}
}

func addAll(m *capproto.Msg, name string, values []string) {
	for _, v := range values {
		m.Add(name, v)
	}
}

func addFlag(m *capproto.Msg, name, value string, set bool) {
	if set {
		m.Add(name, value)
	}
}
