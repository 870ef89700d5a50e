package daemon

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"p9auth/test/testbed"
)

// syslogd is a syslog daemon that writes what it is sent to a file, line by
// line, without the priority.
func syslogd(args []string) {
	socket, file := args[0], args[1]
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		panic(err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	b := make([]byte, 1<<16)
	for {
		n, err := c.Read(b)
		if err != nil {
			panic(err)
		}
		_, line, _ := bytes.Cut(b[:n], []byte(">"))
		f.Write(append(line, '\n'))
	}
}

// TestFail2banSeesWhoAttacks has clients of several addresses fail, and asks
// fail2ban's own filter for sshd, as the package ships it, which it would ban.
func TestFail2banSeesWhoAttacks(t *testing.T) {
	b := &bed{&testbed.Logins{Bed: testbed.Up(t)}}
	logs := filepath.Join(b.Dir, "log")
	daemon := b.Command(b.Self(t), "syslogd", "/run/log-test", filepath.Join(logs, "auth"))
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { daemon.Process.Kill(); daemon.Wait() })
	b.Write(t, "/etc/p9auth/factotum.conf", "FrontEnd _login login\nFrontEnd _sshfront sshd ssh\nSyslog /run/log-test\n")
	b.Sh(t, "echo DenyUsers bob >>/etc/p9auth/sshd_config")
	b.HUP(t, "configuration read again")
	data, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	port := strings.TrimSpace(string(data))

	stranger := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stranger).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	client := func(host string, pass string, args ...string) {
		a := append([]string{"-p", pass, "ssh", "-F", "none", "-b", "127.0.0." + host, "-p", port, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-o", "NumberOfPasswordPrompts=1", "-o", "ConnectTimeout=30"}, args...)
		out, err := exec.Command("sshpass", a...).CombinedOutput()
		if (err == nil) != (host == "10" || host == "11") {
			t.Errorf("the client at 127.0.0.%s: %v: %s", host, err, out)
		}
	}
	byPassword := []string{"-o", "PreferredAuthentications=password"}
	client("10", "open-sesame", append(byPassword, "alice@127.0.0.1", "true")...)
	client("11", "", "-i", filepath.Join(b.Dir, "keys", "alice"), "alice@127.0.0.1", "true")
	client("20", "wrong", append(byPassword, "alice@127.0.0.1", "true")...)
	client("21", "wrong", append(byPassword, "mallory@127.0.0.1", "true")...)
	client("22", "wrong", "-o", "PreferredAuthentications=keyboard-interactive", "alice@127.0.0.1", "true")
	client("23", "open-sesame", append(byPassword, "bob@127.0.0.1", "true")...)
	client("30", "", "-i", stranger, "-o", "IdentitiesOnly=yes", "-o", "PreferredAuthentications=publickey", "alice@127.0.0.1", "true")
	client("31", "", "-o", "KexAlgorithms=diffie-hellman-group1-sha1", "alice@127.0.0.1", "true")
	client("24", "", "-i", stranger, "-o", "IdentitiesOnly=yes", "-o", "PreferredAuthentications=publickey", "mallory@127.0.0.1", "true")
	// Somebody who says nothing, and somebody who does not speak SSH.
	for host, text := range map[byte]string{32: "", 33: "GET / HTTP/1.0\r\n\r\n"} {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}, Timeout: testbed.Patience}
		c, err := d.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(text))
		c.(*net.TCPConn).CloseWrite()
		c.SetReadDeadline(time.Now().Add(testbed.Patience))
		for b := make([]byte, 512); err == nil; _, err = c.Read(b) {
		}
		c.Close()
	}

	banned := func(mode string) []string {
		// fail2ban-regex reads one file; the two logs are one in the journal.
		all := filepath.Join(t.TempDir(), "all")
		var text []byte
		for _, name := range []string{"auth", "sshfront"} {
			part, err := os.ReadFile(filepath.Join(logs, name))
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, part...)
		}
		if err := os.WriteFile(all, text, 0o600); err != nil {
			t.Fatal(err)
		}
		root := filepath.Join(b.Top, "build", "fail2ban") // by scripts/deps
		c := exec.Command("python3", root+"/usr/bin/fail2ban-regex", "-c", root+"/etc/fail2ban", "-o", "ip", all, "sshd[mode="+mode+"]")
		c.Env = append(os.Environ(), "PYTHONPATH="+root+"/usr/lib/python3/dist-packages")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("fail2ban-regex: %v: %s", err, out)
		}
		var hosts []string
		for _, m := range regexp.MustCompile(`(?m)^127\.0\.0\.(\d+)$`).FindAllSubmatch(out, -1) {
			hosts = append(hosts, string(m[1]))
		}
		slices.Sort(hosts)
		return slices.Compact(hosts)
	}
	for mode, want := range map[string]string{"normal": "20 21 22 23 24", "aggressive": "20 21 22 23 24 30 31 32 33"} {
		var got string
		if !testbed.Eventually(func() bool { got = strings.Join(banned(mode), " "); return got == want }) {
			text, _ := exec.Command("sh", "-c", "tail -n +1 "+logs+"/auth "+logs+"/sshfront").Output()
			t.Errorf("mode=%s bans %s, not %s; the logs:\n%s", mode, got, want, text)
		}
	}
}
