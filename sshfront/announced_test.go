package main

import (
	"strings"
	"testing"
)

// announced prints the signature algorithms that a server announces (server-sig-algs,
// RFC 8308), and after the user is named those that the client has asked for by
// ext-info-in-auth@openssh.com, as OpenSSH's does since 9.6.
const announced = `/usr/bin/python3 - <<'E'
import os, socket, time, paramiko
from paramiko.message import Message
t = paramiko.Transport(socket.create_connection(("127.0.0.1", int(os.environ["port"]))))
t.start_client()
def algorithms():
    while "server-sig-algs" not in t.server_extensions: time.sleep(0.01)
    return " ".join(sorted(t.server_extensions["server-sig-algs"].decode().split(",")))
print(algorithms())
m = Message()
m.add_byte(b"\7")
m.add_int(1)
for f in "ext-info-in-auth@openssh.com", "0": m.add_string(f)
t._send_message(m)
try: t.auth_none("alice")
except paramiko.SSHException: print(algorithms())
t.close()
E`

// Debian 12's sshd announces all that it knows, whatever it accepts, and does not know
// the client's question. Newer ones announce what is accepted outside of Match blocks, and
// then what is accepted from the user; sshfront begins with what is accepted from anybody.
func TestTheAlgorithmsThatAreAnnouncedAreThoseThatAreAccepted(t *testing.T) {
	need(t, "python3")
	s := newSite(t)
	theirs, _ := s.sshd(t, "")
	all, err := s.run(t, "port="+theirs+"; "+announced)
	if err != nil {
		t.Fatalf("%v: %s", err, all)
	}
	const every = "ecdsa-sha2-nistp256 ecdsa-sha2-nistp384 ecdsa-sha2-nistp521 rsa-sha2-256 rsa-sha2-512 sk-ecdsa-sha2-nistp256@openssh.com sk-ssh-ed25519@openssh.com ssh-ed25519"
	for accepted, want := range map[string]string{
		"+ssh-ed25519": every, "-*cert*": every,
		"ssh-ed25519,rsa-sha2-512-cert-v01@openssh.com,sk-ssh-ed25519-cert-v01@openssh.com": "rsa-sha2-256 rsa-sha2-512 sk-ssh-ed25519@openssh.com ssh-ed25519",
	} {
		s.configure(t, "PubkeyAcceptedAlgorithms "+accepted+"\nMatch User alice\nPubkeyAcceptedAlgorithms rsa-sha2-256\n")
		if got, err := s.run(t, announced); err != nil || got != want+"\nrsa-sha2-256\n" {
			t.Errorf("%s: %v: %s, want %s", accepted, err, got, want)
		}
		for a := range strings.FieldsSeq(want) {
			if !strings.Contains(" "+all, " "+a+" ") && !strings.Contains(all, a+"\n") {
				t.Errorf("sshd does not announce %s: %s", a, all)
			}
		}
	}
	s.noneLeft(t)
}
