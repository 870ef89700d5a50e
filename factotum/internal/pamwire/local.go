package pamwire

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"p9auth/capproto"
)

// Signal has a signal sent to a process of an open session of su or the like, whose
// pidfd comes along. The worker answers Recorded.
type Signal struct{ Number int }

func (s Signal) Encode() capproto.Msg {
	return capproto.NewMsg("signal", "signal", strconv.Itoa(s.Number))
}

func (Signal) request() {}

// Limits are resource limits by the kernel's numbers of the resources, RLIMIT_...
type Limits map[int]Limit

// maxResources is how many resources have a limit: RLIM_NLIMITS of the kernel.
const maxResources = 16

// add adds limit=resource:soft:hard for each.
func (l Limits) add(m *capproto.Msg) {
	for _, n := range slices.Sorted(maps.Keys(l)) {
		m.Add("limit", strconv.Itoa(n)+":"+l[n].String())
	}
}

// limits takes what add has added.
func (r *reader) limits() (l Limits) {
	for _, v := range r.list("limit", maxResources, 64) {
		f := strings.Split(v, ":")
		if len(f) != 3 {
			r.fail("limit= is not resource:soft:hard")
			return nil
		}
		if l == nil {
			l = Limits{}
		}
		n := int(r.uint("limit", f[0], 4))
		if _, twice := l[n]; twice {
			r.fail("limit= of one resource twice")
		}
		l[n] = Limit{r.uint("limit", f[1], 64), r.uint("limit", f[2], 64)}
	}
	return l
}
