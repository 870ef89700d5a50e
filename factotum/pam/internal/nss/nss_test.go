package nss

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

func TestLookupFindsRoot(t *testing.T) {
	a, err := Lookup("root")
	if err != nil {
		t.Fatal(err)
	}
	if a.Name != "root" || a.UID != 0 || a.GID != 0 || a.Home == "" {
		t.Errorf("%+v", a)
	}
	groups, err := a.Groups()
	if err != nil || len(groups) == 0 || groups[0] != 0 {
		t.Errorf("%v, %v", groups, err)
	}
	names, err := GroupNames(groups[:1], 1, 100)
	if err != nil || len(names) != 1 || names[0] != "root" {
		t.Errorf("%q, %v", names, err)
	}
}

func TestNobodyOfThatName(t *testing.T) {
	for _, name := range []string{"", "no such user", "roo", strings.Repeat("x", 1<<16)} {
		if a, err := Lookup(name); !errors.Is(err, ErrNoUser) {
			t.Errorf("%.10q: %+v, %v", name, a, err)
		}
	}
	if id, ok, err := GroupID("no such group"); ok || err != nil {
		t.Errorf("%d, %v", id, err)
	}
	if id, ok, err := GroupID("root"); id != 0 || !ok || err != nil {
		t.Errorf("%d, %v, %v", id, ok, err)
	}
}

// Half of a list of names would be a rule that is not obeyed.
func TestTooManyNamesAreAnError(t *testing.T) {
	for _, c := range []struct{ n, size int }{{0, 100}, {1, 3}} {
		if names, err := GroupNames([]uint32{0}, c.n, c.size); err == nil {
			t.Errorf("%d names of %d bytes: %q", c.n, c.size, names)
		}
	}
	if names, err := GroupNames([]uint32{3999999999}, 0, 0); names != nil || err != nil {
		t.Errorf("a group without a name: %q, %v", names, err)
	}
}

func TestTheBufferGrowsUpToABound(t *testing.T) {
	tries := 0
	err := ask("getgrgid_r", func(unsafe.Pointer, uintptr) syscall.Errno {
		tries++
		return syscall.ERANGE
	})
	if err == nil || !strings.Contains(err.Error(), "larger than 16 MiB") || tries != 7 {
		t.Errorf("%v after %d tries", err, tries)
	}
	if err := ask("getgrgid_r", func(unsafe.Pointer, uintptr) syscall.Errno { return syscall.EIO }); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
}

func TestAGroupOfOneIsTheUsersOwn(t *testing.T) {
	a, err := Lookup("daemon")
	if err != nil {
		t.Skip(err)
	}
	for _, c := range []struct {
		gid, uid uint32
		want     bool
	}{
		{a.GID, a.UID, true},
		{a.GID, 0, false},          // nobody is in it
		{3999999999, a.UID, false}, // no such group
	} {
		if got := OnlyMember(c.gid, c.uid, c.uid); got != c.want {
			t.Errorf("group %d, user %d: %v", c.gid, c.uid, got)
		}
	}
}
