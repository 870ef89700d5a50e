package testbed

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Local adds lines to factotum.conf(5), each whole. It lets whoever is logged in use su
// and the like: "FrontEnd * su su".
func (b *Bed) Local(tb testing.TB, lines ...string) {
	tb.Helper()
	b.Sh(tb, "printf '%s\\n' '"+strings.Join(lines, "' '")+"' >>/etc/p9auth/factotum.conf")
	before := b.Logged("configuration read again")
	if err := syscall.Kill(b.Pids("factotum")[0], syscall.SIGHUP); err != nil {
		tb.Fatal(err)
	}
	if !Eventually(func() bool { return b.Logged("configuration read again") > before }) {
		tb.Fatalf("factotum does not take %q: %s", lines, b.Log())
	}
}

// AsPerson puts before a command what makes it that of a person who is logged in: it
// has the user's groups, and no capability in any set but the bounding set.
func AsPerson(user string, argv ...string) []string {
	return append([]string{"setpriv", "--reuid", user, "--regid", user, "--init-groups", "--inh-caps=-all", "--ambient-caps=-all", "--"}, argv...)
}

// Diff shows which lines of what another program printed, and of what ours did, the other
// has not.
func Diff(other, want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var s strings.Builder
	for _, l := range w {
		if !slices.Contains(g, l) {
			fmt.Fprintf(&s, "  %-12s%.300s\n", other+":", l)
		}
	}
	for _, l := range g {
		if !slices.Contains(w, l) {
			fmt.Fprintf(&s, "  %-12s%.300s\n", "ours:", l)
		}
	}
	if s.Len() == 0 {
		return "the same lines in another order:\n" + want + "\n--\n" + got
	}
	return s.String()
}
