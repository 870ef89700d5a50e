package ssh

import (
	"slices"
	"strings"
	"testing"

	"p9auth/test/manual"
	"p9auth/test/testbed"
)

// p9auth_sshd_config(5) has a way for programs that must be root, which no command may
// be. socat listens in systemd's place.
func TestAProgramThatMustBeRootAnswersBehindASocket(t *testing.T) {
	b := up(t)
	ed, other := newKey(t, "ed25519", 0), newKey(t, "ed25519", 0)
	scripts := slices.DeleteFunc(manual.Displays(t, "p9auth_sshd_config.5", "PROGRAMS"), func(d string) bool { return !strings.HasPrefix(d, "#!/bin/sh\n") })
	if len(scripts) != 2 {
		t.Fatalf("the manual has %q", scripts)
	}
	b.Sh(t, "mkdir -p /etc/p9")
	b.Write(t, "/etc/p9/line", ed.line(""))
	b.program(t, "/etc/p9/google_authorized_keys", `test "$1 $(id -u)" = "alice 0" && cat /etc/p9/line`+"\n")
	for i, path := range []string{"/etc/p9/root-keys", "/etc/p9/ask-root-keys"} {
		text := strings.ReplaceAll(scripts[i], "/usr/bin/google_authorized_keys", "/etc/p9/google_authorized_keys")
		b.program(t, path, strings.TrimPrefix(text, "#!/bin/sh\n"))
	}
	server := b.Command("socat", "UNIX-LISTEN:/run/root-keys,user=nobody,mode=600,fork", "EXEC:/etc/p9/root-keys")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	defer server.Process.Kill()
	if !testbed.Eventually(func() bool { return b.Command("test", "-S", "/run/root-keys").Run() == nil }) {
		t.Fatal("socat does not listen")
	}
	b.configure(t, keysCommand+"/etc/p9/ask-root-keys %u")
	b.try(t, trial{"the key that the program prints", "", ed, "", "done", ""})
	b.try(t, trial{"another key", "", other, "", "denied", "Failed publickey"})
	b.configure(t, "AuthorizedKeysCommandUser bob\nAuthorizedKeysCommand /etc/p9/ask-root-keys %u")
	b.try(t, trial{"a user who may not connect", "", ed, "", "denied", "AuthorizedKeysCommand /etc/p9/ask-root-keys: it failed"})
}
