package testbed

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A Log is what a program prints, which a test can read meanwhile.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// An SSHD is Debian's sshd in a testbed, at an address of the loopback network.
type SSHD struct {
	Port string
	Log  Log
}

// SSHD starts sshd with the lines of a configuration, until the test ends.
func (b *Bed) SSHD(tb testing.TB, conf string) *SSHD {
	tb.Helper()
	lines := "ListenAddress 127.0.0.1\nPidFile none\n"
	b.Sh(tb, "mkdir -p /etc/p9 /run/sshd") // without /run/sshd, sshd -t fails
	// Tests have more refusals than sshd takes from one address, since 9.8.
	if b.Command("/usr/sbin/sshd", "-t", "-f", "none", "-o", "PerSourcePenalties=no").Run() == nil {
		lines += "PerSourcePenalties no\n"
	}
	b.Write(tb, "/etc/p9/sshd_config", lines+conf)
	for try := 1; ; try++ {
		s := &SSHD{Port: FreePort(tb)}
		// A signal that is ignored here would be ignored by its users' programs.
		cmd := b.Command("env", "--default-signal", "/usr/sbin/sshd", "-D", "-e", "-f", "/etc/p9/sshd_config", "-p", s.Port)
		cmd.Stderr = &s.Log
		if err := cmd.Start(); err != nil {
			tb.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		listens := false
		Eventually(func() bool {
			select {
			case <-ended:
				return true
			default:
			}
			c, err := net.Dial("tcp", "127.0.0.1:"+s.Port)
			if err == nil {
				c.Close()
			}
			listens = err == nil
			return listens
		})
		if listens {
			tb.Cleanup(func() { cmd.Process.Kill(); <-ended })
			return s
		}
		cmd.Process.Kill()
		<-ended
		// Somebody's connection may have got the port meanwhile.
		if try == 3 || !strings.Contains(s.Log.String(), "Address already in use") {
			tb.Fatalf("sshd does not listen: %s", s.Log.String())
		}
	}
}

// Configure has factotum and sshfront take a configuration for SSH.
func (b *Bed) Configure(tb testing.TB, conf string) {
	tb.Helper()
	b.Write(tb, "/etc/p9auth/sshd_config", conf)
	for _, program := range []string{"factotum", "sshfront"} {
		log := func() string { return b.Sh(tb, "cat "+b.Dir+"/log/"+program) }
		before := strings.Count(log(), "configuration read again")
		if err := syscall.Kill(b.Pids(program)[0], syscall.SIGHUP); err != nil {
			tb.Fatal(err)
		}
		if !Eventually(func() bool { return strings.Count(log(), "configuration read again") > before }) {
			tb.Fatalf("%s does not take the configuration: %s", program, log())
		}
	}
}
