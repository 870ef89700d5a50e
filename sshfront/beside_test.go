package main

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"p9auth/test/testbed"
)

// beside runs a script with ours and with sshd, $port of both in turn, and returns what
// each printed, with the script's status.
func (s *site) beside(t *testing.T, theirs, script string) (ours, sshds string) {
	t.Helper()
	var got [2]string
	for i, port := range []string{s.port, theirs} {
		out, err := s.run(t, "export port="+port+"; "+script)
		got[i] = out
		if err != nil {
			got[i] += fmt.Sprintf("(%v)", err)
		}
	}
	return got[0], got[1]
}

// A client of OpenSSH tells a server that it takes for one of OpenSSH's that it wants
// no more output: PROTOCOL of OpenSSH, section 2.1.
func TestAProgramWhoseOutputNobodyReadsEndsAsWithSshd(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	theirs, _ := s.sshd(t, "")
	for _, c := range []struct{ script, want string }{
		{`timeout 20 ssh -n -p $port $options alice@127.0.0.1 'yes; echo $? >&2' 2>/dev/null | head -n 1`, "y\n"},
		{`timeout 20 ssh -p $port $options alice@127.0.0.1 'yes; echo $? >&2' 2>/dev/null </dev/zero | head -n 1`, "y\n"},
		{`timeout 20 ssh -n -p $port $options alice@127.0.0.1 'yes; echo $? >st; echo x >&2; echo $? >>st' 2>&1 >/dev/full; echo $?`, "0\n"},
		{`ssh -n -p $port $options alice@127.0.0.1 'cat st'`, "141\n0\n"},
		{`yes | timeout 20 ssh -p $port $options alice@127.0.0.1 'head -n 1; exec <&-; exec sleep 0.2'`, "y\n"},
		{`yes | timeout 20 ssh -p $port $options alice@127.0.0.1 'head -n 1'`, "y\n"},
		{`ssh -f -N -M -S $tmp/$port -p $port ${options/-o ControlPath=none/} alice@127.0.0.1
		for i in 1 2 3; do timeout 20 ssh -n -S $tmp/$port alice@127.0.0.1 'yes; echo $? >&2' 2>/dev/null | head -n 1; done
		ssh -S $tmp/$port -O exit alice@127.0.0.1 2>/dev/null`, "y\ny\ny\n"},
	} {
		got, sshds := s.beside(t, theirs, "trap '' PIPE; set +o pipefail; "+c.script)
		if got != sshds || !strings.HasPrefix(sshds, c.want) {
			t.Errorf("%s: got %q, with sshd %q", c.script, got, sshds)
		}
	}
	s.noneLeft(t)
}

// What a client has to be careful about it knows by the server's version: compat.c of
// OpenSSH, the logs of PuTTY and libssh.
func TestClientsTakeUsForAnOpenSSH(t *testing.T) {
	need(t, "ssh", "plink", "puttygen")
	s := newSite(t)
	theirs, _ := s.sshd(t, "")
	for _, c := range []struct{ script, want string }{
		{`ssh -v -n -p $port ${options/-o LogLevel=ERROR/} alice@127.0.0.1 true 2>&1 | sed -n 's/.* pat OpenSSH\* compat/compat/p'`, "compat 0x04000000\n"},
		{`puttygen $keys/alice -O private -o k.ppk; plink -v -batch -hostkey "$(ssh-keygen -lf <(ssh-keyscan -t ed25519 -p $port 127.0.0.1 2>/dev/null) | cut -d' ' -f2)" -P $port -i k.ppk alice@127.0.0.1 true 2>&1 |
		grep -E 'We believe|Access granted'`, "Access granted\n"},
		{`/usr/bin/python3 -W ignore - <<'E'
import asyncio, asyncssh, os
async def main():
    async with asyncssh.connect("127.0.0.1", int(os.environ["port"]), username="alice", client_keys=[os.environ["keys"] + "/alice"], known_hosts=None, config=None) as c:
        print(c.get_extra_info("server_version").startswith("SSH-2.0-OpenSSH_"), (await c.run("id -un")).stdout, end="")
asyncio.run(main())
E`, "True alice\n"},
	} {
		got, sshds := s.beside(t, theirs, c.script)
		if got != sshds || sshds != c.want {
			t.Errorf("%s: got %q, with sshd %q", c.script, got, sshds)
		}
	}
}

// messages sends a message of each type in a connection of its own, before and after
// authentication, and prints what comes back.
const messages = `/usr/bin/python3 -W ignore - <<'E'
import os, socket, threading, paramiko
from paramiko.message import Message
for user in (False, True):
    for n in %s:
        t = paramiko.Transport(socket.create_connection(("127.0.0.1", int(os.environ["port"]))))
        t.start_client()
        if user:
            t.auth_publickey("alice", paramiko.Ed25519Key.from_private_key_file(os.environ["keys"] + "/alice"))
        got, done = [], threading.Event()
        t._handler_table = dict(t._handler_table)
        t._handler_table[3] = lambda self, m: (got.append(m.get_int()), done.set())
        m = Message()
        m.add_byte(bytes([n]))
        m.add_string("some text")
        number = t.packetizer._Packetizer__sequence_number_out
        t._send_message(m)
        if n == 3: # to which there is no answer, but to what follows
            number += 1
            t._send_message(Message(bytes([106])))
        done.wait(20)
        if not user: # the connection goes on
            t.auth_password("alice", "open-sesame")
        t.renegotiate_keys()
        print(user, n, got == [number], t.is_active())
        t.close()
E`

// RFC 4253, section 11.4.
func TestMessagesThatNobodyKnowsAreAnsweredAsBySshd(t *testing.T) {
	need(t, "python3")
	s := newSite(t)
	s.reload(t, "PerSourcePenalties no\nMaxStartups 100")
	theirs, _ := s.sshd(t, "MaxStartups 100")
	got, sshds := s.beside(t, theirs, fmt.Sprintf(messages, "(3, 7, 19, 106, 191)"))
	if got != sshds || strings.Count(sshds, " True True\n") != 10 {
		t.Errorf("got\n%s, with sshd\n%s", got, sshds)
	}
	s.noneLeft(t)
}

// The requests of a client are answered in its order: a forward listens before the
// command runs, and ExitOnForwardFailure keeps it from running.
func TestAForwardListensBeforeTheCommandRunsAsWithSshd(t *testing.T) {
	need(t, "ssh", "ss")
	s := newSite(t)
	theirs, _ := s.sshd(t, "MaxStartups 100")
	s.reload(t, "PerSourcePenalties no\nMaxStartups 100")
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, taken, _ := net.SplitHostPort(l.Addr().String())
	const (
		client = "ssh -n -p $port $options -o ExitOnForwardFailure=yes "
		unused = `free=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'); `
	)
	for _, c := range []struct{ script, want string }{
		{unused + "for i in $(seq 3); do " + client + "-R $free:127.0.0.1:1 alice@127.0.0.1 \"ss -Hltn sport = :$free | wc -l\" || echo failed; done", ""},
		{unused + "for i in $(seq 3); do " + client + "-R /home/alice/s$port.$i:127.0.0.1:1 alice@127.0.0.1 \"test -S s$port.$i && echo there\"; done", strings.Repeat("there\n", 3)},
		// The port is another's.
		{"taken=" + taken + "; " + client + "-R $taken:127.0.0.1:1 alice@127.0.0.1 touch ran; " + client + "alice@127.0.0.1 'ls ran'", "Error: remote port forwarding failed for listen port"},
		{client + "-R /none/s:127.0.0.1:1 alice@127.0.0.1 touch ran; " + client + "alice@127.0.0.1 'ls ran'", "Error: remote port forwarding failed for listen path /none/s\n"},
	} {
		got, sshds := s.beside(t, theirs, c.script)
		if got != sshds || !strings.HasPrefix(sshds, c.want) || strings.Contains(sshds, "failed\n") || strings.Contains(sshds, "ran\n") {
			t.Errorf("%s: got %q, with sshd %q", c.script, got, sshds)
		}
	}
	s.noneLeft(t)
}

// All that a program writes arrives, however much the client still sends, and whether
// it reads slowly or many read at once.
func TestTheEndOfWhatAProgramWritesArrivesAsWithSshd(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	theirs, _ := s.sshd(t, "MaxSessions 40")
	s.reload(t, "PerSourcePenalties no\nMaxSessions 40")
	const script = `ssh -f -N -M -S $tmp/$port -p $port ${options/-o ControlPath=none/} alice@127.0.0.1
	for n in 1 65535 65536 65537 150000 262144 262145 2097153; do
		(ssh -S $tmp/$port alice@127.0.0.1 "head -c $n /dev/zero" </dev/zero | { sleep 0.1; wc -c; } >$port.z$n) &
		(ssh -S $tmp/$port alice@127.0.0.1 "head -c $n /dev/zero; exit 3" </dev/zero >$port.e$n; echo $? $(stat -c %s $port.e$n) >$port.x$n) &
		(ssh -n -S $tmp/$port alice@127.0.0.1 "head -c $n /dev/zero | tee /dev/stderr" 2>&1 | wc -c >$port.b$n) & # what comes second is to be read, too
	done
	wait $(jobs -p)
	cat $port.[zxb]*
	ssh -S $tmp/$port -O exit alice@127.0.0.1 2>/dev/null`
	got, sshds := s.beside(t, theirs, script)
	if got != sshds || !strings.Contains(sshds, "\n2097153\n") || !strings.Contains(sshds, "\n3 2097153\n") || !strings.Contains(sshds, "4194306\n") {
		t.Errorf("got %q, with sshd %q", got, sshds)
	}
	s.noneLeft(t)
}

// Scripts know what a client says of the methods that it could not use.
func TestTheMethodsThatCanContinueAreListedAsBySshd(t *testing.T) {
	need(t, "ssh", "sshpass")
	s := newSite(t)
	const client = "ssh -n -p $port $options -o NumberOfPasswordPrompts=1 -o PreferredAuthentications="
	for conf, want := range map[string]string{
		"KbdInteractiveAuthentication yes": "(publickey,password,keyboard-interactive)",
		"KbdInteractiveAuthentication no":  "(publickey,password)",
		"KbdInteractiveAuthentication yes\nAuthenticationMethods password keyboard-interactive,publickey": "(password,keyboard-interactive)",
		"AuthenticationMethods none": "()",
	} {
		theirs, end := s.sshd(t, conf)
		s.reload(t, "PerSourcePenalties no\n"+conf)
		for _, script := range []string{client + "none alice@127.0.0.1 id", client + "none mallory@127.0.0.1 id", "sshpass -p wrong " + client + "password alice@127.0.0.1 id"} {
			got, sshds := s.beside(t, theirs, script)
			if got != sshds || !strings.Contains(sshds, want) {
				t.Errorf("%q: %s: got %q, with sshd %q", conf, script, got, sshds)
			}
		}
		end()
	}
}

// The listener's process is the same after SIGHUP, and so is what sshd writes then.
func TestPidFileIsWrittenAgainOnSIGHUPAsBySshd(t *testing.T) {
	s := newSite(t)
	s.Sh(t, "mkdir -p /run/sshd /run/pids && chmod 777 /run/pids")
	for _, program := range []string{s.Bin("sshfront"), "/usr/sbin/sshd"} {
		conf := func(pidFile string) {
			s.Write(t, "/run/pids/conf", "ListenAddress 127.0.0.1\nHostKey /etc/ssh/ssh_host_ed25519_key\nPidFile /run/pids/"+pidFile+"\n")
			s.Sh(t, "chmod 644 /run/pids/conf")
		}
		conf("first")
		server := s.Command(program, "-D", "-e", "-f", "/run/pids/conf", "-p", testbed.FreePort(t))
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		has := func(want string) bool { // the only files
			return s.Sh(t, "cd /run/pids; grep -H '^[0-9]*$' * || true") == want
		}
		pid := func(name string) string { return fmt.Sprintf("%s:%d", name, server.Process.Pid) }
		if !testbed.Eventually(func() bool { return has(pid("first")) }) {
			t.Errorf("%s: at the start: not %s", program, pid("first"))
		}
		conf("second")
		server.Process.Signal(syscall.SIGHUP)
		if !testbed.Eventually(func() bool { return has(pid("second")) }) {
			t.Errorf("%s: after SIGHUP: not %s", program, pid("second"))
		}
		server.Process.Signal(syscall.SIGTERM)
		server.Wait()
		if !has("") {
			t.Errorf("%s leaves its file", program)
		}
	}
}

// Whatever Compression says, and whether a client wants it or not.
func TestClientsThatWantCompressionLogInAsWithSshd(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	for _, value := range []string{"yes", "delayed", "no"} {
		conf := "Compression " + value
		theirs, end := s.sshd(t, conf)
		s.configure(t, "PerSourcePenalties no\n"+conf)
		script := "for c in yes no; do ssh -n -p $port $options -o Compression=$c alice@127.0.0.1 'head -c 1000000 /dev/zero' | wc -c; done; " +
			"head -c 1000000 /dev/zero | ssh -C -p $port $options alice@127.0.0.1 'wc -c'"
		if got, sshds := s.beside(t, theirs, script); got != sshds || sshds != "1000000\n1000000\n1000000\n" {
			t.Errorf("%s: got %q, with sshd %q", conf, got, sshds)
		}
		end()
	}
}
