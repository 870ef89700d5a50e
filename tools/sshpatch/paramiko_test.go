package main

import (
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// withParamiko has a script of paramiko talk to a server over a socket on its
// standard input, with a transport t in which keys are exchanged. It returns what
// the script prints, and the server's error.
func withParamiko(t *testing.T, server *ssh.ServerConfig, script string) (string, error) {
	t.Helper()
	if exec.Command("/usr/bin/python3", "-c", "import paramiko").Run() != nil {
		t.Skip("needs paramiko: run scripts/deps")
	}
	server.AddHostKey(ed25519Signer(t))
	ours, theirs := tcpPair(t)
	defer ours.Close()
	defer theirs.Close()
	ours.SetDeadline(time.Now().Add(time.Minute))
	file, err := theirs.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ended := make(chan error, 1)
	go func() {
		_, chans, reqs, err := ssh.NewServerConn(ours, server)
		if err == nil {
			go ssh.DiscardRequests(reqs)
			go refuse(chans)
		}
		ended <- err
	}()
	const begin = `
import socket, threading, paramiko
from paramiko.message import Message
t = paramiko.Transport(socket.socket(fileno=0))
t.start_client()
def service(name):
    accepted = threading.Event()
    t._handler_table[6] = lambda *a: accepted.set()
    m = Message()
    m.add_byte(b"\5")
    m.add_string(name)
    try:
        t._send_message(m)
    except EOFError:
        pass
    while not accepted.wait(0.1) and t.is_active(): pass
    del t._handler_table[6]
    return accepted.is_set()
def tries(f, *a):
    try:
        print(f.__name__, f(*a))
    except paramiko.SSHException as e:
        print(f.__name__, type(e).__name__)
`
	cmd := exec.Command("/usr/bin/python3", "-c", begin+script)
	cmd.Stdin = file
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("paramiko: %v: %s", err, out)
	}
	ours.Close()
	return string(out), <-ended
}

// Paramiko asks for the service before each attempt, and the first of all is such
// a request, so UserCallback must not go by a count.
func TestAServiceRequestBeforeEachAttempt(t *testing.T) {
	named := 0
	server := &ssh.ServerConfig{
		UserCallback: func(ssh.ConnMetadata, *ssh.ServerConfig) { named++ },
		PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
			return nil, errors.New("not this key")
		},
		PasswordCallback: func(_ ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
			if string(p) != "right" {
				return nil, errors.New("wrong")
			}
			return nil, nil
		},
	}
	out, err := withParamiko(t, server, `
print(service("ssh-userauth"), service("ssh-userauth"))
tries(t.auth_publickey, "alice", paramiko.RSAKey.generate(2048))
tries(t.auth_password, "alice", "wrong")
tries(t.auth_password, "alice", "right")
`)
	if want := "True True\nauth_publickey AuthenticationException\nauth_password AuthenticationException\nauth_password []\n"; err != nil || out != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
	if named != 1 {
		t.Errorf("UserCallback was called %d times", named)
	}
}

// Another service cannot be asked for, and requests without end are not answered.
func TestServiceRequestsAreBounded(t *testing.T) {
	for script, want := range map[string]string{
		`print(service("ssh-userauth"), service("ssh-connection"), t.is_active())`: "True False False\n",
		`
n = 0
while n < 1000 and service("ssh-userauth"): n += 1
print(n > 10, n < 1000, t.is_active())`: "True True False\n",
	} {
		server := &ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, nil }}
		if out, err := withParamiko(t, server, script); err == nil || out != want {
			t.Errorf("%s: %v: %s", script, err, out)
		}
	}
}

// unimplemented is a script that sends messages of types that a server cannot
// use, prints what comes back, and goes on.
const unimplemented = `
got = []
arrived = threading.Semaphore(0)
t._handler_table[3] = lambda self, m: (got.append(m.get_int()), arrived.release())
def send(*types):
    before = len(got)
    sent = []
    for n in types:
        m = Message()
        m.add_byte(bytes([n]))
        m.add_string("some text")
        sent.append(t.packetizer._Packetizer__sequence_number_out)
        t._send_message(m)
    want = [s for s, n in zip(sent, types) if n != 3]
    all(arrived.acquire(timeout=20) for i in want)
    print(got[before:] == want, len(want))
`

func TestUnknownMessagesAreAnsweredAndIgnored(t *testing.T) {
	server := &ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, nil }}
	out, err := withParamiko(t, server, unimplemented+`
send(3, 6, 7, 8, 19, 30, 51, 52, 53, 60, 62, 79, 80, 90, 94, 106, 150, 191, 192, 255, 3)
tries(t.auth_password, "alice", "right")
send(3, 5, 6, 7, 8, 19, 30, 50, 51, 52, 61, 66, 79, 83, 89, 101, 106, 150, 191, 193, 255, 3)
print(t.is_active())
t.renegotiate_keys()
send(106)
`)
	if want := "True 19\nauth_password []\nTrue 20\nTrue\nTrue 1\n"; err != nil || out != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
}

// Each answer names one message, in the order in which they came, however many are
// on the way.
func TestTheAnswerHasTheMessagesNumber(t *testing.T) {
	server := &ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, nil }}
	out, err := withParamiko(t, server, unimplemented+`
send(*[106] * 300)
tries(t.auth_password, "alice", "right")
send(*[7] * 300)
`)
	if want := "True 300\nauth_password []\nTrue 300\n"; err != nil || out != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
}

// The algorithms that are announced after the key exchange are those of the server; the
// user may have others. Nobody is told a second time without having asked.
func TestTheAlgorithmsOfTheUserAreAnnouncedToClientsThatAsk(t *testing.T) {
	const all, users = "b'ssh-ed25519,rsa-sha2-512'", "b'rsa-sha2-256'"
	for what, c := range map[string]struct{ send, want string }{
		"ask":                {`info(1, "ext-info-in-auth@openssh.com", "0")`, users},
		"ask among others":   {`info(2, "x@example.com", "", "ext-info-in-auth@openssh.com", "0")`, users},
		"do not ask":         {``, all},
		"another version":    {`info(1, "ext-info-in-auth@openssh.com", "1")`, all},
		"another extension":  {`info(1, "x@example.com", "0")`, all},
		"cut short":          {`info(2, "ext-info-in-auth@openssh.com", "0")`, all},
		"more than it says":  {`info(0, "ext-info-in-auth@openssh.com", "0")`, all},
		"without end":        {`info(0xffffffff, "ext-info-in-auth@openssh.com", "0")`, all},
		"too late":           {`info(0); info(1, "ext-info-in-auth@openssh.com", "0")`, all},
		"not after the user": {`tries(t.auth_password, "alice", "wrong"); info(1, "ext-info-in-auth@openssh.com", "0")`, all},
	} {
		server := &ssh.ServerConfig{
			PublicKeyAuthAlgorithms: []string{ssh.KeyAlgoED25519, ssh.KeyAlgoRSASHA512},
			PasswordCallback: func(_ ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
				if string(p) != "right" {
					return nil, errors.New("wrong")
				}
				return nil, nil
			},
			UserCallback: func(_ ssh.ConnMetadata, c *ssh.ServerConfig) {
				c.PublicKeyAuthAlgorithms = []string{ssh.KeyAlgoRSASHA256}
			},
		}
		out, err := withParamiko(t, server, `
def info(n, *fields):
    m = Message()
    m.add_byte(b"\7")
    m.add_int(n)
    for f in fields: m.add_string(f)
    t._send_message(m)
`+c.send+`
tries(t.auth_password, "alice", "wrong")
tries(t.auth_password, "alice", "right")
print(t.server_extensions["server-sig-algs"])
`)
		if err != nil || !strings.HasSuffix(out, "auth_password []\n"+c.want+"\n") {
			t.Errorf("%s: %v: %s, want %s", what, err, out, c.want)
		}
	}
}

// A request that is bound to another server's key ends the connection, as with sshd, and
// one to none, too.
func TestABoundSignatureIsForThisHostKey(t *testing.T) {
	for _, c := range []struct{ hostKey, want string }{
		{"m.add_string(t.get_remote_server_key().asbytes())", "60 True\n"}, // SSH_MSG_USERAUTH_PK_OK
		{"m.add_string(key.asbytes())", "None False\n"},
		{"m.add_string(t.get_remote_server_key().asbytes()[:-1])", "None False\n"},
		{"m.add_string('')", "None False\n"},
		{"pass", "None False\n"},
	} {
		server := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
		out, _ := withParamiko(t, server, `
service("ssh-userauth")
key = paramiko.ECDSAKey.generate()
answer = []
for n in 51, 52, 60:
    t._handler_table[n] = lambda self, m, n=n: answer.append(n)
m = Message()
m.add_byte(b"\x32")
for f in "alice", "ssh-connection", "publickey-hostbound-v00@openssh.com": m.add_string(f)
m.add_boolean(False)
m.add_string(key.get_name())
m.add_string(key.asbytes())
`+c.hostKey+`
t._send_message(m)
import time
while not answer and t.is_active(): time.sleep(0.01)
print(answer[0] if answer else None, t.is_active())
`)
		if out != c.want {
			t.Errorf("%s: %s, want %s", c.hostKey, out, c.want)
		}
	}
}

func TestMethodsAreListedInTheOrderOfOpenSSH(t *testing.T) {
	server := &ssh.ServerConfig{
		PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
			return nil, errors.New("not this key")
		},
		PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, errors.New("wrong") },
		KeyboardInteractiveCallback: func(ssh.ConnMetadata, ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			return nil, errors.New("wrong")
		},
	}
	out, _ := withParamiko(t, server, `
try: t.auth_none("alice")
except paramiko.BadAuthenticationType as e: print(e.allowed_types)
`)
	if want := "['publickey', 'password', 'keyboard-interactive']\n"; out != want {
		t.Errorf("%s, want %s", out, want)
	}
}

// gssapi is what takes part in gssapi-with-mic (RFC 4462) and accepts nothing.
type gssapi struct{}

func (gssapi) AcceptSecContext([]byte) ([]byte, string, bool, error) { return nil, "", true, nil }
func (gssapi) VerifyMIC(_, _ []byte) error                           { return errors.New("wrong") }
func (gssapi) DeleteSecContext() error                               { return nil }

func TestAClientMayGiveGSSAPIUp(t *testing.T) {
	for what, then := range map[string]string{
		"without a token":  "",
		"after a token":    "say(b'\\x3d', 'token')",
		"by an error":      "say(b'\\x41', 'error')",
		"after the answer": "say(b'\\x3d', 'token'); say(b'\\x41', 'error')",
	} {
		server := &ssh.ServerConfig{
			PasswordCallback:    func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, nil },
			PublicKeyCallback:   func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, errors.New("no") },
			GSSAPIWithMICConfig: &ssh.GSSAPIWithMICConfig{AllowLogin: func(ssh.ConnMetadata, string) (*ssh.Permissions, error) { return nil, nil }, Server: gssapi{}},
		}
		out, err := withParamiko(t, server, `
try: t.auth_none("alice")
except paramiko.BadAuthenticationType as e: print(e.allowed_types)
def say(number, *strings):
    m = Message()
    m.add_byte(number)
    for s in strings: m.add_string(s)
    if number == b"\x32":
        m.add_int(1)
        m.add_string(b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02")
    t._send_message(m)
answered = threading.Event()
t._handler_table[60] = lambda *a: answered.set()
say(b"\x32", "alice", "ssh-connection", "gssapi-with-mic")
print(answered.wait(20))
del t._handler_table[60]
`+then+`
print(t.auth_password("alice", "right"))
`)
		if want := "['publickey', 'gssapi-with-mic', 'password']\nTrue\n[]\n"; err != nil || out != want {
			t.Errorf("%s: %v: %s, want %s", what, err, out, want)
		}
	}
}

func TestAClientIsToldThatThereIsNoMethod(t *testing.T) {
	server := &ssh.ServerConfig{
		PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, nil },
		UserCallback:     func(_ ssh.ConnMetadata, c *ssh.ServerConfig) { c.PasswordCallback = nil },
	}
	out, err := withParamiko(t, server, `
n = 0
while n < 1000 and t.is_active():
    try: t.auth_none("alice")
    except paramiko.BadAuthenticationType as e: n += 1; told = e.allowed_types
    except paramiko.SSHException: pass
print(told, n > 0, n < 1000)
`)
	if want := "[''] True True\n"; err == nil || out != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
}
