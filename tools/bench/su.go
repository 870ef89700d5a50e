package main

import (
	"fmt"
	"path/filepath"
	"time"
)

// How su is measured: p9auth's stands beside util-linux's, setuid, which is in the
// column of the machine's sshd.
const onlyTwo = "su has two columns: p9auth's, and with sshd util-linux's, setuid"

var suSkips = map[string]string{"sshd 10": onlyTwo, "dropbear": onlyTwo}

// su measures "su -c true", which alice calls, with bob's password: all that has to do
// with it is in the server's control group.
func (b *bed) su(s *server, n sizes) ([]figure, error) {
	program := "/usr/bin/su"
	if s.name == "p9auth" {
		program = filepath.Join(filepath.Dir(filepath.Dir(b.script)), "bin", "su")
	}
	idle := len(s.pids())
	script := fmt.Sprintf(`echo $$ >%s/cgroup.procs
exec setpriv --reuid %s --regid %s --init-groups -- sh -ec 'i=0; while [ $i -lt %d ]; do echo %s | %s -c true bob 2>/dev/null; i=$((i+1)); done'`,
		s.group, user, user, n.Logins, password, program)
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
		{"su -c true", "ms", ms(took) / float64(n.Logins)},
		{"su -c true, processor", "ms", (after - used) * 1000 / float64(n.Logins)},
	}, err
}
