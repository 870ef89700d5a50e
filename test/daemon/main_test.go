// Package daemon breaks a running p9auth: PAM modules that misbehave, processes that
// are killed, descriptors that stall, sockets that are handed over, and many
// logins at once. It has tests only.
package daemon

import (
	"bytes"
	"testing"

	"p9auth/test/attack/pam"
	"p9auth/test/testbed"
)

func TestMain(m *testing.M) {
	testbed.Main(m, testbed.Programs{"attacker": pam.Attacker, "manager": manager, "syslogd": syslogd, "journald": journald, "unread": unread, "bind": testbed.Binder})
}

// A bed is a testbed with what these tests do to it.
type bed struct{ *testbed.Logins }

func up(t *testing.T) *bed {
	t.Helper()
	return &bed{testbed.UpLogins(t)}
}

// oneLine says whether the text is one line that is not empty.
func oneLine(b []byte) bool {
	return len(bytes.TrimSpace(b)) > 0 && bytes.Count(b, []byte("\n")) == 1
}
