package proc

import (
	"os"
	"slices"
	"testing"
)

func TestGroupsOfOurselves(t *testing.T) {
	got, err := ReadGroups(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	want = append([]int{os.Getgid()}, want...)
	for _, g := range want {
		if !slices.Contains(got, uint32(g)) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, int(g)) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

func TestAStatusWithoutItsGroupsIsAnError(t *testing.T) {
	for _, s := range []string{"", "Gid:\t1\t1\t1\t1\n", "Groups:\t1 2\n", "Gid:\t1\nGroups:\t\n", "Gid:\t1\t1\t1\t1\nGroups:\tx\n", "Gid:\t-1\t1\t1\t1\nGroups:\t\n", "Gid:\t4294967296\t1\t1\t1\nGroups:\n"} {
		if g, err := parseGroups(s); err == nil {
			t.Errorf("%q: %v", s, g)
		}
	}
	if g, err := parseGroups("Name:\tx\nGid:\t5\t6\t7\t8\nGroups:\t \n"); err != nil || !slices.Equal(g, []uint32{5}) {
		t.Errorf("%v, %v", g, err)
	}
}
