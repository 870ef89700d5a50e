package daemon

import (
	"fmt"
	"strings"
	"testing"
)

// TestAUserInThousandsOfGroupsHasAllOfThem who are more than a message or a capability can
// name, as id(1) counts them.
func TestAUserInThousandsOfGroupsHasAllOfThem(t *testing.T) {
	b := up(t)
	for _, n := range []int{4097, 65000} {
		b.Sh(t, fmt.Sprintf(`sed -i '/^many/d' /etc/group; seq %d | awk '{print "many" $1 ":x:" 100000 + $1 ":alice"}' >>/etc/group`, n))
		want := strings.TrimSpace(b.Sh(t, "id -G alice | wc -w"))
		term := b.Login(t, "alice")
		term.Send("open-sesame\n")
		term.Expect(`\$ `)
		if got := term.Run("id -G | wc -w"); got != want {
			t.Errorf("%q groups, want %s", got, want)
		}
		b.Out(t, term)
	}
}
