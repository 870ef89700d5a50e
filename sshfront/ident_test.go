package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"p9auth/test/testbed"
)

// What is not an SSH client of protocol 2 is turned away at once, and sshfront and
// Debian's sshd send and log the same.
func TestAWrongIdentificationIsAnsweredAsBySshd(t *testing.T) {
	s := newSite(t)
	s.reload(t, "PerSourcePenalties no\nMaxStartups 100")
	theirs, _ := s.sshd(t, "")
	// greet sends a line, and returns what came after the server's own and what
	// was logged, without the port.
	greet := func(port, log, line string) string {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		// Its own line first, since a reset may take what is on the way.
		for b := make([]byte, 1); b[0] != '\n'; {
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatal(err)
			}
		}
		io.WriteString(c, line)
		if line == "" {
			c.(*net.TCPConn).CloseWrite()
		}
		reply, err := io.ReadAll(c)
		if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Errorf("port %s: %q is waited for", port, line)
		}
		mine := fmt.Sprintf(" port %d", c.LocalAddr().(*net.TCPAddr).Port)
		var logged []string
		if !testbed.Eventually(func() bool {
			logged = nil
			lines := strings.Split(strings.ReplaceAll(s.Sh(t, "cat "+log), "\r\n", "\n"), "\n")
			for i, l := range lines {
				if i > 0 && strings.Contains(l, mine) && (strings.Contains(l, "banner exchange") || strings.Contains(l, "Connection closed by")) {
					for _, l := range lines[i-1 : i+1] {
						// Ours have a time, a process and a level before them.
						for _, w := range []string{"kex_exchange_identification:", "banner exchange:", "Bad remote", "Protocol major", "Connection closed", "probed"} {
							if j := strings.Index(l, w); j >= 0 {
								l = l[j:]
								break
							}
						}
						logged = append(logged, strings.ReplaceAll(l, mine, ""))
					}
				}
			}
			return logged != nil
		}) {
			t.Errorf("port %s: %q is not logged", port, line)
		}
		return string(reply) + strings.Join(logged, "\n")
	}
	for _, line := range []string{"GET / HTTP/1.0\r\n", "SSH-1.5-x\r\n", "SSH-3.0-x\n", "SSH-2.0\r\n", "SSH-2.0-\r\n", "\r\n", "SSH-2.0-x\x00", "SSH-2.0-x\ry",
		"hello\x1b[1m\n", "SSH-2.0-Probe-1.0\r\n", ""} {
		got, want := greet(s.port, s.Dir+"/log/sshfront", line), greet(theirs, sshdLog, line)
		if got != want || want == "" {
			t.Errorf("%q: got %q, sshd has %q", line, got, want)
		}
	}
	s.noneLeft(t)
}
