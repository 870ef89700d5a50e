package pam

import (
	"fmt"
	"testing"

	"p9auth/test/testbed"
)

const violation = "conversation ended: protocol violation"

// Start starts the attacker in the testbed, as the user, on a terminal. The
// test's TestMain must give testbed.Main the program "attacker".
func Start(tb testing.TB, b *testbed.Logins, user, attack string, args ...string) *testbed.Term {
	tb.Helper()
	return b.Start(tb, testbed.As(user, append([]string{b.Self(tb), "attacker", attack}, args...)...)...)
}

// WantHarmless waits for the end of an attack. It checks that factotum has given
// the attacker nothing, and has logged each violation of the protocol; logged is
// how many there were in the log before.
func WantHarmless(tb testing.TB, b *testbed.Logins, term *testbed.Term, logged int) {
	tb.Helper()
	if err := term.Wait(); err != nil {
		tb.Fatalf("%v; the attacker says:\n%s", err, term.Screen())
	}
	term.Expect(`violations=`)
	var n int
	fmt.Sscan(term.Expect(`\d+`), &n)
	term.Expect("as it should be")
	got := 0
	if !testbed.Eventually(func() bool {
		got = b.Logged(violation) - logged
		return got >= n
	}) || got != n {
		tb.Errorf("%d violations, factotum logged %d", n, got)
	}
}

// Attack runs an attack to its end, which must be harmless.
func Attack(tb testing.TB, b *testbed.Logins, user, attack string, args ...string) {
	tb.Helper()
	logged := b.Logged(violation)
	WantHarmless(tb, b, Start(tb, b, user, attack, args...), logged)
}
