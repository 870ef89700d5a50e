package config

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConfig(t *testing.T) {
	c, err := Parse("f", strings.NewReader("# a comment\n\nFRONTEND\t_login  login\nFrontEnd _sshfront sshd ssh\nLoginGraceTime 30\n Socket /run//x/../rpc \nSyslog none"))
	if err != nil {
		t.Fatal(err)
	}
	if c.FrontEnds["_login"] != (Binding{"login", "pam"}) || c.FrontEnds["_sshfront"] != (Binding{"sshd", "ssh"}) ||
		c.LoginGraceTime != 30*time.Second || c.Socket != "/run/rpc" || c.Syslog != "" || !c.ForSSH() {
		t.Errorf("%+v", c)
	}
}

// What is taken is within its bounds, and what is refused names its line.
func FuzzParse(f *testing.F) {
	f.Add("FrontEnd _login login\n")
	f.Add("FrontEnd _sshfront sshd ssh\nMaxSessions 1\nCapabilityLifetime 120\nLogLevel debug\n")
	f.Add("FrontEnd a .b\n\x00")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse("f", strings.NewReader(s))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		for user, fe := range c.FrontEnds {
			if user == "" || filepath.Base(fe.Service) != fe.Service || fe.Service[0] == '.' || fe.Proto != "pam" && fe.Proto != "ssh" {
				t.Errorf("%q: %s %+v", s, user, fe)
			}
		}
		for _, p := range []string{c.Socket, c.CapDir, c.PAMWorker, c.Become, c.SSHDConfig} {
			if !filepath.IsAbs(p) {
				t.Errorf("%q: %s", s, p)
			}
		}
		if len(c.FrontEnds) == 0 || c.MaxConversations < 1 || c.MaxSessions < 1 || c.MaxAuthTries < 1 ||
			c.CapabilityLifetime < time.Second || c.CapabilityLifetime > 2*time.Minute || c.LoginGraceTime < time.Second {
			t.Errorf("%q: %+v", s, c)
		}
	})
}
