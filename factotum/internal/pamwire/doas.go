package pamwire

import (
	"slices"
	"strconv"

	"p9auth/capproto"
)

// MaxNames bounds the users and the groups of a Resolve, each.
const MaxNames = 500

// Resolve asks NSS for the numbers of users and groups.
type Resolve struct{ Users, Groups []string }

func (q Resolve) Encode() capproto.Msg {
	m := capproto.NewMsg("resolve")
	addAll(&m, "u", q.Users)
	addAll(&m, "g", q.Groups)
	return m
}

func decodeResolve(r *reader) Request {
	q := Resolve{r.list("u", MaxNames, maxName), r.list("g", MaxNames, maxName)}
	for _, list := range [][]string{q.Users, q.Groups} {
		if slices.Contains(list, "") {
			r.fail("u= or g= is empty")
		}
	}
	return q
}

// Resolved answers Resolve, in its order: a number in decimal, or Nobody where there is
// no such user or group.
type Resolved struct{ Users, Groups []string }

// Nobody stands in Resolved for who does not exist.
const Nobody = "none"

func (e Resolved) Encode() capproto.Msg {
	m := capproto.NewMsg("resolved")
	addAll(&m, "u", e.Users)
	addAll(&m, "g", e.Groups)
	return m
}

func decodeResolved(r *reader) Event {
	e := Resolved{r.list("u", MaxNames, 10), r.list("g", MaxNames, 10)}
	for _, list := range [][]string{e.Users, e.Groups} {
		for _, v := range list {
			if v != Nobody {
				r.id("u or g", v)
			}
		}
	}
	return e
}

// Target says whose the session is to be, by doas, once PAM has admitted the caller.
// The worker answers AccountValid with that account, or Refused if there is none.
type Target struct{ UID uint32 }

func (t Target) Encode() capproto.Msg {
	return capproto.NewMsg("target", "uid", strconv.FormatUint(uint64(t.UID), 10))
}

func (Resolve) request() {}
func (Target) request()  {}
func (Resolved) event()  {}
