// Package clients has the SSH clients that people use log in, run a command, copy a file
// and forward ports, by sshfront and by Debian's sshd. Each must do with the one what it
// does with the other.
//
// Without P9AUTH_CLIENTS=all, which make test-clients sets, only those clients are asked
// that the other tests need too, and only for what those do not ask.
package clients

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p9auth/test/manual"
	"p9auth/test/testbed"
)

const password = "open-sesame"

// A client is a program in testdata. Its argument is an operation: it prints what
// results says.
type client struct {
	name  string
	run   string // the shell command that runs it; $src is testdata
	build string // what has to be done once
	all   bool   // it needs what scripts/deps-clients installs
	lacks string // operations that the client does not have
}

var clients = []client{
	{name: "OpenSSH", run: ". $src/openssh.sh"},
	{name: "OpenSSH of Debian 13", run: "PATH=$openssh13:$PATH; . $src/openssh.sh", all: true},
	{name: "PuTTY", run: ". $src/putty.sh"},
	{name: "Dropbear", run: ". $src/dropbear.sh"},
	{name: "paramiko", run: "/usr/bin/python3 $src/paramiko_client.py"},
	{name: "AsyncSSH", run: "/usr/bin/python3 $src/asyncssh_client.py"},
	{name: "Go", run: "$self crypto"},
	{name: "libssh", run: "./libssh", build: "gcc -Wno-deprecated-declarations -o libssh $src/libssh.c -lssh", all: true},
	{name: "libssh2", run: "./libssh2", build: "gcc -o libssh2 $src/libssh2.c -lssh2", all: true},
	{name: "curl", run: ". $src/curl.sh", all: true, lacks: "keys both exec forward back"},
	{name: "Net::SSH", run: "ruby $src/netssh.rb", all: true},
	{name: "JSch", run: "java -cp /usr/share/java/jsch.jar:. Jsch", build: "javac -d . -cp /usr/share/java/jsch.jar $src/Jsch.java", all: true},
}

// forwarded is what the server at $target sends.
var forwarded = strings.Repeat("forwarded\n", 1<<15)

// operations are what each client does, and what it prints then.
var operations = []struct {
	name, prints string
	all          bool // without P9AUTH_CLIENTS=all, the tests of sshfront have it
}{
	{"password", "alice\n", true},
	{"keys", "alice\n", false}, // two, of which the second is right
	{"exec", "out\nin\nerr\n7\n", true},
	{"sftp", "", true}, // data to copy, and copy to back
	{"forward", forwarded, false},
	{"back", forwarded, false}, // a port of the server's that leads to the client
	{"both", "alice\n", false}, // a key and then keyboard-interactive
}

// through is what shell scripts read a forwarded port by.
const through = `through() {
	for i in $(seq 400); do
		if { exec 3<>/dev/tcp/127.0.0.1/$free; } 2>/dev/null; then cat <&3; return; fi
		sleep 0.05
	done
}
`

const conf = `HostKey /etc/ssh/ssh_host_ed25519_key
HostKey /etc/ssh/ssh_host_ecdsa_key
HostKey /etc/ssh/ssh_host_rsa_key
UsePAM yes
KbdInteractiveAuthentication yes
Subsystem sftp internal-sftp
`

func TestMain(m *testing.M) { testbed.Main(m, testbed.Programs{"crypto": crypto}) }

func TestEachClientDoesWithSSHFrontWhatItDoesWithSSHD(t *testing.T) {
	if testing.Short() {
		t.Skip("it logs in by many clients")
	}
	all := os.Getenv("P9AUTH_CLIENTS") == "all"
	b := newBench(t, all)
	const two = conf + "AuthenticationMethods publickey,keyboard-interactive\n"
	one, both := b.SSHD(t, conf), b.SSHD(t, two)
	table := fmt.Sprintf("\n%-24s %-10s %-10s %s\n", "client", "does", "sshfront", "sshd")
	for _, c := range clients {
		if c.all && !all {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			name := b.prepare(c)
			b.Configure(t, "PerSourcePenalties no\n"+conf)
			for _, op := range operations {
				if op.all && !all || strings.Contains(c.lacks, op.name) {
					continue
				}
				theirs := one
				if op.name == "both" {
					b.Configure(t, "PerSourcePenalties no\n"+two)
					theirs = both
				}
				front, sshd := b.does(c, op.name, op.prints, b.port), b.does(c, op.name, op.prints, theirs.Port)
				table += fmt.Sprintf("%-24s %-10s %-10s %s\n", name, op.name, front, sshd)
				if front != works || sshd != works {
					t.Errorf("%s, %s: with sshfront: %s; with sshd: %s", name, op.name, front, sshd)
				}
			}
		})
	}
	t.Log(table)
	if n := b.Logged("protocol violation"); n > 0 {
		t.Errorf("%d clients were taken for attackers", n)
	}
}

const works = "works"

// A bench is a testbed with what the clients need.
type bench struct {
	*testbed.Bed
	t         testing.TB
	port, tmp string
	data      []byte
	env       []string
}

func newBench(t *testing.T, all bool) *bench {
	t.Helper()
	size := 1
	if all {
		size = 200 << 20
	}
	b := &bench{Bed: testbed.Up(t), t: t, tmp: t.TempDir(), data: make([]byte, size)}
	port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	b.port = strings.TrimSpace(string(port))
	for i := range b.data {
		b.data[i] = byte(rand.Uint32())
	}
	if err := os.WriteFile(filepath.Join(b.tmp, "data"), b.data, 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { c.Write([]byte(forwarded)); c.Close() }()
		}
	}()
	_, target, _ := net.SplitHostPort(l.Addr().String())
	top := manual.Top()
	b.env = append(os.Environ(), "src="+filepath.Join(top, "test/clients/testdata"), "self="+b.Self(t), "keys="+b.tmp, "HOME="+b.tmp,
		"password="+password, "command=echo out; echo err >&2; cat; exit 7", "target="+target, "openssh13="+filepath.Join(b.tmp, "openssh13"))
	b.Sh(t, "cd /etc/ssh; for k in ecdsa rsa; do [ -e ssh_host_${k}_key ] || ssh-keygen -q -t $k -N '' -f ssh_host_${k}_key; done; echo alice >/home/alice/whose")
	// The right keys, and others of the same types.
	b.Sh(t, "cp "+b.Dir+"/keys/alice "+b.tmp+"/right; cp "+b.Dir+"/keys/alice.pub "+b.tmp+"/right.pub; cp "+b.Dir+"/keys/bob "+b.tmp+"/wrong; cp "+b.Dir+"/keys/bob.pub "+b.tmp+`/wrong.pub
		cd `+b.tmp+`; for k in right wrong; do ssh-keygen -q -t ecdsa -m PEM -N '' -f $k.pem; done; cat right.pem.pub >>/home/alice/.ssh/authorized_keys`)
	b.openssh13(t, filepath.Join(top, "build/openssh13/root"))
	return b
}

// openssh13 makes programs of Debian 13's OpenSSH, which are unpacked below root.
func (b *bench) openssh13(t *testing.T, root string) {
	t.Helper()
	dir := filepath.Join(b.tmp, "openssh13")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for program, more := range map[string]string{"ssh": "", "sftp": "-S " + dir + "/ssh "} {
		lib := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
		text := fmt.Sprintf("#!/bin/sh\nexec %s/ld-linux-x86-64.so.2 --library-path %[1]s %s/usr/bin/%s %s\"$@\"\n", lib, root, program, more)
		if err := os.WriteFile(filepath.Join(dir, program), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// prepare builds a client, and returns what it calls itself.
func (b *bench) prepare(c client) string {
	b.t.Helper()
	out, err := b.shell("{ "+cmp.Or(c.build, "true")+"; } >&2 && set -- version && "+c.run+" version", "0")
	if err != nil {
		b.t.Fatalf("%v: run scripts/deps and scripts/deps-clients", err)
	}
	return strings.TrimSpace(out)
}

// does has a client do something, and says how it went.
func (b *bench) does(c client, op, want, port string) string {
	os.Remove(filepath.Join(b.tmp, "back"))
	out, err := b.shell("set -- "+op+"; "+through+c.run+" "+op+" 2>errors", port)
	switch {
	case err != nil || out != want:
		why, _ := os.ReadFile(filepath.Join(b.tmp, "errors"))
		lines := strings.Split(strings.TrimSpace(string(why)), "\n")
		return fmt.Sprintf("%v: %.60q %.200q", err, out, lines[len(lines)-1])
	case op == "sftp":
		if back, err := os.ReadFile(filepath.Join(b.tmp, "back")); err != nil || !bytes.Equal(back, b.data) {
			return fmt.Sprintf("%d bytes came back: %v", len(back), err)
		}
	}
	return works
}

func (b *bench) shell(script, port string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-c", script)
	c.Dir = b.tmp
	c.WaitDelay = time.Second
	c.Env = append(b.env, "port="+port, "free="+testbed.FreePort(b.t))
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("%w %s", err, stderr.String())
	}
	return strings.ReplaceAll(string(out), "\r\n", "\n"), err
}
