package client

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/test/testbed"
)

// A wire is a connection before the first key exchange, where packets have neither a
// cipher nor a MAC (RFC 4253, section 6).
type wire struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, port string) wire {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(testbed.Patience))
	w := wire{c, bufio.NewReader(c)}
	io.WriteString(c, "SSH-2.0-attack\r\n")
	if line, err := w.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		t.Fatalf("%q, %v", line, err)
	}
	return w
}

func (w wire) send(payload []byte) {
	pad := 8 - (5+len(payload))%8
	if pad < 4 {
		pad += 8
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+pad))
	b = append(append(append(b, byte(pad)), payload...), make([]byte, pad)...)
	w.Write(b)
}

func (w wire) receive() ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > 1<<16 || int(n) < 1+int(head[4]) {
		return nil, errors.New("not a packet")
	}
	b := make([]byte, n-1)
	_, err := io.ReadFull(w.r, b)
	return b[:len(b)-int(head[4])], err
}

// kexInit is SSH_MSG_KEXINIT (RFC 4253, section 7.1).
type kexInit struct {
	Cookie                       [16]byte `sshtype:"20"`
	Kex, HostKey                 []string
	Ciphers, Ciphers2, MAC, MAC2 []string
	Comp, Comp2, Lang, Lang2     []string
	Follows                      bool
	Reserved                     uint32
}

// TestNothingComesBeforeTheKeyExchange is the Terrapin attack, which needs a message
// before the first SSH_MSG_KEXINIT that is ignored but counted.
func TestNothingComesBeforeTheKeyExchange(t *testing.T) {
	p := up(t)
	const strict, strictServer = "kex-strict-c-v00@openssh.com", "kex-strict-s-v00@openssh.com"
	p.both(t, func(t *testing.T, port string) {
		exchange := func(before []byte) byte {
			w := dial(t, port)
			var server kexInit
			b, err := w.receive()
			if err == nil {
				err = ssh.Unmarshal(b, &server)
			}
			if err != nil || !slices.Contains(server.Kex, strictServer) {
				t.Fatalf("strict key exchange is not offered: %v, %v", server.Kex, err)
			}
			if before != nil {
				w.send(before)
			}
			client := server
			client.Kex, client.HostKey = []string{"curve25519-sha256", strict}, []string{"ssh-ed25519"}
			w.send(ssh.Marshal(&client))
			w.send(ssh.Marshal(struct {
				Type byte
				Key  []byte
			}{30, append([]byte{9}, make([]byte, 31)...)})) // the base point
			for {
				b, err := w.receive()
				if err != nil {
					return 0
				}
				if len(b) > 0 && (b[0] == 1 || b[0] == 31) { // SSH_MSG_DISCONNECT, SSH_MSG_KEX_ECDH_REPLY
					return b[0]
				}
			}
		}
		if got := exchange(nil); got != 31 {
			t.Errorf("an honest exchange is answered by message %d", got)
		}
		for what, b := range map[string][]byte{
			"SSH_MSG_IGNORE": ssh.Marshal(struct {
				Type byte
				Data string
			}{2, "x"}),
			"SSH_MSG_DEBUG": ssh.Marshal(struct {
				Type       byte
				Show       bool
				Text, Lang string
			}{4, false, "x", ""}),
			"an unknown message": {200},
		} {
			if got := exchange(b); got == 31 {
				t.Errorf("%s before the key exchange is taken", what)
			}
		}
	})
}

// TestNothingWeakIsOffered looks for what was broken once: CBC, RC4, small groups, SHA-1,
// DSA, MD5, and compression before the login.
func TestNothingWeakIsOffered(t *testing.T) {
	p := up(t)
	p.both(t, func(t *testing.T, port string) {
		var server kexInit
		b, err := dial(t, port).receive()
		if err == nil {
			err = ssh.Unmarshal(b, &server)
		}
		if err != nil {
			t.Fatal(err)
		}
		weak := regexp.MustCompile(`-cbc|arcfour|3des|group1-|group14-sha1|group-exchange-sha1|ssh-dss|ssh-rsa$|md5|-96|^zlib$|^none,none`)
		for _, list := range [][]string{server.Kex, server.HostKey, server.Ciphers, server.Ciphers2, server.MAC, server.MAC2, server.Comp, server.Comp2} {
			for _, name := range list {
				if weak.MatchString(name) {
					t.Errorf("%s is offered", name)
				}
			}
		}
		if slices.Contains(server.Ciphers, "none") || slices.Contains(server.MAC, "none") {
			t.Errorf("a connection may have no cipher: %v, %v", server.Ciphers, server.MAC)
		}
	})
}

// A stranger is a signer whose public key is any bytes, and whose signatures prove nothing.
type stranger struct{ blob []byte }

func (s stranger) PublicKey() ssh.PublicKey            { return s }
func (s stranger) Type() string                        { return ssh.KeyAlgoED25519 }
func (s stranger) Marshal() []byte                     { return s.blob }
func (s stranger) Verify([]byte, *ssh.Signature) error { return errors.New("not a key") }
func (s stranger) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	return &ssh.Signature{Format: s.Type(), Blob: make([]byte, 64)}, nil
}

// TestAnswersDoNotTellWhichUsersThereAre tries proofs that fail, well-formed and not, as
// users who are there, who are not, and who may not log in.
func TestAnswersDoNotTellWhichUsersThereAre(t *testing.T) {
	p := up(t)
	_, private, _ := ed25519.GenerateKey(rand.Reader)
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	blob := key.PublicKey().Marshal()
	proofs := map[string]ssh.AuthMethod{
		"a password":            ssh.Password("wrong"),
		"a long password":       ssh.Password(strings.Repeat("x", 20000)),
		"an empty password":     ssh.Password(""),
		"another's key":         ssh.PublicKeys(key),
		"a key cut short":       ssh.PublicKeys(stranger{blob[:20]}),
		"a key of another type": ssh.PublicKeys(stranger{append([]byte("\x00\x00\x00\x07ssh-rsa"), blob[15:]...)}),
		"no key":                ssh.PublicKeys(stranger{nil}),
		"answers": ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			return make([]string, len(questions)), nil
		}),
	}
	p.both(t, func(t *testing.T, port string) {
		for what, proof := range proofs {
			got := map[string][]string{}
			for _, user := range []string{"keyless", "nobody-of-that-name", "locked", "shell-less", "root", "%n%s%n", strings.Repeat("u", 200)} {
				c, err := login(port, user, proof)
				if err == nil {
					c.Close()
					t.Fatalf("%s logs %s in", what, user)
				}
				got[err.Error()] = append(got[err.Error()], user)
			}
			if len(got) != 1 {
				t.Errorf("%s: the users are told apart: %q", what, got)
			}
		}
	})
}

// TestDevicesOfKeyboardInteractiveBuyNoGuesses names thousands of devices (the submethods
// of RFC 4256, section 3.1), each of which had its own guesses in sshd once.
func TestDevicesOfKeyboardInteractiveBuyNoGuesses(t *testing.T) {
	p := up(t)
	const script = `
import sys, paramiko
t = paramiko.Transport(("127.0.0.1", int(sys.argv[1])))
t.start_client()
asked = 0
def guess(title, instructions, prompts):
    global asked
    asked += len(prompts)
    return ["wrong"] * len(prompts)
try:
    for i in range(50):
        try:
            t.auth_interactive("alice", guess, ",".join(["pam"] * 2000))
        except paramiko.AuthenticationException:
            if not t.is_active(): break
except (paramiko.SSHException, EOFError):
    pass
print(asked)
t.close()
`
	guesses := map[string]int{}
	p.both(t, func(t *testing.T, port string) {
		n, err := strconv.Atoi(p.paramiko(t, port, script))
		if err != nil {
			t.Fatal(err)
		}
		if guesses[port] = n; n > 6 || n == 0 {
			t.Errorf("%d guesses, MaxAuthTries 6", n)
		}
	})
	if guesses[p.ours] != guesses[p.theirs] {
		t.Errorf("%d guesses, with sshd %d", guesses[p.ours], guesses[p.theirs])
	}
}

// TestACookieOfX11HasNoLinesForXauth asks for X11 forwarding with a cookie that has
// commands of xauth(1) in it.
func TestACookieOfX11HasNoLinesForXauth(t *testing.T) {
	p := up(t)
	p.both(t, func(t *testing.T, port string) {
		c, err := login(port, "alice", ssh.PublicKeys(p.key(t, "alice")))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		file := "/home/alice/made-by-xauth-" + port
		for _, words := range [][2]string{
			{"MIT-MAGIC-COOKIE-1", "00\nextract " + file + " :0\n"},
			{"MIT-MAGIC-COOKIE-1\nextract " + file + " :0\n", "00"},
			{"MIT-MAGIC-COOKIE-1", "00 ; source /etc/passwd"},
		} {
			s, err := c.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			ok, err := s.SendRequest("x11-req", true, ssh.Marshal(struct {
				Single        bool
				Protocol, Key string
				Screen        uint32
			}{false, words[0], words[1], 0}))
			if ok || err != nil {
				t.Errorf("x11-req with %q is granted", words)
			}
			s.Run("true") // which is when xauth would run
			s.Close()
		}
		if out := p.Sh(t, "ls "+file+" 2>/dev/null || true"); out != "" {
			t.Errorf("xauth has made %s", out)
		}
	})
}

// TestAForwardedSocketIsTheUsersAlone has a unix socket made, which sshd made as root
// once.
func TestAForwardedSocketIsTheUsersAlone(t *testing.T) {
	p := up(t)
	p.both(t, func(t *testing.T, port string) {
		c, err := login(port, "alice", ssh.PublicKeys(p.key(t, "alice")))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		path := "/home/alice/socket-" + port
		l, err := c.ListenUnix(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if got := p.Sh(t, "stat -c '%U:%G %a %F' "+path); got != "alice:alice 600 socket" {
			t.Errorf("it is %s", got)
		}
		for _, path := range []string{"/etc/socket", "/run/factotum/socket", "/home/bob/socket"} {
			if l, err := c.ListenUnix(path); err == nil {
				l.Close()
				t.Errorf("%s is made", path)
			}
		}
	})
}

// TestATerminalOfASessionIsTheUsersAlone looks at the terminal that a session gets: others
// could write to it once.
func TestATerminalOfASessionIsTheUsersAlone(t *testing.T) {
	p := up(t)
	p.both(t, func(t *testing.T, port string) {
		c, err := login(port, "alice", ssh.PublicKeys(p.key(t, "alice")))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := c.NewSession()
		if err == nil {
			err = s.RequestPty("vt100", 24, 80, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Output("stat -c '%U %A' $(tty)")
		if err != nil || !regexp.MustCompile(`^alice crw-(---|-w-)---\s*$`).Match(out) {
			t.Errorf("%q, %v", out, err)
		}
	})
}

// TestADisplayIsFreeForEachAddress has somebody else listen at the port of a display, for
// IPv6 alone: whoever is there would get the user's X11 connections.
func TestADisplayIsFreeForEachAddress(t *testing.T) {
	p := up(t)
	display := func(t *testing.T, port string) int {
		c, err := login(port, "alice", ssh.PublicKeys(p.key(t, "alice")))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		ok, err := s.SendRequest("x11-req", true, ssh.Marshal(struct {
			Single        bool
			Protocol, Key string
			Screen        uint32
		}{false, "MIT-MAGIC-COOKIE-1", strings.Repeat("00", 16), 0}))
		if !ok || err != nil {
			t.Fatalf("x11-req: %v, %v", ok, err)
		}
		out, err := s.Output("echo $DISPLAY")
		m := regexp.MustCompile(`^localhost:(\d+)\.0\n$`).FindSubmatch(out)
		if m == nil {
			t.Fatalf("DISPLAY is %q, %v", out, err)
		}
		n, _ := strconv.Atoi(string(m[1]))
		return n
	}
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Logf("there is no IPv6 here, and no display for it: %v", err)
		return
	}
	l.Close()
	p.both(t, func(t *testing.T, port string) {
		var taken int
		if !testbed.Eventually(func() bool { // until the session before has given it up
			taken = display(t, port)
			l, err = net.Listen("tcp", fmt.Sprintf("[::1]:%d", 6000+taken))
			return err == nil
		}) {
			t.Fatal(err)
		}
		defer l.Close()
		if got := display(t, port); got == taken {
			t.Errorf("display %d is taken though another listens there", got)
		}
	})
}

// TestWhatAServerSaysIsNoWordOfAClients has the client say what only a server may: that
// it is authenticated.
func TestWhatAServerSaysIsNoWordOfAClients(t *testing.T) {
	p := up(t)
	const script = `
import sys, paramiko
from paramiko.message import Message
for before in (False, True):
    t = paramiko.Transport(("127.0.0.1", int(sys.argv[1])))
    t.start_client()
    try:
        if before:
            try: t.auth_none("alice")
            except paramiko.BadAuthenticationType: pass
        m = Message(); m.add_byte(bytes([52]))
        t._send_message(m)
        s = t.open_session(timeout=10)
        s.exec_command("id -un")
        print("in as", s.makefile().read())
    except (paramiko.SSHException, EOFError, OSError) as e:
        print("refused")
    t.close()
`
	p.both(t, func(t *testing.T, port string) {
		if got := p.paramiko(t, port, script); got != "refused\nrefused" {
			t.Errorf("it says: %s", got)
		}
	})
}

// TestNoPAMServiceOfOursReadsAUsersEnvironment looks for user_readenv of pam_env(8), with
// which a user could claim to sit at the machine.
func TestNoPAMServiceOfOursReadsAUsersEnvironment(t *testing.T) {
	text, err := os.ReadFile("../../../dist/debian/pam")
	if err != nil || !strings.Contains(string(text), "pam_env.so") {
		t.Fatalf("%s, %v", text, err)
	}
	if strings.Contains(string(text), "user_readenv") {
		t.Errorf("it is there: %s", text)
	}
}

// TestNumbersOfChannelsThatAreNone sends to channels that are not open.
func TestNumbersOfChannelsThatAreNone(t *testing.T) {
	p := up(t)
	const script = `
import sys, time, paramiko
from paramiko.message import Message
for kind in (93, 94, 95, 96, 97, 98, 99, 100, 91, 92):
    for number in (0, 1, 9, 10, 11, 127, 128, 255, 256, 1023, 1024, 2**31-1, 2**31, 2**32-1):
        t = paramiko.Transport(("127.0.0.1", int(sys.argv[1])))
        t.connect(username="alice", pkey=paramiko.Ed25519Key.from_private_key_file(sys.argv[2])) if number == 0 and kind == 94 or number in (10, 2**32-1) else None
        if not t.is_active(): continue
        m = Message()
        m.add_byte(bytes([kind])); m.add_int(number)
        m.add_string(b"x" * 64) if kind in (94, 98) else m.add_int(1)
        m.add_boolean(True)
        t._send_message(m)
        time.sleep(0.05)
        t.close()
t = paramiko.Transport(("127.0.0.1", int(sys.argv[1])))
t.connect(username="alice", pkey=paramiko.Ed25519Key.from_private_key_file(sys.argv[2]))
s = t.open_session(); s.exec_command("id -un"); print(s.makefile().read().decode()); t.close()
`
	p.both(t, func(t *testing.T, port string) {
		if got := p.paramiko(t, port, script); got != "alice" {
			t.Errorf("after that: %q", got)
		}
	})
	if log := p.Sh(t, "cat "+p.Dir+"/log/sshfront"); strings.Contains(log, "panic") || strings.Contains(log, "runtime error") {
		t.Errorf("sshfront says: %s", log)
	}
}

// TestPingsAreNotStored sends SSH2_MSG_PING (PROTOCOL of OpenSSH) before the login and
// after it, 120 MB of them, and does not read the answers.
func TestPingsAreNotStored(t *testing.T) {
	p := up(t)
	const script = `
import sys, time, threading, paramiko
from paramiko.message import Message
t = paramiko.Transport(("127.0.0.1", int(sys.argv[1])))
t.start_client()
if sys.argv[3] == "after":
    t.auth_publickey("alice", paramiko.Ed25519Key.from_private_key_file(sys.argv[2]))
class Deaf:
    def __init__(self, s): self.s = s
    def recv(self, n):
        time.sleep(600)
    def __getattr__(self, name): return getattr(self.s, name)
t.packetizer._Packetizer__socket = Deaf(t.packetizer._Packetizer__socket)
m = Message()
m.add_byte(bytes([192])); m.add_string(b"x" * 30000)
sent = 0
def send():
    global sent
    for i in range(4000):
        t._send_message(m)
        sent += 1
threading.Thread(target=send, daemon=True).start()
was = -1
while was != sent:
    was = sent
    time.sleep(2)
print(sent, flush=True)
sys.stdin.read()
`
	peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`)
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			cmd := exec.Command("/usr/bin/python3", "-c", script, p.ours, p.Dir+"/keys/alice", when)
			in, err1 := cmd.StdinPipe()
			out, err2 := cmd.StdoutPipe()
			if err := errors.Join(err1, err2, cmd.Start()); err != nil {
				t.Fatal(err)
			}
			defer func() {
				in.Close()
				cmd.Process.Kill()
				cmd.Wait()
			}()
			sent, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			connections := 0
			for name, pids := range p.Processes() {
				if name != "sshfront: 127.0.0.1" {
					continue
				}
				connections += len(pids)
				status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
				m := peak.FindSubmatch(status)
				if m == nil {
					t.Fatalf("no VmHWM in %s", status)
				}
				if kB, _ := strconv.Atoi(string(m[1])); kB > 60_000 {
					t.Errorf("%s has had %d kB, after %s pings", name, kB, sent)
				}
			}
			// Before the login the library takes no ping, and the connection ends.
			if when == "after" && connections != 1 {
				t.Errorf("%d connection processes after %s pings: %v", connections, sent, p.Processes())
			}
		})
	}
}

// library is golang.org/x/crypto in go.mod.
var library = regexp.MustCompile(`(?m)^\s*golang\.org/x/crypto v0\.(\d+)\.\d+`)

// TestTheLibraryIsNewerThanItsKnownFaults compares the version that is built with those
// that mended what is known of golang.org/x/crypto/ssh.
func TestTheLibraryIsNewerThanItsKnownFaults(t *testing.T) {
	mod, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	m := library.FindSubmatch(mod)
	if m == nil {
		t.Fatal("go.mod does not require golang.org/x/crypto")
	}
	minor, _ := strconv.Atoi(string(m[1]))
	for fault, mended := range map[string]int{
		"CVE-2023-48795, prefix truncation (Terrapin)":               17,
		"CVE-2024-45337, a callback's key is not the one that signs": 31,
		"CVE-2025-22869, memory while a key exchange is pending":     35,
		"CVE-2025-47913, an agent's answer":                          43,
		"CVE-2025-47914, an agent's request":                         45,
		"CVE-2025-58181, the number of GSSAPI mechanisms":            45,
	} {
		if minor < mended {
			t.Errorf("v0.%d has %s, which v0.%d has mended", minor, fault, mended)
		}
	}
}
