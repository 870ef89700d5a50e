package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"p9auth/capproto"
	"p9auth/internal/authkeys"
	"p9auth/internal/capuse"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
	"p9auth/sshfront/internal/control"
	"p9auth/sshfront/internal/user"
	"p9auth/sshfront/internal/userlink"
	"p9auth/test/testbed"
)

// The owner of the front end's uid, while somebody logs in whose login is restricted.
// He runs the real connection process, until the user is proven, and takes the place
// of the listener, of the session process and of the connection process then: he
// redeems with capuse, tells the user process that everything is permitted, and asks
// it for everything.

func TestMain(m *testing.M) {
	testbed.Main(m, testbed.Programs{"owner": owner, "owner-redeems": ownerRedeems})
}

// must ends the attacker.
func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "the attacker:", err)
		os.Exit(1)
	}
}

// owner listens for one client, says at which port, and prints what he got, each thing
// by its name.
func owner(args []string) {
	program := args[0]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	c, err := l.Accept()
	must(err)
	tcp, err := c.(*net.TCPConn).File()
	must(err)
	config, err := (&control.Config{RPC: testbed.RPC, Capuse: capuse.DefaultPath}).Memfd()
	must(err)
	ours, theirs, err := sys.Socketpair()
	must(err)
	ourLink, link, err := sys.Socketpair()
	must(err)
	connection := exec.Command(program, "connection")
	connection.ExtraFiles = []*os.File{tcp, theirs, config, link}
	must(connection.Start())
	theirs.Close()
	link.Close()
	wire, err := capproto.FileConn(ours, control.MaxPacket)
	must(err)
	for {
		p, err := wire.Recv()
		must(err)
		r, err := control.Decode(p)
		must(err)
		if _, ok := r.(control.Session); ok {
			break
		}
	}
	must(wire.Send(capproto.NewMsg(capproto.VerbOK, "pid", "1")))
	words, err := capproto.FileConn(ourLink, userlink.MaxPacket)
	must(err)
	ticket, err := userlink.ReceiveTicket(words)
	must(err)
	factotum, err := capproto.Dial(testbed.RPC)
	must(err)
	must(factotum.Attach(ticket))
	must(factotum.Session())
	must(factotum.Converse(func(capproto.Prompt) (string, error) { return "", nil }))
	auth, err := factotum.AuthInfo()
	must(err)
	again, err := factotum.AuthInfo()
	must(err)

	// A lie in each thing that the session process tells the user process.
	all, _, err := authkeys.ParseOptions("")
	must(err)
	conf, err := sshdconf.Parse(os.DevNull, []string{"PermitUserEnvironment=yes", "Subsystem=sftp internal-sftp", "X11Forwarding=yes"})
	must(err)
	auth.Settings, auth.Options = sshdconf.SessionFormat.Encode(conf.Global().Session()), authkeys.OptionsFormat.Encode(&all)
	auth.Shell, auth.Home, auth.Root, auth.UID = "/bin/sh", "/tmp", "", 0
	info, err := user.NewInfo(auth, netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:1"))
	must(err)
	lie, err := info.Memfd()
	must(err)

	ask, his, err := sys.Socketpair()
	must(err)
	// In place of factotum he listens himself.
	_, noFactotum, err := sys.Socketpair()
	must(err)
	redeem := func(capability string) *exec.Cmd {
		c := exec.Command("/proc/self/exe", "owner-redeems", capability)
		c.ExtraFiles = []*os.File{his, lie, noFactotum}
		c.Env = append(os.Environ(), capproto.LoginVariable+"=ok user=root uid=0 gid=0")
		return c
	}
	userProcess := redeem(auth.Cap)
	userProcess.Stderr = os.Stderr
	must(userProcess.Start())
	his.Close()
	conn, err := capproto.FileConn(ask, userlink.MaxPacket)
	must(err)
	out := demand(userlink.NewClient(conn), fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	conn.Close()
	userProcess.Wait()

	second := redeem(again.Cap)
	second.ExtraFiles = nil
	text, _ := second.CombinedOutput()
	out["his own program"] = string(text)
	must(json.NewEncoder(os.Stdout).Encode(out))
	connection.Process.Kill()
	connection.Wait()
}

// ownerRedeems redeems for a program of his own, as the user.
func ownerRedeems(args []string) {
	err := capuse.Exec(capuse.DefaultPath, args[0], capuse.Target{
		Path: "/bin/sh", Argv: []string{"sh", "-c", "echo escaped"}, Env: os.Environ(), Dir: "/",
	})
	fmt.Println(err)
	os.Exit(1)
}

// demand asks the user process for everything, and returns what came of it.
func demand(c *userlink.Client, port string) map[string]string {
	granted := func(err error) string {
		if err != nil {
			return "refused: " + err.Error()
		}
		return "granted"
	}
	run := func(e userlink.Exec, input string) string {
		x, err := c.Exec(e)
		if err != nil {
			return granted(err)
		}
		defer x.Drop()
		stdin, stdout, stderr := x.Stdio()
		go func() {
			io.WriteString(stdin, input)
			if e.Subsystem == "" {
				stdin.Close()
			}
		}()
		if e.Subsystem != "" {
			b := make([]byte, 4096)
			n, _ := stdout.Read(b)
			return string(b[:n])
		}
		var both bytes.Buffer
		io.Copy(&both, io.LimitReader(stdout, 1<<16))
		io.Copy(&both, io.LimitReader(stderr, 1<<16))
		return both.String()
	}
	out := map[string]string{
		"a command":   run(userlink.Exec{HasCommand: true, Command: "cd / && /bin/echo PWN''ED; id -u"}, ""),
		"a shell":     run(userlink.Exec{}, "cd / && /bin/echo PWN''ED\n"),
		"a subsystem": run(userlink.Exec{Subsystem: "sftp"}, "\x00\x00\x00\x05\x01\x00\x00\x00\x03"),
		"an environment": run(userlink.Exec{HasCommand: true, Command: "env", Env: []string{
			"LD_PRELOAD=/tmp/x.so", "BASH_ENV=/tmp/x", "PATH=/tmp", "SHELL=/bin/sh", "GIT_SHELL=x"}}, ""),
	}
	_, err := c.PTY("vt100", userlink.Size{Cols: 80, Rows: 24}, nil)
	out["a terminal"] = granted(err)
	_, err = c.Dial("127.0.0.1", parsePort(port))
	out["a port"] = granted(err)
	socket := "/tmp/owner-" + port
	l, err := net.Listen("unix", socket)
	must(err)
	must(os.Chmod(socket, 0o777))
	_, err = c.DialUnix(socket)
	l.Close()
	out["a socket"] = granted(err)
	_, err = c.Listen("127.0.0.1", 0)
	out["to listen"] = granted(err)
	_, err = c.ListenUnix(socket)
	out["to listen at a socket"] = granted(err)
	_, err = c.Agent()
	out["an agent"] = granted(err)
	_, err = c.X11(false, "MIT-MAGIC-COOKIE-1", "00", 0)
	out["X11"] = granted(err)
	return out
}

func parsePort(s string) (n uint32) {
	fmt.Sscan(s, &n)
	return n
}

func TestTheOwnerOfTheFrontEndGetsNoMoreThanARestrictedLogin(t *testing.T) {
	need(t, "ssh", "git-shell", "busybox")
	s := newSite(t)
	program := strings.Fields(s.Sh(t, fmt.Sprintf("readlink /proc/%d/exe", s.Pids("sshfront")[0])))[0]
	key := s.Sh(t, "cat "+s.Dir+"/keys/alice.pub")
	s.Sh(t, `mount -t tmpfs -o mode=755 tmpfs /srv
mkdir -p /srv/jail/bin /srv/jail/upload /srv/shell/bin
cp "$(command -v busybox)" /srv/shell/bin/sh; touch /srv/shell/inside
chown alice /srv/jail/upload; cp /usr/lib/openssh/sftp-server /tmp/ 2>/dev/null || true`)
	const refused, no = `^refused: `, "(?i)PWNED|uid=|escaped"
	forwards := map[string]string{"a port": refused, "a socket": refused, "to listen": refused, "to listen at a socket": refused}
	with := func(m map[string]string, more ...string) map[string]string {
		out := map[string]string{}
		for k, v := range m {
			out[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
		}
		return out
	}
	const only = `^This service allows sftp connections only\.\n$`
	const expired = `^WARNING: Your password has expired\.\nPassword change required but no TTY available\.\n$`
	const version = "\x00\x00.*\x02\x00\x00\x00\x03"
	for _, c := range []struct {
		name, conf, options, shell string
		want                       map[string]string
	}{
		// Without a restriction: what he asks for is what he gets.
		{"nothing", "X11Forwarding yes\nSubsystem sftp internal-sftp", "", "/bin/sh", map[string]string{
			"a command": `^PWNED\n1\d+\n$`, "a shell": `^PWNED\n$`, "a subsystem": version, "a terminal": "granted", "a port": "granted",
			"a socket": "granted", "to listen": "granted", "to listen at a socket": "granted", "an agent": "granted", "X11": "granted",
		}},
		{"a forced command", "", `command="echo FORCED"`, "/bin/sh", map[string]string{
			"a command": `^FORCED\n$`, "a shell": `^FORCED\n$`, "an environment": `^FORCED\n$`,
		}},
		{"restrict", "X11Forwarding yes", "restrict", "/bin/sh", with(forwards, "a terminal", refused, "an agent", refused, "X11", refused)},
		{"restrict and a command", "PermitUserEnvironment yes", `restrict,command="echo FORCED $SSH_ORIGINAL_COMMAND"`, "/bin/sh", with(forwards,
			"a command", `^FORCED cd / `, "a shell", `^FORCED ?\n$`, "a terminal", refused, "an agent", refused, "X11", refused)},
		{"ForceCommand", "ForceCommand echo FORCED\nAcceptEnv *", "", "/bin/sh", map[string]string{"a command": `^FORCED\n$`, "a shell": `^FORCED\n$`}},
		{"a root with sftp alone", "Subsystem sftp internal-sftp\nMatch User alice\nChrootDirectory /srv/jail\nForceCommand internal-sftp\nAllowTcpForwarding no\nX11Forwarding no", "", "/bin/sh", with(forwards,
			"a command", only, "a shell", only, "an environment", only, "a subsystem", version, "X11", refused)},
		{"a root", "Match User alice\nChrootDirectory /srv/shell", "", "/bin/sh", map[string]string{
			"a command": `^1\d+\nsh: /bin/echo: not found\n$`, "a socket": refused, "to listen at a socket": refused,
		}},
		{"rbash", "", "", "/bin/rbash", map[string]string{
			"a command": `restricted`, "a shell": `restricted`, "an environment": `(?s)^SHELL=/bin/rbash\n.*`,
		}},
		{"git-shell", "", "", "/usr/bin/git-shell", map[string]string{
			"a command": `fatal: unrecognized command`, "a shell": `not enabled|Interactive git shell`, "an environment": `fatal: unrecognized command 'env'`,
		}},
		{"an expired password", "X11Forwarding yes\nSubsystem sftp internal-sftp", "", "/bin/sh", with(forwards,
			"a command", expired, "a shell", expired, "a subsystem", "^$", "an environment", expired, "a terminal", "granted", "an agent", refused, "X11", refused)},
		{"no session", "MaxSessions 0\nX11Forwarding yes", "", "/bin/sh", map[string]string{
			"a command": refused, "a shell": refused, "a subsystem": refused, "a terminal": refused, "an agent": refused, "X11": refused,
		}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			s.configure(t, "PermitUserEnvironment no\n"+c.conf)
			s.Write(t, "/home/alice/.ssh/authorized_keys", strings.TrimSpace(c.options+" "+key)+"\n")
			s.Sh(t, "usermod -s "+c.shell+" alice")
			if c.name == "an expired password" {
				s.Sh(t, "chage -d 0 alice")
				defer s.Sh(t, "chage -d 20000 alice")
			}
			attacker := s.Command(testbed.As("_sshfront", s.Self(t), "owner", program)...)
			var stderr bytes.Buffer
			attacker.Stderr = &stderr
			stdout, err := attacker.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := attacker.Start(); err != nil {
				t.Fatal(err)
			}
			stop := time.AfterFunc(testbed.Patience, func() { attacker.Process.Kill() })
			defer stop.Stop()
			defer attacker.Wait()
			defer attacker.Process.Kill()
			var port int
			if _, err := fmt.Fscan(stdout, &port); err != nil {
				t.Fatal(err, &stderr)
			}
			client := exec.Command("bash", "-c", fmt.Sprintf("exec ssh -n -p %d %s alice@127.0.0.1 true", port, s.options()))
			if err := client.Start(); err != nil {
				t.Fatal(err)
			}
			defer client.Wait()
			defer client.Process.Kill()
			got := map[string]string{}
			if err := json.NewDecoder(stdout).Decode(&got); err != nil {
				t.Fatal(err, &stderr)
			}
			if stderr.Len() > 0 {
				t.Logf("%s", &stderr)
			}
			for what, want := range c.want {
				if !regexp.MustCompile(want).MatchString(got[what]) {
					t.Errorf("%s: %q, want %s", what, got[what], want)
				}
			}
			for what, text := range got {
				restricted := c.name != "nothing" && (c.want[what] != "" || what == "his own program")
				if restricted && regexp.MustCompile(no).MatchString(text) && !strings.HasPrefix(text, "FORCED") {
					t.Errorf("%s: %q", what, text)
				}
				for _, name := range []string{"LD_PRELOAD", "BASH_ENV", "PATH=/tmp"} {
					if what == "an environment" && strings.Contains(text, name) && !strings.Contains(c.conf, "AcceptEnv") {
						t.Errorf("%s reached the program: %q", name, text)
					}
				}
			}
			if own := got["his own program"]; !strings.HasPrefix(own, "sshfront user: ") {
				t.Errorf("his own program: %q", own)
			}
		})
	}
}
