package authkeys

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTheRealSshdLetsInWhomWeLetIn logs in as root to Debian's sshd, which runs
// on loopback in a mount namespace of its own, once for each line.
func TestTheRealSshdLetsInWhomWeLetIn(t *testing.T) {
	if os.Geteuid() != 0 || testing.Short() {
		t.Skip("needs root, and some seconds")
	}
	for _, p := range []string{"/usr/sbin/sshd", "/usr/bin/ssh", "/usr/bin/ssh-keygen", "/usr/bin/unshare"} {
		if _, err := os.Stat(p); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	for _, k := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", filepath.Join(dir, k)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	conf := fmt.Sprintf("Port %s\nListenAddress 127.0.0.1\nHostKey %s/host\nPidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"+
		"AuthenticationMethods publickey\nAuthorizedKeysFile %s/keys\nMaxStartups 100\nPermitUserEnvironment yes\n", port, dir, dir)
	// sshd wants /run/sshd, which is there only while the machine's own sshd runs.
	command := func(args ...string) *exec.Cmd {
		return exec.Command("unshare", append([]string{"-m", "sh", "-c",
			`mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd "$@"`, "sh"}, args...)...)
	}
	if command("-T", "-f", "none", "-h", dir+"/host", "-o", "PerSourcePenalties=no").Run() == nil { // since OpenSSH 9.8
		conf += "PerSourcePenalties no\n"
	}
	if err := os.WriteFile(dir+"/conf", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	sshd := command("-D", "-f", dir+"/conf", "-E", dir+"/log")
	sshd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := sshd.Start(); err != nil {
		t.Skip(err)
	}
	defer sshd.Wait()
	defer sshd.Process.Kill()
	for i := 0; ; i++ {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			c.Close()
			break
		}
		if i == 100 {
			t.Skip("sshd does not start here")
		}
		time.Sleep(50 * time.Millisecond)
	}
	login := func() bool {
		cmd := exec.Command("ssh", "-F", "none", "-p", port, "-i", dir+"/user", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
			"-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "root@127.0.0.1", "true")
		out, err := cmd.CombinedOutput()
		if err != nil && !strings.Contains(string(out), "Permission denied") {
			log, _ := os.ReadFile(dir + "/log")
			t.Fatalf("ssh: %v: %s\n%s", err, out, log)
		}
		return err == nil
	}
	b, err := os.ReadFile(dir + "/user.pub")
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(string(b))
	if err := os.WriteFile(dir+"/keys", []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	if !login() {
		t.Skip("sshd lets nobody in here")
	}
	other := strings.Replace(key, "AAAAI", "AAAAJ", 1) // no key
	client := Client{Addr: netip.MustParseAddr("127.0.0.1"), Now: time.Now()}
	for _, line := range []string{
		key + " a comment", "\t " + key, "# " + key, "restrict " + key, "RESTRICT,No-Pty\t" + key, "no-restrict " + key, "nonsense " + key,
		`command="true" ` + key, `command="echo \"a b\" >/dev/null" ` + key, `command="true",command="true" ` + key, `command=true ` + key,
		`command="true ` + key, `command="true"x ` + key, "pty,, " + key, ",pty " + key, "pty, " + key, `="x" ` + key,
		`from="127.0.0.0/8" ` + key, `from="127.0.0.1" ` + key, `from="127.0.0.*" ` + key, `from="127.0.0.?,!127.0.0.1" ` + key,
		`from="10.0.0.0/8" ` + key, `from="*,!127.0.0.0/8" ` + key, `from="127.0.0.1/8" ` + key, `from="" ` + key, `from="::/0" ` + key,
		`from="127.1" ` + key, `from="0x7f.1" ` + key, `from="0177.0.0.1" ` + key, `from="127.0.1" ` + key, `from="2130706433" ` + key,
		`from="127.1/32" ` + key, `from="127/8" ` + key, `from="127.0.0.01" ` + key, `from="127.0.0.256" ` + key, `from="1.2" ` + key, `from="*,!127.1" ` + key,
		`from="::ffff:127.0.0.1" ` + key, `from="::FFFF:7f00:1" ` + key, `from="::ffff:127.0.0.0/104" ` + key, `from="*,!::ffff:127.0.0.1" ` + key,
		`expiry-time="20200101" ` + key, `expiry-time="20990101" ` + key, `expiry-time="209901010000Z" ` + key, `expiry-time="x" ` + key,
		`environment="A=b c" ` + key, `environment="A" ` + key, `environment="A-B=c" ` + key,
		`permitopen="h:80" ` + key, `permitopen="h" ` + key, `permitlisten="80" ` + key, `permitopen="[::1]:*" ` + key,
		`tunnel="1" ` + key, `tunnel="x" ` + key, `cert-authority ` + key, `principals="root" ` + key,
		key + "\x00 behind a NUL", "# \x00\n" + key, key + "\r", key + "\r c", "\r" + key, "\x00" + key, "pty\x00 " + key, strings.Repeat(" ", 100000) + key,
		`command="true #` + strings.Repeat("x", 50000) + `" ` + key, strings.Repeat("#\n", 1<<20) + key, strings.Repeat(other+"\n", 20000) + key,
		"no-touch-required,verify-required " + key, strings.Replace(key, "ssh-ed25519", "ssh-rsa", 1), key[:len(key)-8],
	} {
		if err := os.WriteFile(dir+"/keys", []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		es, _, err := collect(Entries(strings.NewReader(line + "\n")))
		if err != nil {
			t.Fatal(err)
		}
		ours := len(es) == 1 && es[0].Options.Check(client, false) == nil
		if theirs := login(); ours != theirs {
			t.Errorf("%.300q: we let in %v, sshd %v", line, ours, theirs)
		}
	}
}
