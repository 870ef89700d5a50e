//go:build containers

package container

import "testing"

// Who has a ticket is let in as by sshd, and has what goes along until the session ends.
func TestATicketLogsInAsWithSSHD(t *testing.T) {
	m := Boot(t, "")
	want(t, m.Sh(t, ". /etc/profile; realm 2>&1"), "ready")
	in := func() string {
		return m.Sh(t, `. /etc/profile; by-ticket 'id; klist | grep -E "principal|krbtgt" | sed "s/.* krbtgt/krbtgt/"; stat -c "%U %a" "${KRB5CCNAME#FILE:}"; cat "$SSH_USER_AUTH"'
for i in $(seq 100); do ls /tmp/krb5cc_* >/dev/null 2>&1 || break; sleep 0.1; done; ls /tmp | grep krb5cc_ || echo removed`)
	}
	m.Sh(t, "echo ExposeAuthInfo yes >/etc/ssh/sshd_config.d/info.conf; systemctl try-restart ssh")
	sshd := in()
	want(t, sshd, `uid=\d+\(alice\) .*`, `Default principal: alice@P9AUTH.TEST`, `krbtgt/P9AUTH.TEST@P9AUTH.TEST`, `alice 600`, `gssapi-with-mic alice@P9AUTH.TEST`, `removed`)
	want(t, m.Sh(t, "p9auth-switch "+accepted+" ssh on; echo status $?"), "status 0")
	if ours := in(); ours != sshd {
		t.Errorf("by sshd\n%s\nby ours\n%s", sshd, ours)
	}
	t.Log(sshd)
}
