package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"p9auth/test/testbed"
)

// The whole suite under the clients that people use. All of it happens in one
// testbed, with real programs at both ends.

// A site is a testbed with an SSH server.
type site struct {
	*testbed.Bed
	port string
	tmp  string
}

func newSite(t *testing.T) *site {
	t.Helper()
	b := testbed.Up(t)
	port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	return &site{b, strings.TrimSpace(string(port)), t.TempDir()}
}

// options are those of OpenSSH's clients, for alice by key.
func (s *site) options() string {
	return "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ControlPath=none -F none -i " + s.Dir + "/keys/alice"
}

// run runs a script with $ssh, $scp, $sftp, $port and $tmp set. The script's
// failure is the test's, unless it is expected.
func (s *site) run(t *testing.T, script string) (string, error) {
	t.Helper()
	c := exec.Command("timeout", "120", "bash", "-c", "set -o pipefail; cd \"$tmp\"; "+script)
	c.Env = append(os.Environ(),
		"ssh=ssh -n -p "+s.port+" "+s.options(),
		"options="+s.options(), "port="+s.port, "tmp="+s.tmp, "keys="+s.Dir+"/keys", "HOME="+s.tmp)
	out, err := c.CombinedOutput()
	return strings.ReplaceAll(string(out), "\r\n", "\n"), err
}

func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: run scripts/deps", p)
		}
	}
}

func TestSSHClients(t *testing.T) {
	need(t, "ssh", "scp", "sftp", "sshpass", "rsync", "git", "plink", "psftp", "puttygen", "dbclient", "dropbearconvert", "python3", "socat")
	s := newSite(t)
	if err := os.WriteFile(filepath.Join(s.tmp, "data"), bytes.Repeat([]byte("p9auth is an SSH server without rights\n"), 1<<18), 0o644); err != nil {
		t.Fatal(err)
	}
	password := "sshpass -p open-sesame ssh -n -p $port $options -o IdentityFile=none -o PubkeyAuthentication=no "
	for _, tt := range []struct{ name, script, want string }{
		{"key", `$ssh alice@127.0.0.1 'id -un; id -Gn; pwd; echo $0; echo $SSH_ORIGINAL_COMMAND'`, `^alice\nalice wizards\n/home/alice\nbash\n\n$`},
		{"password", password + `-o PreferredAuthentications=password alice@127.0.0.1 id -un`, `^alice\n$`},
		{"keyboard-interactive", password + `-o PreferredAuthentications=keyboard-interactive alice@127.0.0.1 id -un`, `^alice\n$`},
		{"output that nobody reads", `timeout 20 ssh -n -p $port $options alice@127.0.0.1 yes | head -n 1; echo ${PIPESTATUS[0]}`, `^y\n(0|255)\n$`},
		{"compression, which the server does not offer", `$ssh -C alice@127.0.0.1 id -un`, `^alice\n$`},
		{"exit status", `$ssh alice@127.0.0.1 'exit 7'; echo $?`, `^7\n$`},
		{"standard error", `$ssh alice@127.0.0.1 'echo out; echo err >&2' 2>/dev/null`, `^out\n$`},
		{"standard input", `echo in | ssh -p $port $options alice@127.0.0.1 'cat; echo end'`, `^in\nend\n$`},
		{"terminal", `$ssh -tt alice@127.0.0.1 'tty; stty -a | grep -o "speed [0-9]*"; echo $SSH_TTY'`, `^/dev/pts/\d+\nspeed \d+\n/dev/pts/\d+\n$`},
		{"login shell", `echo 'shopt -q login_shell && echo yes-login; echo $-; exit' | ssh -tt -p $port $options alice@127.0.0.1`, `yes-login`},
		{"no user", password + `-o PreferredAuthentications=password -o NumberOfPasswordPrompts=1 mallory@127.0.0.1 id`, `!Permission denied`},
		{"wrong password", `sshpass -p wrong ssh -n -p $port $options -o PubkeyAuthentication=no -o PreferredAuthentications=password -o NumberOfPasswordPrompts=1 alice@127.0.0.1 id`, `!Permission denied`},
		{"somebody else's key", `ssh -n -p $port $options -i $keys/bob -o IdentitiesOnly=yes -o BatchMode=yes bob@127.0.0.1 id -un; ssh -n -p $port -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i $keys/bob -o IdentitiesOnly=yes -o BatchMode=yes alice@127.0.0.1 id`, `!^bob\n.*Permission denied`},
		{"scp", `scp -q -P $port $options data alice@127.0.0.1:up && scp -q -P $port $options alice@127.0.0.1:up down && cmp data down && echo same`, `^same\n$`},
		{"scp -O", `scp -O -q -P $port $options data alice@127.0.0.1:up1 && scp -O -q -P $port $options alice@127.0.0.1:up1 down1 && cmp data down1 && echo same`, `^same\n$`},
		{"sftp", `printf 'mkdir d\nput data d/x\nrename d/x d/y\nget d/y y\nls d\n' | sftp -q -b - -P $port $options alice@127.0.0.1 && cmp data y && echo same`, `d/y[\s\S]*same\n$`},
		{"rsync", `rsync -e "ssh -p $port $options" data alice@127.0.0.1:rs && rsync -e "ssh -p $port $options" alice@127.0.0.1:rs rs && cmp data rs && echo same`, `^same\n$`},
		{"git clone", `$ssh alice@127.0.0.1 'git init -q r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first' && GIT_SSH_COMMAND="ssh -p $port $options" git clone -q alice@127.0.0.1:r r && git -C r log --format=%s`, `first\n$`},
		{"-L", `ssh -p $port $options -N -L $tmp/l.sock:127.0.0.1:$port alice@127.0.0.1 & p=$!; for i in $(seq 100); do [ -S l.sock ] && break; sleep 0.1; done; timeout 5 socat -u -T2 UNIX-CONNECT:l.sock -; kill $p`, `^SSH-2\.0-OpenSSH_9\.9p9auth`},
		{"-R", `ssh -p $port $options -R /home/alice/r.sock:127.0.0.1:$port alice@127.0.0.1 'python3 -c "
import socket; s=socket.socket(socket.AF_UNIX); s.connect(\"/home/alice/r.sock\"); print(s.recv(25).decode())"' </dev/null`, `^SSH-2\.0-OpenSSH_9\.9p9auth\n$`},
		{"-R port", `ssh -v -p $port ${options/LogLevel=ERROR/LogLevel=INFO} -R 0:127.0.0.1:$port alice@127.0.0.1 true </dev/null`, `Allocated port \d+ for remote forward`},
		{"-D", `ssh -f -N -M -S $tmp/dctl -p $port ${options/-o ControlPath=none/} -D $((port+1)) alice@127.0.0.1; timeout 5 socat -u -T2 SOCKS4A:127.0.0.1:127.0.0.1:$port,socksport=$((port+1)) -; ssh -S $tmp/dctl -O exit alice@127.0.0.1 2>/dev/null`, `^SSH-2\.0-OpenSSH_9\.9p9auth`},
		{"-J", `ssh -n -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i $keys/alice -o ProxyCommand="ssh -p $port $options -W %h:%p alice@127.0.0.1" -p $port alice@localhost id -un`, `^alice\n$`},
		{"agent", `eval $(ssh-agent) >/dev/null; ssh-add -q $keys/alice; $ssh -A alice@127.0.0.1 'ssh-add -l'; kill $SSH_AGENT_PID`, `alice@testbed \(ED25519\)`},
		{"ten sessions over one connection", `ssh -f -N -M -S $tmp/ctl -p $port ${options/-o ControlPath=none/} alice@127.0.0.1; for i in 1 2 3 4 5 6 7 8 9 10; do ssh -n -S $tmp/ctl alice@127.0.0.1 "echo n$i" & done; wait; ssh -S $tmp/ctl -O exit alice@127.0.0.1 2>/dev/null`, `(n\d+\n){10}`},
		{"bulk with rekeying", `head -c 67108864 /dev/zero | ssh -p $port $options -o RekeyLimit=16M alice@127.0.0.1 'tee big | sha256sum' >a && $ssh -o RekeyLimit=16M alice@127.0.0.1 'cat big; rm big' | sha256sum >b && cmp a b && echo same`, `^same\n$`},
		{"sessions while keys are exchanged", `ssh -f -N -M -S $tmp/rctl -o RekeyLimit=256K -p $port ${options/-o ControlPath=none/} alice@127.0.0.1; for i in 1 2 3 4 5 6; do ssh -n -S $tmp/rctl alice@127.0.0.1 'head -c 8388608 /dev/zero' | wc -c & done; for i in $(seq 20); do ssh -n -S $tmp/rctl alice@127.0.0.1 true; done; wait; ssh -S $tmp/rctl -O exit alice@127.0.0.1 2>/dev/null`, `^(8388608\n){6}$`},
		{"vi", `(sleep 1; printf 'ihello from vi\033:wq\r'; sleep 1) | ssh -tt -p $port $options alice@127.0.0.1 'TERM=vt100 vi /home/alice/vi.txt' >/dev/null; $ssh alice@127.0.0.1 cat vi.txt`, `^hello from vi\n$`},
		{"-X", xForwarding, `(?m)^magic [0-9a-f]{32} is the display's own\n$`},
		{"plink", `echo y | plink -P $port -pw open-sesame alice@127.0.0.1 id -un 2>/dev/null`, `^alice\n$`},
		{"plink with a key", `puttygen $keys/alice -O private -o k.ppk && plink -batch -P $port -i k.ppk alice@127.0.0.1 id -un 2>/dev/null`, `^alice\n$`},
		{"psftp", `printf 'put data ps\nget ps ps2\nquit\n' | psftp -P $port -pw open-sesame -batch alice@127.0.0.1 >/dev/null && cmp data ps2 && echo same`, `same\n$`},
		{"dbclient", `DROPBEAR_PASSWORD=open-sesame dbclient -y -y -p $port alice@127.0.0.1 id -un 2>/dev/null`, `^alice\n$`},
		{"dbclient with a key", `dropbearconvert openssh dropbear $keys/alice k.db 2>/dev/null && dbclient -y -y -i k.db -p $port alice@127.0.0.1 id -un 2>/dev/null`, `^alice\n$`},
		{"paramiko tries a second key, and a password after it", `/usr/bin/python3 - <<'E'
import os, socket, paramiko
keys = os.environ["keys"]
for proof in (lambda t: t.auth_publickey("alice", paramiko.Ed25519Key.from_private_key_file(keys + "/alice")), lambda t: t.auth_password("alice", "open-sesame")):
    t = paramiko.Transport(socket.create_connection(("127.0.0.1", int(os.environ["port"]))))
    t.start_client()
    for wrong in range(2):
        try:
            t.auth_publickey("alice", paramiko.Ed25519Key.from_private_key_file(keys + "/bob"))
        except paramiko.AuthenticationException:
            print("refused")
    print(proof(t))
    t.close()
E`, `^refused\nrefused\n\[\]\nrefused\nrefused\n\[\]\n$`},
		{"paramiko", `/usr/bin/python3 - <<'E'
import os, paramiko
for kw in ({"password": "open-sesame", "look_for_keys": False, "allow_agent": False}, {"key_filename": os.environ["keys"]+"/alice", "look_for_keys": False, "allow_agent": False}):
    c = paramiko.SSHClient()
    c.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    c.connect("127.0.0.1", int(os.environ["port"]), "alice", **kw)
    i, o, e = c.exec_command("id -un")
    print(o.read().decode().strip(), o.channel.recv_exit_status())
    f = c.open_sftp()
    print(f.stat("up").st_size)
    c.close()
E`, `^alice 0\n\d+\nalice 0\n\d+\n$`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := s.run(t, tt.script)
			want, fails := strings.CutPrefix(tt.want, "!")
			if (err != nil) != fails {
				t.Errorf("error %v", err)
			}
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("printed %.2000q, want %s", out, want)
			}
		})
	}
	s.WantLog(t, `Accepted publickey for alice from 127\.0\.0\.1 port \d+ ssh2: ED25519 SHA256:`)
	s.WantLog(t, `Accepted password for alice from 127\.0\.0\.1 port \d+ ssh2`)
	s.WantLog(t, `Accepted keyboard-interactive/pam for alice`)
	s.WantLog(t, `Failed password for alice from 127\.0\.0\.1 port \d+ ssh2`)
	s.WantLog(t, `Invalid user mallory from 127\.0\.0\.1 port \d+`)
	s.WantLog(t, `Failed password for invalid user mallory from 127\.0\.0\.1 port \d+ ssh2`)
	s.noneLeft(t)
}

// xForwarding has a program of alice's open the display that sshfront gives
// her, with the cookie that xauth has for it. The display's server, which is
// socat, has to be sent its own cookie in its place.
const xForwarding = `
cookie=0123456789abcdef0123456789abcdef n=$((20 + port % 1000))
export XAUTHORITY=$tmp/xauthority DISPLAY=127.0.0.1:$n
xauth -q add $DISPLAY . $cookie 2>/dev/null
timeout 60 socat -u TCP-LISTEN:$((6000 + n)),bind=127.0.0.1,reuseaddr CREATE:x11 & server=$!
for i in $(seq 100); do grep -q ":$(printf %04X $((6000 + n))) .* 0A " /proc/net/tcp && break; sleep 0.1; done
timeout 30 ssh -Y -p $port $options alice@127.0.0.1 'python3 -' <<'E'
import os, socket, struct, subprocess
host, n = os.environ["DISPLAY"].rsplit(":", 1)
name, kind, cookie = subprocess.check_output(["xauth", "-q", "list", os.environ["DISPLAY"]], text=True).split()
assert host == "localhost" and kind == "MIT-MAGIC-COOKIE-1" and cookie != "0123456789abcdef0123456789abcdef"
s = socket.create_connection(("127.0.0.1", 6000 + int(float(n))))
s.sendall(struct.pack("<BxHHHH2x", ord("l"), 11, 0, len(kind), 16) + kind.encode() + b"\0\0" + bytes.fromhex(cookie))
s.shutdown(socket.SHUT_WR)
s.recv(1)
E
wait $server
got=$(tail -c 16 x11 | od -An -tx1 | tr -d ' \n')
[ $got = $cookie ] && echo "magic $got is the display's own"`

// all are all processes of the testbed.
func (s *site) all() []int {
	var all []int
	for _, pids := range s.Processes() {
		all = append(all, pids...)
	}
	return all
}

// inMemory looks for bytes in what a process can write to.
func inMemory(t *testing.T, pid int, want []byte) bool {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		b := make([]byte, to-from)
		n, _ := mem.ReadAt(b, from)
		if bytes.Contains(b[:n], want) {
			return true
		}
	}
	return false
}

// noneLeft waits until no process of a connection is left.
func (s *site) noneLeft(t *testing.T) {
	t.Helper()
	count := func() int {
		n := 0
		for name, pids := range s.Processes() {
			if name == "factotum-pam" || strings.HasPrefix(name, "sshfront: ") {
				n += len(pids)
			}
		}
		return n
	}
	if !testbed.Eventually(func() bool { return count() == 0 }) {
		t.Errorf("%d processes of connections are left: %v", count(), s.Processes())
	}
}

// TestSSHHasNoRights scans every process of sshfront, while a user is logged
// in, for capabilities, for uid 0, and for the host key.
func TestSSHHasNoRights(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	c := exec.Command("bash", "-c", "exec ssh -n -p "+s.port+" "+s.options()+" alice@127.0.0.1 'echo ready; sleep 60'")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	line := make([]byte, 5)
	if _, err := out.Read(line); err != nil || string(line) != "ready" {
		t.Fatalf("%q, %v", line, err)
	}
	key, err := ssh.ParseRawPrivateKey([]byte(s.Sh(t, "cat /etc/ssh/ssh_host_ed25519_key") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	seed := key.(*ed25519.PrivateKey).Seed()
	for _, pid := range s.Pids("factotum") {
		if !inMemory(t, pid, seed) {
			t.Error("the host key is not even found in factotum: this test cannot find keys")
		}
	}
	for _, pid := range s.Pids("factotum-pam") {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); to == "/dev/fuse" {
				t.Errorf("the PAM worker %d has /dev/fuse open", pid)
			}
		}
	}
	seen := 0
	for _, pid := range s.all() {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if filepath.Base(exe) != "sshfront" {
			continue
		}
		seen++
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Error(err)
		}
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
			if !regexp.MustCompile(set + `:\s0{16}\n`).Match(status) {
				t.Errorf("process %d has a capability: %s", pid, status)
			}
		}
		if regexp.MustCompile(`(?m)^[UG]id:.*\s0(\s|$)`).Match(status) {
			t.Errorf("process %d is root: %s", pid, status)
		}
		if inMemory(t, pid, seed) {
			t.Errorf("process %d has the host key in its memory", pid)
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); strings.Contains(to, "ssh_host_") {
				t.Errorf("process %d has %s open", pid, to)
			}
		}
	}
	if seen < 3 {
		t.Errorf("%d processes of sshfront, want a listener, a connection and a user", seen)
	}
}

// TestUsersDoNotSeeEachOther tries, as alice and as whoever owns _sshfront,
// what bob's processes could be read by.
func TestUsersDoNotSeeEachOther(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	have := map[int]bool{}
	for _, p := range s.all() {
		have[p] = true
	}
	c := exec.Command("bash", "-c", "eval $(ssh-agent) >/dev/null; ssh-add -q "+s.Dir+"/keys/bob; ssh -n -A -tt -p "+s.port+" "+s.options()+
		" -i "+s.Dir+"/keys/bob -o IdentitiesOnly=yes bob@127.0.0.1 'echo agent=$SSH_AUTH_SOCK; tty; sleep 60'; kill $SSH_AGENT_PID")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	agent, _ := r.ReadString('\n')
	tty, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("%q %q %v", agent, tty, err)
	}
	agent, tty = strings.TrimSpace(strings.TrimPrefix(agent, "agent=")), strings.TrimSpace(tty)
	can := func(user, script string) bool {
		return s.Command("setpriv", "--reuid", user, "--regid", user, "--init-groups", "bash", "-c", script).Run() == nil
	}
	tries := 0
	// try runs a script that its owner can run, and others cannot.
	try := func(owner string, others []string, script string) {
		t.Helper()
		tries++
		if owner != "" && !can(owner, script) {
			t.Errorf("%s cannot do it either: %s", owner, script)
		}
		for _, other := range others {
			if can(other, script) {
				t.Errorf("%s can: %s", other, script)
			}
		}
	}
	try("bob", []string{"alice", "_sshfront"}, "SSH_AUTH_SOCK="+agent+" ssh-add -l")
	try("bob", []string{"alice", "_sshfront"}, ": <"+tty)
	for _, pid := range s.all() {
		cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		argv := strings.Split(string(cmd), "\x00")
		if have[pid] || len(argv) < 2 || !strings.HasPrefix(argv[0], "sshfront: ") {
			continue
		}
		owner, others := "bob", []string{"alice", "_sshfront"}
		readers := others
		if argv[1] == "connection" {
			// What speaks SSH is not even read by another with its uid.
			owner, others, readers = "_sshfront", []string{"alice", "bob"}, []string{"alice", "bob", "_sshfront"}
		}
		try(owner, others, fmt.Sprintf("kill -0 %d", pid))
		for _, f := range []string{"mem", "maps", "environ", "syscall"} {
			try("", readers, fmt.Sprintf("head -c 1 /proc/%d/%s", pid, f))
		}
		try("", readers, fmt.Sprintf("ls /proc/%d/fd", pid))
	}
	if tries < 12 {
		t.Errorf("only %d tries: where are bob's processes? %v", tries, s.Processes())
	}
	for _, pid := range s.all() { // ends ssh, and with it the agent
		if !have[pid] {
			syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	c.Wait()
	s.noneLeft(t)
}

// TestSSHKills kills each process of a login, and looks that nothing is left
// and that others' sessions are untouched.
func TestSSHKills(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	start := func(key string) (*exec.Cmd, *bytes.Buffer) {
		c := exec.Command("bash", "-c", "exec ssh -p "+s.port+" "+s.options()+" -i "+s.Dir+"/keys/"+key+" -o IdentitiesOnly=yes "+key+"@127.0.0.1 'echo ready; read x; echo still; read y'")
		var out bytes.Buffer
		c.Stdout = &out
		return c, &out
	}
	other, otherOut := start("bob")
	in, _ := other.StdinPipe()
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	wait := func(b *bytes.Buffer, word string) bool {
		return testbed.Eventually(func() bool { return strings.Contains(b.String(), word) })
	}
	if !wait(otherOut, "ready") {
		t.Fatal("bob cannot log in")
	}
	have := map[int]bool{}
	for _, p := range s.all() {
		have[p] = true
	}
	for _, which := range []string{"connection", "user", "worker", "shell"} {
		c, out := start("alice")
		hold, _ := c.StdinPipe()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if !wait(out, "ready") {
			t.Fatalf("alice cannot log in, before the kill of %s", which)
		}
		killed := false
		for _, pid := range s.all() {
			if have[pid] {
				continue
			}
			cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			argv := strings.Split(string(cmd), "\x00")
			is := map[string]bool{
				"connection": len(argv) > 1 && argv[1] == "connection",
				"user":       len(argv) > 1 && argv[1] == "user",
				"worker":     strings.HasSuffix(argv[0], "factotum-pam"),
				"shell":      strings.HasSuffix(argv[0], "bash"),
			}[which]
			if is && !killed {
				killed = true
				p, _ := os.FindProcess(pid)
				p.Kill()
			}
		}
		if !killed {
			t.Errorf("no %s to kill", which)
		}
		if which == "worker" { // another takes over, and the session goes on
			fmt.Fprintln(hold)
			if !wait(out, "still") {
				t.Error("the session did not survive its worker")
			}
			fmt.Fprintln(hold)
		}
		hold.Close()
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		select {
		case <-done:
		case <-time.After(testbed.Patience):
			t.Errorf("the client hangs after the kill of %s", which)
			c.Process.Kill()
			<-done
		}
		if !testbed.Eventually(func() bool {
			for _, p := range s.all() {
				if !have[p] {
					return false
				}
			}
			return true
		}) {
			t.Errorf("after the kill of %s there is: %v", which, s.Processes())
		}
	}
	fmt.Fprintln(in)
	if !wait(otherOut, "still") {
		t.Error("bob's session did not survive")
	}
}

// An account that may use sftp only must not run programs by it: whoever can
// write to the memory of a process decides what it does.
func TestSFTPDoesNotReachMemory(t *testing.T) {
	need(t, "python3", "ssh")
	s := newSite(t)
	sleep := s.Command(testbed.As("alice", "sleep", "60")...)
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sleep.Process.Kill(); sleep.Wait() })
	exe := func() string {
		l, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", sleep.Process.Pid))
		return filepath.Base(l)
	}
	if !testbed.Eventually(func() bool { return exe() == "sleep" }) {
		t.Fatal("sleep is not there: ", exe())
	}
	out, err := s.run(t, fmt.Sprintf(`/usr/bin/python3 - <<'E'
import os, paramiko
c = paramiko.SSHClient()
c.set_missing_host_key_policy(paramiko.AutoAddPolicy())
c.connect("127.0.0.1", int(os.environ["port"]), "alice", key_filename=os.environ["keys"]+"/alice", look_for_keys=False, allow_agent=False)
f = c.open_sftp()
with f.open("/proc/self/stat", "r") as x:
    parent = x.read().decode().rsplit(")", 1)[1].split()[1]
def tries(what, path):
    try:
        f.open(path, "r+").close()
        print(what, "is open")
    except OSError:
        print(what, "is closed")
tries("its own memory", "/proc/self/mem")
tries("the user process's", "/proc/%%s/mem" %% parent)
tries("another program's", "/proc/%d/mem")
f.mkdir("from"); f.mkdir("to"); f.open("from/x", "w").close()
f.posix_rename("from/x", "to/x"); f.rename("to/x", "from/y"); print("renamed", f.listdir("from"))
c.close()
E`, sleep.Process.Pid))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := "its own memory is closed\nthe user process's is closed\nanother program's is closed\nrenamed ['y']\n"
	if abi, err := landlocksys.LandlockGetABIVersion(); err != nil || abi < 2 {
		want = strings.Replace(want, "another program's is closed", "another program's is open", 1)
		t.Logf("no landlock here: what else runs as the user is not protected (%d, %v)", abi, err)
	}
	if out != want {
		t.Errorf("printed %s", out)
	}
}
