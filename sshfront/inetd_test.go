package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// What connects by pipes without UnknownAddresses is refused, and the log says why.
func TestAConnectionByPipesIsRefusedUnlessItIsPermitted(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	out, err := s.run(t, `ssh $options -o BatchMode=yes -o ProxyCommand="`+s.Top+"/scripts/testbed exec "+s.Dir+" "+s.Bin("sshfront")+` -i -E /run/ours" alice@nowhere true`)
	if err == nil {
		t.Errorf("it logs in: %s", out)
	}
	const why = "its address is unknown: see UnknownAddresses in factotum.conf(5)"
	if log := s.Sh(t, "cat /run/ours"); !strings.Contains(log, why) {
		t.Errorf("sshfront's log: %s", log)
	}
	s.WantLog(t, regexp.QuoteMeta(why))
	s.noneLeft(t)
}

// Over pipes, as a ProxyCommand has them, a client has no address. sshfront and Debian's
// sshd say and log the same of it, and let in the same keys.
func TestAConnectionByPipesIsServedAsBySshd(t *testing.T) {
	need(t, "ssh", "/usr/sbin/sshd")
	s := newSite(t)
	const conf = "HostKey /etc/ssh/ssh_host_ed25519_key\nUsePAM yes\nLogLevel VERBOSE\n" +
		"Match Address 0.0.0.0/0,127.0.0.1\nForceCommand echo an address\n"
	s.Local(t, "UnknownAddresses yes")
	s.configure(t, conf)
	s.Sh(t, "mkdir -p /run/sshd")
	s.Write(t, "/run/sshd/config", conf)
	enter := s.Top + "/scripts/testbed exec " + s.Dir + " "
	servers := []string{
		enter + s.Bin("sshfront") + " -i -E /run/ours",
		enter + "/usr/sbin/sshd -i -f /run/sshd/config -E /run/sshds",
	}
	key := strings.TrimSpace(s.Sh(t, "cat /home/alice/.ssh/authorized_keys"))
	about := regexp.MustCompile(`(Connection from|Accepted) .*\bUNKNOWN\b[^"\r\n]*`)
	for _, from := range []string{"", `from="*" `, `from="127.0.0.1,0.0.0.0/0" `} {
		s.Write(t, "/home/alice/.ssh/authorized_keys", from+key+"\n")
		var got [2]string
		before := len(s.Log())
		for i, log := range []string{"/run/ours", "/run/sshds"} {
			out, err := s.run(t, `head -c 3000000 /dev/zero | ssh $options -o BatchMode=yes -o ProxyCommand="`+servers[i]+`" alice@nowhere \
				'echo $SSH_CONNECTION, $SSH_CLIENT; id -un; wc -c; head -c 3000000 /dev/zero; exit 3' | tr -d '\0'`)
			said := s.Sh(t, "cat "+log+"; rm "+log)
			if i == 0 {
				said += "\n" + s.Log()[before:] // who has logged in is for factotum to say
			}
			got[i] = fmt.Sprintf("%s%v\n%s\n", out, err, strings.Join(about.FindAllString(said, -1), "\n"))
		}
		if got[0] != got[1] {
			t.Errorf("%q: with sshfront:\n%s\nwith sshd:\n%s", from, got[0], got[1])
		}
	}
	s.noneLeft(t)
}
