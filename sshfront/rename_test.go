package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// rename is a client that changes its mind about who it is.
const rename = `
import paramiko, socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
t = paramiko.Transport(s)
t.start_client()
for user in sys.argv[2:]:
    try:
        t.auth_password(user, "wrong")
    except Exception as e:
        print(user, "closed" if not t.is_active() else "denied")
`

// A client that names another user is disconnected and logged as by sshd, and nobody
// is taken for an attacker on factotum. Another style is not another user.
func TestAClientThatNamesAnotherUserIsDisconnectedAsBySSHD(t *testing.T) {
	need(t, "python3")
	s := newSite(t)
	if err := os.WriteFile(filepath.Join(s.tmp, "rename.py"), []byte(rename), 0o644); err != nil {
		t.Fatal(err)
	}
	s.configure(t, "PerSourcePenalties no")
	port, end := s.sshd(t, "PasswordAuthentication yes")
	defer end()
	ourLog := func() string { return s.Sh(t, "cat "+s.Dir+"/log/sshfront") }
	theirLog := func() string { return s.Sh(t, "cat "+sshdLog) }
	for _, c := range []struct{ users, want, logged string }{
		{"alice bob", "alice denied\nbob closed\n", "Change of username or service not allowed: (alice,ssh-connection) -> (bob,ssh-connection)"},
		{"alice:one alice:two", "alice:one denied\nalice:two denied\n", ""},
		{"mallory alice", "mallory denied\nalice closed\n", "Change of username or service not allowed: (mallory,ssh-connection) -> (alice,ssh-connection)"},
	} {
		for i, p := range []string{s.port, port} {
			out, err := s.run(t, "/usr/bin/python3 rename.py "+p+" "+c.users+" 2>/dev/null")
			if err != nil || out != c.want {
				t.Errorf("%s, server %d: %v: %q", c.users, i, err, out)
			}
			log := []func() string{ourLog, theirLog}[i]
			if !testbed.Eventually(func() bool { return strings.Contains(log(), c.logged) }) {
				t.Errorf("%s, server %d: the log does not say %q: %s", c.users, i, c.logged, log())
			}
		}
	}
	if n := s.Logged("protocol violation"); n > 0 {
		t.Errorf("%d clients were taken for attackers", n)
	}
	s.noneLeft(t)
}
