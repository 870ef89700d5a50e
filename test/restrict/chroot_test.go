package restrict

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/test/testbed"
)

// roots are Match blocks by the client's address, each with a root directory.
const roots = `
Match Address 127.0.0.2
	ChrootDirectory /srv/jail
Match Group wizards Address 127.0.0.3
	ChrootDirectory /srv/%u
	ForceCommand internal-sftp
	AllowTcpForwarding no
	X11Forwarding no
Match Address 127.0.0.4
	ChrootDirectory /srv/jail
	ForceCommand internal-sftp -d /home/%u
Match Address 127.0.0.5
	ChrootDirectory none
Match Address 127.0.0.6
	ChrootDirectory /srv/closed/jail/
Match Address 127.0.0.7
	ChrootDirectory /srv/link
Match Address 127.0.0.8
	ChrootDirectory /srv/jail
	ForceCommand /bin/echo forced
Match Address 127.0.1.1
	ChrootDirectory %h
Match Address 127.0.1.2
	ChrootDirectory /srv/open/jail
Match Address 127.0.1.3
	ChrootDirectory jail
Match Address 127.0.1.4
	ChrootDirectory /srv/nonexistent
Match Address 127.0.1.5
	ChrootDirectory /srv/file
Match Address 127.0.1.6
	ChrootDirectory /srv/group/jail
Match Address 127.0.1.8
	ChrootDirectory /srv/indirect
Match Address 127.0.1.7
	ChrootDirectory /srv/file/jail
`

// makeRoots makes what the blocks name. alice's shell is /bin/sh, which is in the root.
const makeRoots = `
usermod -s /bin/sh alice
sed -i /pam_motd/d /etc/pam.d/sshd
mount -t tmpfs -o mode=755 tmpfs /srv
mkdir -p /srv/jail /srv/closed /srv/open /srv/group /srv/alice
cd /srv/jail
mkdir -p bin dev tmp etc/ssh home/alice/.ssh
chmod 1777 tmp
cp "$BUSYBOX" bin/busybox
for p in sh ls cat id pwd echo env tty sleep; do ln -s busybox bin/$p; done
mknod -m 666 dev/null c 1 3
echo the motd inside >etc/motd
echo INSIDE=yes >home/alice/.ssh/environment
echo 'echo rc in $(pwd)' >home/alice/.ssh/rc
echo inside >inside
chown -R alice:alice home/alice
touch /srv/file
ln -s jail /srv/link
cp -a /srv/jail /srv/closed/
chmod 700 /srv/closed
cp -a /srv/jail /srv/open/
chmod 1777 /srv/open
cp -a /srv/jail /srv/group/
chgrp alice /srv/group; chmod 775 /srv/group
cp -a /srv/jail /home/alice/
ln -s /home/alice/jail /srv/indirect
mkdir /srv/alice/upload
echo down >/srv/alice/down
chown alice /srv/alice/upload
echo outside >/home/alice/outside
`

// upInRoots starts both servers with those blocks. The key may log alice in.
func upInRoots(t *testing.T) (*pair, ssh.Signer) {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip(err)
	}
	key, line := newKey("")
	p := up(t, "PermitUserEnvironment yes\nPrintMotd yes\n"+roots, line)
	p.Sh(t, "BUSYBOX="+busybox+"\n"+makeRoots)
	return p, key
}

// TestARootDirectoryIsAsWithSSHD does in each root what a user can do in a session.
func TestARootDirectoryIsAsWithSSHD(t *testing.T) {
	p, key := upInRoots(t)
	run := func(command string) func(*ssh.Client) string {
		return func(c *ssh.Client) string {
			return ran(c, "", func(s *ssh.Session) error { return s.Start(command) })
		}
	}
	shell := func(pty bool, input string) func(*ssh.Client) string {
		return func(c *ssh.Client) string {
			return ran(c, input, func(s *ssh.Session) error {
				if pty {
					if err := s.RequestPty("vt100", 24, 80, ssh.TerminalModes{ssh.ECHO: 0}); err != nil {
						return err
					}
				}
				return s.Shell()
			})
		}
	}
	// In the root, and outside of it, somebody listens on a unix socket.
	for _, dir := range []string{"/srv/jail/tmp", "/srv/alice/upload", "/srv/closed/jail/tmp", "/tmp"} {
		l := p.Command("socat", "UNIX-LISTEN:"+dir+"/listens,fork,mode=666", "PIPE")
		if err := l.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Process.Kill(); l.Wait() })
	}
	asks := []struct {
		name string
		ask  func(*ssh.Client) string
	}{
		{"a command", run("pwd; cat /inside; ls / | sort; id -u; id -g; cat /home/alice/outside; echo $INSIDE $HOME $SHELL $PATH $USER $LOGNAME")},
		{"a command that is not there", run("/bin/true")},
		{"the descriptors of a command", run("sleep 0 <&3 || echo none; sleep 0 <&5 || echo none; sleep 0 <&6 || echo none")},
		{"a shell", shell(false, "pwd; cat /inside; exit 3\n")},
		{"a shell at a terminal", shell(true, "echo at $SSH_TTY; exit\n")},
		{"another one", shell(true, "tty; exit\n")},
		{"sftp", sftp},
		{"a terminal", inSession("pty-req", struct {
			Term             string
			Cols, Rows, W, H uint32
			Modes            string
		}{"vt100", 80, 24, 0, 0, "\x00"})},
		{"an agent", func(c *ssh.Client) string {
			return inSession("auth-agent-req@openssh.com", nil)(c) + run("ls /tmp | grep -c agent; echo ${SSH_AUTH_SOCK%/*/*}")(c)
		}},
		{"X11", inSession("x11-req", struct {
			Single        bool
			Proto, Cookie string
			Screen        uint32
		}{false, "MIT-MAGIC-COOKIE-1", "0123456789abcdef", 0})},
		{"a port", open("direct-tcpip", tcp{"127.0.0.1", number(p.theirs), "127.0.0.1", 1})},
		{"a port by name", open("direct-tcpip", tcp{"localhost", number(p.theirs), "127.0.0.1", 1})},
		{"listening on a port", global("tcpip-forward", addr{"127.0.0.1", 0})},
		{"a socket", open("direct-streamlocal@openssh.com", struct {
			Path, From string
			Port       uint32
		}{"/tmp/listens", "", 0})},
		{"a socket outside", open("direct-streamlocal@openssh.com", struct {
			Path, From string
			Port       uint32
		}{"/srv/alice/upload/listens", "", 0})},
	}
	// A terminal's number, an agent's directory, a port; and a line of the log, which
	// our sshd has on its standard error.
	vary := regexp.MustCompile(`/dev/pts/\d+|/tmp/ssh-\w+|\b\d{4,5}\b|Connection from user .*: refusing non-sftp session\r\r\n`)
	cases := 0
	for _, from := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8"} {
		for _, hush := range []bool{false, true} {
			p.Sh(t, map[bool]string{true: "touch", false: "rm -f"}[hush]+" /srv/jail/home/alice/.hushlogin")
			for _, a := range asks {
				if hush && !strings.Contains(a.name, "shell") {
					continue
				}
				do := func(port string) string {
					c, err := login(port, from, "alice", ssh.PublicKeys(key))
					if err != nil {
						return "no login"
					}
					defer c.Close()
					return vary.ReplaceAllString(a.ask(c), "")
				}
				cases++
				want, got := do(p.theirs), do(p.ours)
				if t.Logf("%s, %s: %q", from, a.name, want); !strings.EqualFold(got, want) {
					t.Errorf("%s, %s, hush %v: sshd %q, ours %q", from, a.name, hush, want, got)
				}
			}
		}
	}
	t.Logf("%d cases", cases)
}

// TestSFTPInARootDirectoryIsAsWithSSHD puts, gets and lists with OpenSSH's client.
func TestSFTPInARootDirectoryIsAsWithSSHD(t *testing.T) {
	p, _ := upInRoots(t)
	dir := t.TempDir()
	for _, from := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.6"} {
		do := func(port string) string {
			c := exec.Command("sh", "-c", fmt.Sprintf(`cd %s
printf 'hello\n' >up; rm -f got
sshpass -p %s sftp -q -oBatchMode=no -oBindAddress=%s -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null -oLogLevel=ERROR -oPubkeyAuthentication=no -P %s -b - alice@127.0.0.1 <<'END' 2>&1
pwd
ls -1
-ls -1 /
-put up /upload/up-%s
-get /upload/up-%s got
-put up up-%s
-ls -l ../../../etc/passwd
-get /home/alice/outside
-chmod 600 up-%s
-rename up-%s moved-%s
-rm moved-%s
-rm /upload/up-%s
-symlink /etc/passwd upload/link
-get upload/link
-rm upload/link
-df
END
echo $?; cat got`, dir, testbed.Password, from, port, "x", "x", "x", "x", "x", "x", "x", "x"))
			out, err := c.CombinedOutput()
			if err != nil && len(out) == 0 {
				t.Fatal(err)
			}
			return regexp.MustCompile(`(?m)^ +\d.*%$`).ReplaceAllString(string(out), "SIZES")
		}
		want, got := do(p.theirs), do(p.ours)
		if t.Logf("%s: %s", from, want); got != want {
			t.Errorf("%s: sshd\n%s\nours\n%s", from, want, got)
		}
	}
}

// TestARootDirectoryThatOthersCanChangeIsRefused has in its path what is not root's
// alone, or no directory.
func TestARootDirectoryThatOthersCanChangeIsRefused(t *testing.T) {
	p, key := upInRoots(t)
	for from, text := range map[string]string{
		"127.0.1.1": `bad ownership or modes for chroot directory "/home/alice"`,
		"127.0.1.2": `bad ownership or modes for chroot directory component "/srv/open/"`,
		"127.0.1.3": `chroot path does not begin at root`,
		"127.0.1.4": `stat("/srv/nonexistent"): no such file or directory`,
		"127.0.1.5": `chroot path "/srv/file" is not a directory`,
		"127.0.1.6": `bad ownership or modes for chroot directory component "/srv/group/"`,
		"127.0.1.7": `stat("/srv/file/"): not a directory`,
	} {
		for _, port := range []string{p.theirs, p.ours} {
			c, err := login(port, from, "alice", ssh.PublicKeys(key))
			if err != nil {
				continue
			}
			for _, ask := range []func(*ssh.Client) string{
				func(c *ssh.Client) string {
					return ran(c, "", func(s *ssh.Session) error { return s.Start("echo in") })
				},
				sftp, open("direct-tcpip", tcp{"127.0.0.1", number(p.theirs), "127.0.0.1", 1}),
			} {
				if got := ask(c); got == "in\n" || got == "sftp" || got == "granted" {
					t.Errorf("%s, port %s (sshd is %s): %s", text, port, p.theirs, got)
				}
			}
			c.Close()
		}
		theirs := regexp.MustCompile("(?i)" + regexp.QuoteMeta(text))
		if !testbed.Eventually(func() bool {
			return theirs.MatchString(p.log.String()) && theirs.MatchString(strings.ReplaceAll(p.Log(), `\"`, `"`))
		}) {
			t.Errorf("one of the logs does not have %q; sshd's ends with %.2000s", text, p.log.String()[max(0, len(p.log.String())-2000):])
		}
	} // By a link, into a directory of alice's. sshd goes there: she could have the link
	// lead to another root, such as /.
	if c, err := login(p.ours, "127.0.1.8", "alice", ssh.PublicKeys(key)); err == nil {
		if got := ran(c, "", func(s *ssh.Session) error { return s.Start("echo in") }); got == "in\n" {
			t.Error("a link through alice's directory leads to a root")
		}
		c.Close()
	}
	p.WantLog(t, `bad ownership or modes for chroot directory component \\"/home/alice/\\"`)
}

// TestTerminalsInARootDirectoryComeFromOutsideAndAreFour opens one after the other, and
// more once the root has ptmx(4).
func TestTerminalsInARootDirectoryComeFromOutsideAndAreFour(t *testing.T) {
	p, key := upInRoots(t)
	terminals := func(from string, n int) (got int, c *ssh.Client) {
		c, err := login(p.ours, from, "alice", ssh.PublicKeys(key))
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			s, err := session(c)
			if err != nil {
				t.Fatal(err)
			}
			if s.RequestPty("vt100", 24, 80, ssh.TerminalModes{}) == nil {
				got++
			}
			s.Close()
		}
		return got, c
	}
	n, c := terminals("127.0.0.2", 6)
	if n != 4 {
		t.Errorf("%d terminals, want 4", n)
	}
	if got := ran(c, "", func(s *ssh.Session) error { return s.Start("echo in") }); !strings.HasSuffix(got, "in\n") {
		t.Errorf("without a terminal: %q", got)
	}
	c.Close()

	// For sftp by force there is one, until the first session has begun.
	_, c = terminals("127.0.0.3", 0)
	c.Dial("tcp", "127.0.0.1:1") // the user process says no
	owned := func() string {
		return strings.TrimSpace(p.Sh(t, "find /dev/pts -user alice | wc -l"))
	}
	if !testbed.Eventually(func() bool { return owned() == "1" }) { // those of the connection before go
		t.Errorf("before the session alice has %s terminals, want 1", owned())
	}
	if got := sftp(c); got != "sftp" {
		t.Error(got)
	}
	if !testbed.Eventually(func() bool { return owned() == "0" }) {
		t.Errorf("in the session alice has %s terminals", owned())
	}
	c.Close()

	p.Sh(t, "mkdir /srv/jail/dev/pts; mount --bind /dev/pts /srv/jail/dev/pts; ln -s pts/ptmx /srv/jail/dev/ptmx; chmod 666 /dev/pts/ptmx")
	n, c = terminals("127.0.0.2", 6)
	if n != 6 {
		t.Errorf("%d terminals with ptmx(4) in the root, want 6", n)
	}
	c.Close()
}

// TestAProgramInARootDirectoryFindsNoWayOut has /proc in the root, and looks from a
// program of alice's into the user process that has started it, and all others.
func TestAProgramInARootDirectoryFindsNoWayOut(t *testing.T) {
	p, key := upInRoots(t)
	p.Sh(t, "mkdir /srv/jail/proc; mount -t proc proc /srv/jail/proc; touch /srv/jail/etc/inside; rm /srv/jail/home/alice/.ssh/rc")
	c, err := login(p.ours, "127.0.0.2", "alice", ssh.PublicKeys(key))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	run := func(command string) string {
		return ran(c, "", func(s *ssh.Session) error { return s.Start(command) })
	}
	for _, command := range []string{
		"ls -l /proc/$PPID/fd", "ls /proc/$PPID/root/", "ls /proc/$PPID/cwd/", "cat /proc/$PPID/environ", "cat /proc/$PPID/maps", "cat /proc/$PPID/mem",
		"cat <&3", "cat <&5", "cat /proc/self/fd/5",
	} {
		if got := run(command + " 2>/dev/null && echo OPEN"); strings.Contains(got, "OPEN") {
			t.Errorf("%s: %q", command, got)
		}
	}
	// Her own programs are in the root, too. Those of other mount namespaces are of
	// other testbeds, whose alice has the same uid.
	if got := run("for p in /proc/[0-9]*; do [ \"$(readlink $p/ns/mnt)\" != \"$(readlink /proc/self/ns/mnt)\" ] || ls -d $p/root/inside $p/root/usr $p/cwd/usr; done 2>/dev/null"); strings.Contains(got, "usr") || !strings.Contains(got, "inside") {
		t.Errorf("the roots of processes: %q", got)
	}
}
