package daemon

import (
	"fmt"
	"strings"
	"testing"
)

// TestAUserInThousandsOfGroupsHasAllOfThem who are more than a message or a capability can
// name, as id(1) counts them; with her own two the last are as many as the kernel permits.
func TestAUserInThousandsOfGroupsHasAllOfThem(t *testing.T) {
	b := up(t)
	for _, n := range []int{5000, 65534} {
		b.Sh(t, fmt.Sprintf(`sed -i '/^many/d' /etc/group; seq %d | awk '{print "many" $1 ":x:" 100000 + $1 ":alice"}' >>/etc/group`, n))
		want := strings.TrimSpace(b.Sh(t, "id -G alice | wc -w"))
		if n == 65534 && want != "65536" {
			t.Fatalf("she is in %s groups, and the kernel permits 65536", want)
		}
		term := b.Login(t, "alice")
		term.Send("open-sesame\n")
		term.Expect(`\$ `)
		if got := term.Run("id -G | wc -w"); got != want {
			t.Errorf("%q groups, want %s", got, want)
		}
		b.Out(t, term)
	}
	b.Sh(t, "echo onemore:x:300000:alice >>/etc/group")
	term := b.Login(t, "alice")
	term.Send("open-sesame\n")
	term.Expect("alice is in more than 65536 groups")
}
