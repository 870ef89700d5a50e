package main

import (
	"fmt"
	"path/filepath"
	"time"
)

// How su and doas are measured: p9auth's stand beside util-linux's and opendoas, setuid,
// which are in the column of the machine's sshd.
const onlyTwo = "su and doas have two columns: p9auth's, and with sshd those that are setuid"

var suSkips = map[string]string{"sshd 10": onlyTwo, "dropbear": onlyTwo}

// su measures "su -c true", which alice calls, with bob's password.
func (b *bed) su(s *server, n sizes) ([]figure, error) {
	return b.called(s, n, "su -c true", "echo "+password+" | "+b.program(s, "su")+" -c true bob 2>/dev/null")
}

// doas measures "doas true", which alice calls, by a rule with nopass.
func (b *bed) doas(s *server, n sizes) ([]figure, error) {
	if err := b.run("sh", "-ec", `rm -f /etc/doas.conf; echo permit nopass `+user+` >/etc/doas.conf
[ -e /etc/pam.d/doas ] || printf '@include common-auth\n@include common-account\n@include common-session-noninteractive\n' >/etc/pam.d/doas`); err != nil {
		return nil, err
	}
	return b.called(s, n, "doas true", b.program(s, "doas")+" true")
}

// program is the path of such a program.
func (b *bed) program(s *server, name string) string {
	if s.name == "p9auth" {
		return filepath.Join(filepath.Dir(filepath.Dir(b.script)), "bin", name)
	}
	return "/usr/bin/" + name
}

// called measures a command that alice calls again and again: all that has to do with it
// is in the server's control group.
func (b *bed) called(s *server, n sizes, what, command string) ([]figure, error) {
	idle := len(s.pids())
	script := fmt.Sprintf(`echo $$ >%s/cgroup.procs
exec setpriv --reuid %s --regid %s --init-groups -- sh -ec 'i=0; while [ $i -lt %d ]; do %s; i=$((i+1)); done'`,
		s.group, user, user, n.Logins, command)
	used, err := s.processor()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := b.run("sh", "-ec", script); err != nil {
		return nil, err
	}
	took := time.Since(start)
	s.settle(idle)
	after, err := s.processor()
	return []figure{
		{what, "ms", ms(took) / float64(n.Logins)},
		{what + ", processor", "ms", (after - used) * 1000 / float64(n.Logins)},
	}, err
}
