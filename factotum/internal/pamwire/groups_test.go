package pamwire

import (
	"errors"
	"os"
	"slices"
	"testing"

	"p9auth/capproto"
)

// TestGroupsBeyondAMessageComeInAPipe all of them, or the event counts for nothing.
func TestGroupsBeyondAMessageComeInAPipe(t *testing.T) {
	o := Opened{User: "a", PAMUser: "a", UID: 1, GID: 0, Home: "/", Shell: "/bin/sh", Groups: make([]uint32, maxGroups)}
	for i := range o.Groups {
		o.Groups[i] = uint32(i)
	}
	pipe := func(o Opened) *os.File {
		f, err := o.MoreGroups()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	e, err := DecodeEvent(o.Encode(), pipe(o))
	if err != nil || !slices.Equal(e.(Opened).Groups, o.Groups) {
		t.Fatalf("%d groups: %v", maxGroups, err)
	}
	fewer, few := o, o
	fewer.Groups = o.Groups[:maxGroups-1]
	few.Groups = o.Groups[:capproto.MaxGroups]
	for what, decode := range map[string]func() (Event, error){
		"no pipe":            func() (Event, error) { return DecodeEvent(o.Encode()) },
		"a group less":       func() (Event, error) { return DecodeEvent(o.Encode(), pipe(fewer)) },
		"a group more":       func() (Event, error) { return DecodeEvent(fewer.Encode(), pipe(o)) },
		"a pipe for nothing": func() (Event, error) { return DecodeEvent(few.Encode(), pipe(fewer)) },
		"a pipe for too much": func() (Event, error) {
			x := o
			x.Groups = append(slices.Clone(o.Groups), 7)
			return DecodeEvent(x.Encode(), pipe(x))
		},
	} {
		if _, err := decode(); !errors.Is(err, ErrWire) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
