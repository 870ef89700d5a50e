package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// raw is a client of paramiko before it has named a user.
const raw = `/usr/bin/python3 - <<'E'
import os, socket, struct, paramiko
from paramiko.message import Message
s = socket.create_connection(("127.0.0.1", int(os.environ["port"])))
t = paramiko.Transport(s)
t.start_client()
def bye(reason, text):
    m = Message()
    m.add_byte(b"\1")
    m.add_int(reason)
    m.add_string(text)
    m.add_string("")
    t._send_message(m)
    t.join(10)
def reset():
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    t.packetizer._Packetizer__closed = True
    os.kill(os.getpid(), 9)
def password(user, p):
    try: t.auth_password(user, p)
    except paramiko.AuthenticationException: pass
`

var (
	endingLine  = regexp.MustCompile(`((?:Connection (?:closed|reset|from .*:)|Disconnected|Disconnecting|Received disconnect|Timeout, |terminating inactive).* port )(\d+)(.*)`)
	otherServer = regexp.MustCompile(`^Connection from 127.0.0.1 port`)
)

// How a connection ends is logged in sshd's words, which fail2ban, logwatch and
// people look for.
func TestTheEndOfAConnectionIsLoggedAsBySshd(t *testing.T) {
	need(t, "ssh", "sshpass", "ssh-keyscan", "python3", "ss")
	s := newSite(t)
	conf := "LogLevel INFO\nMaxAuthTries 2\nClientAliveInterval 1\nClientAliveCountMax 2"
	theirs, _ := s.sshd(t, conf+"\nMaxStartups 100")
	s.reload(t, "PerSourcePenalties no\nMaxStartups 100\n"+conf)
	logs := map[string]string{s.port: s.Dir + "/log/sshfront", theirs: sshdLog}
	// endings are the lines about how connections ended, without their ports.
	endings := func(port string) []string {
		var lines []string
		for l := range strings.Lines(s.Sh(t, "cat "+logs[port])) {
			if m := endingLine.FindStringSubmatch(strings.TrimRight(l, "\r\n")); m != nil && !otherServer.MatchString(m[1]) {
				lines = append(lines, m[1]+m[3])
			}
		}
		return lines
	}
	const login = "ssh -n -F none -p $port -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes -i $keys/alice "
	for _, c := range []struct{ what, script string }{
		{"a login", login + "alice@127.0.0.1 true"},
		{"no proof", login + "-o PubkeyAuthentication=no alice@127.0.0.1 true"},
		{"a user who does not exist", login + "mallory@127.0.0.1 true"},
		{"two wrong passwords", "sshpass -p wrong ssh -n -F none -p $port -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o PubkeyAuthentication=no -o PreferredAuthentications=password alice@127.0.0.1 true"},
		{"a key exchange only", "ssh-keyscan -t ed25519 -p $port 127.0.0.1"},
		{"a client that is killed", login + "alice@127.0.0.1 sleep 300 & sleep 1.5; kill -KILL $!; wait"},
		{"a client that stops", login + "alice@127.0.0.1 sleep 300 & sleep 1.5; pid=$!; kill -STOP $pid; for i in $(seq 300); do ss -Htnp state established dport = :$port | grep -q pid=$pid, || break; sleep 0.1; done; kill -KILL $pid; wait"},
		{"a disconnect", raw + "bye(11, \"good bye\")\nE"},
		{"a disconnect for a reason", raw + "bye(14, \"no more\")\nE"},
		{"a disconnect after a password", raw + "password(\"alice\", \"wrong\")\nbye(13, \"Unable to authenticate\")\nE"},
		{"a disconnect as nobody", raw + "password(\"mallory\", \"wrong\")\nbye(11, \"\")\nE"},
		{"a disconnect of a user", raw + "password(\"alice\", \"open-sesame\")\nbye(11, \"enough\")\nE"},
		{"a disconnect of a user for a reason", raw + "password(\"alice\", \"open-sesame\")\nbye(2, \"what?\")\nE"},
		{"a reset", raw + "reset()\nE"},
		{"a reset after a password", raw + "password(\"alice\", \"wrong\")\nreset()\nE"},
		{"a reset of a user", raw + "password(\"alice\", \"open-sesame\")\nreset()\nE"},
	} {
		ours, other := len(endings(s.port)), len(endings(theirs))
		for _, port := range []string{s.port, theirs} {
			if out, err := s.run(t, fmt.Sprintf("export port=%s; %s\ntrue", port, c.script)); err != nil {
				t.Errorf("%s: %v: %s", c.what, err, out)
			}
		}
		var got, want string
		if !testbed.Eventually(func() bool {
			got, want = strings.Join(endings(s.port)[ours:], "\n"), strings.Join(endings(theirs)[other:], "\n")
			return got == want
		}) {
			t.Errorf("%s: logged\n%s\nby sshd\n%s", c.what, got, want)
		}
	}
	s.noneLeft(t)
}

func TestAnAccountForSftpOnlySaysSoAsSshdDoes(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	const conf = "Subsystem sftp internal-sftp\nForceCommand internal-sftp"
	theirs, _ := s.sshd(t, conf)
	s.configure(t, conf)
	for _, script := range []string{"%s alice@127.0.0.1 id 2>errors", "%s alice@127.0.0.1 2>errors"} {
		script = fmt.Sprintf(script, "ssh -n -p $port $options") + "; echo status $?; cat errors"
		got, _ := s.run(t, script)
		want, _ := s.run(t, "port="+theirs+"; "+script)
		if got != want || !strings.HasPrefix(want, "This service allows sftp connections only.\nstatus 1\n") {
			t.Errorf("%s: got %q, with sshd %q", script, got, want)
		}
	}
}
