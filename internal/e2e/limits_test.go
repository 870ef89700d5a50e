package e2e

import (
	"strconv"
	"strings"
	"testing"
)

// Processes that ask for a name count for _login, together. What PAM's modules
// say of alice's processes is no business of theirs.
func TestALimitOfProcessesIsForTheUserAlone(t *testing.T) {
	b := up(t)
	b.write(t, "/run/limits", "alice soft nproc 19\nalice hard nproc 20\n")
	b.write(t, "/etc/pam.d/login", service+"session required pam_limits.so conf=/run/limits\n")
	threads := func() int {
		n, err := strconv.Atoi(strings.TrimSpace(b.Sh(t, "ps -L -u _login --no-headers | wc -l")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for threads() < 25 {
		b.login(t, "bob")
	}
	for range 3 {
		term := b.in(t, "alice")
		if got := term.Run("ulimit -Su; ulimit -Hu"); got != "19\n20" {
			t.Errorf("the shell has %q", got)
		}
		b.out(t, term)
	}
	other := b.in(t, "bob")
	if got := other.Run("ulimit -Hu"); got == "20" {
		t.Errorf("another's shell has %q", got)
	}
	b.out(t, other)
}
