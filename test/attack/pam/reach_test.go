package pam

import (
	"fmt"
	"testing"

	"p9auth/test/testbed"
)

// TestNobodyReachesAProcessWithRights tries, as each kind of user, each way into factotum
// and into a worker in the middle of a login.
func TestNobodyReachesAProcessWithRights(t *testing.T) {
	b := testbed.UpLogins(t)
	term := b.Login(t, "alice") // its worker has asked for the password
	defer term.Hangup()
	pids := []string{fmt.Sprint(b.Factotum(t)), fmt.Sprint(b.Worker(t))}
	for _, user := range []string{"_login", "_sshfront", "alice", "nobody"} {
		t.Run(user, func(t *testing.T) {
			argv := append([]string{b.Self(t), "attacker", "reaches"}, pids...)
			group := user
			if user == "nobody" {
				group = "nogroup"
			}
			WantHarmless(t, b, b.Start(t, append([]string{"setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--"}, argv...)...), b.Logged(violation))
		})
	}
}
