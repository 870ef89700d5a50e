package main

import "testing"

// attempts is what Fabric, Ansible and backup tools do by paramiko: each attempt
// follows a request for the service ssh-userauth.
const attempts = `/usr/bin/python3 - <<'E'
import os, socket, paramiko
def key(name): return paramiko.Ed25519Key.from_private_key_file(os.environ["keys"] + "/" + name)
def tries(*proofs):
    t = paramiko.Transport(socket.create_connection(("127.0.0.1", int(os.environ["port"]))))
    t.start_client()
    for method, proof in proofs:
        if t.is_authenticated(): break
        try:
            print(method, getattr(t, "auth_" + method)("alice", proof))
        except paramiko.SSHException as e:
            print(method, type(e).__name__)
    if t.is_authenticated():
        c = t.open_session()
        c.exec_command("id -un")
        print(c.makefile().read().decode().strip())
    t.close()
right, wrong = ("publickey", key("alice")), ("publickey", key("bob"))
answers = lambda title, text, prompts: ["open-sesame"] * len(prompts)
tries(wrong, right)
tries(wrong, wrong, ("password", "open-sesame"))
tries(wrong, right, ("password", "wrong"), ("password", "open-sesame"))
tries(("password", "open-sesame"), right)
tries(wrong, right, ("interactive", answers))
E`

func TestParamikoTriesAsOftenAsWithSshd(t *testing.T) {
	need(t, "python3")
	s := newSite(t)
	for _, conf := range []string{"PasswordAuthentication yes", "AuthenticationMethods publickey,password", "AuthenticationMethods publickey,keyboard-interactive"} {
		conf = "KbdInteractiveAuthentication yes\n" + conf
		theirs, end := s.sshd(t, conf)
		s.reload(t, "PerSourcePenalties no\n"+conf)
		got, err := s.run(t, attempts)
		if err != nil {
			t.Fatalf("%s: %v: %s", conf, err, got)
		}
		want, err := s.run(t, "port="+theirs+"; "+attempts)
		end()
		if err != nil || got != want {
			t.Errorf("%s: %v: got %s, with sshd %s", conf, err, got, want)
		}
	}
	s.noneLeft(t)
}
