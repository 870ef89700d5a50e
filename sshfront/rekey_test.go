package main

import (
	"fmt"
	"strings"
	"testing"
)

// RekeyLimit by bytes has the key exchanges that sshd has, whichever side the bytes
// come from, and whichever side counts.
func TestRekeyLimitHasAsManyKeyExchangesAsWithSSHD(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	const mib = 16
	for _, server := range []string{"1M", "1G"} {
		conf := "RekeyLimit " + server + " none"
		s.configure(t, conf)
		port, end := s.sshd(t, conf)
		client := map[string]string{"1M": "1G", "1G": "1M"}[server]
		for what, run := range map[string]string{
			"down": fmt.Sprintf("'head -c %dM /dev/zero' </dev/null 2>&1 >out; wc -c <out", mib),
			"up":   fmt.Sprintf("'wc -c' 2>&1 < <(head -c %dM /dev/zero)", mib),
		} {
			var n [2]int
			for i, p := range []string{s.port, port} {
				out, err := s.run(t, "ssh -v -o BatchMode=yes -o RekeyLimit="+client+" -p "+p+" ${options/-o LogLevel=ERROR/} alice@127.0.0.1 "+run)
				if err != nil || !strings.Contains(out, fmt.Sprint(mib<<20)) {
					t.Fatalf("%s %s, server %d: %v: %.300s", conf, what, i, err, out)
				}
				n[i] = strings.Count(out, "SSH2_MSG_KEXINIT received")
			}
			// Who counts what it writes itself is exact; sshd begins a little before
			// its limit, as it adds bytes to blocks (packet.c,
			// ssh_packet_need_rekeying). Otherwise much is under way when the
			// other side hears of the key exchange: how much is chance.
			least := n[1] / 4
			if what == "down" && server == "1M" {
				least = mib - 1
			}
			if n[0] < least || n[0] > n[1]+mib/2 {
				t.Errorf("%s at the server, %s: %d key exchanges, sshd has %d", server, what, n[0], n[1])
			}
			t.Logf("%s at the server, %s at the client, %s: %d key exchanges, sshd has %d", server, client, what, n[0], n[1])
		}
		end()
	}
}
