package daemon

import (
	"bytes"
	"fmt"
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

// TestFail2banAndSshguardSeeWhoAttacksAsWithSshd has clients of several addresses fail,
// with ours and with sshd, and asks fail2ban's own filter for sshd and sshguard's parser,
// as the packages ship them, whom they would ban.
func TestFail2banAndSshguardSeeWhoAttacksAsWithSshd(t *testing.T) {
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
	sshd := b.SSHD(t, "UsePAM yes\nKbdInteractiveAuthentication yes\nDenyUsers bob\n")
	t.Run("attack", func(t *testing.T) {
		for name, port := range map[string]string{"ours": strings.TrimSpace(string(data)), "sshd": sshd.Port} {
			t.Run(name, func(t *testing.T) { t.Parallel(); attack(t, b, port) })
		}
	})

	// The two logs are one in the journal.
	ours := func() string {
		var all string
		for _, name := range []string{"auth", "sshfront"} {
			part, err := os.ReadFile(filepath.Join(logs, name))
			if err != nil {
				t.Fatal(err)
			}
			all += string(part)
		}
		return all
	}
	theirs := func() string { return sshd.Log.String() }
	for mode, want := range map[string]string{"normal": "20 21 22 23 24", "aggressive": "20 21 22 23 24 30 31 32 33"} {
		for name, log := range map[string]func() string{"ours": ours, "sshd": func() string { return asSyslog(theirs()) }} {
			var got string
			if !testbed.Eventually(func() bool { got = strings.Join(fail2ban(t, b.Top, mode, log()), " "); return got == want }) {
				t.Errorf("%s, mode=%s bans %s, not %s; the log:\n%s", name, mode, got, want, log())
			}
		}
	}
	var got, want string
	if !testbed.Eventually(func() bool {
		got, want = sshguard(t, b.Top, asSyslog(ours())), sshguard(t, b.Top, asSyslog(theirs()))
		return got == want && strings.Count(want, "\n") >= 7
	}) {
		t.Errorf("sshguard sees\n%s; with sshd\n%s; the log:\n%s\nsshd's:\n%s", got, want, ours(), theirs())
	}
}

// attack has clients come from an address each: those from 127.0.0.10 and .11 log in.
func attack(t *testing.T, b *bed, port string) {
	t.Helper()
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
}

var (
	logHead = regexp.MustCompile(`^.*?(?:sshd|sshfront)\[\d+\]: `)
	client  = regexp.MustCompile(`127\.0\.0\.([1-9]\d)\b`)
)

// asSyslog is a log as syslog has it. The process is the last number of the client's
// address, since not each log names the process; a line without one is about that of
// the next. sshd says only to syslog that a line is an error.
func asSyslog(log string) string {
	lines := slices.Collect(strings.Lines(log))
	pid := "1"
	for i, l := range slices.Backward(lines) {
		l = logHead.ReplaceAllString(strings.TrimRight(l, "\r\n"), "")
		if m := client.FindStringSubmatch(l); m != nil {
			pid = m[1]
		}
		if strings.HasPrefix(l, "PAM: ") || strings.HasPrefix(l, "kex_exchange_identification: ") {
			l = "error: " + l
		}
		lines[i] = fmt.Sprintf("%s host sshd[%s]: %s\n", time.Now().Format(time.Stamp), pid, l)
	}
	return strings.Join(lines, "")
}

// fail2ban has the last numbers of the clients' addresses that its filter finds.
func fail2ban(t *testing.T, top, mode, log string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "log") // it reads one
	if err := os.WriteFile(file, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(top, "build", "fail2ban") // by scripts/deps
	c := exec.Command("python3", root+"/usr/bin/fail2ban-regex", "-c", root+"/etc/fail2ban", "-o", "ip", file, "sshd[mode="+mode+"]")
	c.Env = append(os.Environ(), "PYTHONPATH="+root+"/usr/lib/python3/dist-packages")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("fail2ban-regex: %v: %s", err, out)
	}
	var hosts []string
	for _, m := range regexp.MustCompile(`(?m)^127\.0\.0\.([1-9]\d)$`).FindAllSubmatch(out, -1) {
		hosts = append(hosts, string(m[1]))
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// sshguard has the attacks that its parser finds, sorted: a service, an address, and how
// much it counts.
func sshguard(t *testing.T, top, log string) string {
	t.Helper()
	c := exec.Command(filepath.Join(top, "build", "sshguard", "usr/libexec/sshguard/sshg-parser")) // by scripts/deps
	c.Stdin = strings.NewReader(log)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("sshg-parser: %v: %s", err, out)
	}
	return strings.Join(slices.Sorted(strings.Lines(string(out))), "")
}
