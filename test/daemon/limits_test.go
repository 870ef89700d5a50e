package daemon

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// Processes that ask for a name count for _login, together. What PAM's modules
// say of a user's processes is no business of theirs. The user has a uid of
// her own, as processes of one uid count together on the whole machine.
func TestALimitOfProcessesIsForTheUserAlone(t *testing.T) {
	b := up(t)
	b.Sh(t, fmt.Sprintf("useradd -m -u %d -s /bin/bash carol && echo carol:%s | chpasswd", 200000+rand.IntN(1<<30), testbed.Password))
	b.Write(t, "/run/limits", "carol soft nproc 19\ncarol hard nproc 20\n")
	b.Write(t, "/etc/pam.d/login", testbed.Service+"session required pam_limits.so conf=/run/limits\n")
	threads := func() int {
		n, err := strconv.Atoi(strings.TrimSpace(b.Sh(t, "ps -L -u _login --no-headers | wc -l")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for threads() < 25 {
		b.Login(t, "bob")
	}
	for range 3 {
		term := b.In(t, "carol")
		if got := term.Run("ulimit -Su; ulimit -Hu"); got != "19\n20" {
			t.Errorf("the shell has %q", got)
		}
		b.Out(t, term)
	}
	other := b.In(t, "bob")
	if got := other.Run("ulimit -Hu"); got == "20" {
		t.Errorf("another's shell has %q", got)
	}
	b.Out(t, other)
}
