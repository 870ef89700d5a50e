package main

import (
	"fmt"
	"os/exec"
	"testing"

	"p9auth/test/testbed"
)

// sshdLog is where a server of sshd logs, in the testbed.
const sshdLog = "/run/sshd/log"

// sshd starts Debian's sshd with a configuration in the testbed, in place of the
// one before. It returns its port, and what ends it.
func (s *site) sshd(t *testing.T, conf string) (port string, end func()) {
	t.Helper()
	need(t, "/usr/sbin/sshd")
	port = testbed.FreePort(t)
	s.Sh(t, "mkdir -p /run/sshd")                                                                    // without it, sshd -t fails
	if s.Command("/usr/sbin/sshd", "-t", "-f", "none", "-o", "PerSourcePenalties=no").Run() == nil { // since OpenSSH 9.8
		conf = "PerSourcePenalties no\n" + conf
	}
	s.Write(t, "/run/sshd/config", fmt.Sprintf("Port %s\nListenAddress 127.0.0.1\nUsePAM yes\nPidFile none\n%s\n", port, conf))
	server := s.Command("/usr/sbin/sshd", "-D", "-f", "/run/sshd/config", "-E", sshdLog)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		server.Process.Kill()
		server.Wait()
	}
	t.Cleanup(end)
	if !testbed.Eventually(func() bool { return exec.Command("bash", "-c", "</dev/tcp/127.0.0.1/"+port).Run() == nil }) {
		t.Fatalf("sshd does not listen: %s", s.Sh(t, "cat "+sshdLog))
	}
	return port, end
}
