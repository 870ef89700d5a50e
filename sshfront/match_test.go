package main

import (
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"p9auth/test/testbed"
)

// configure has factotum take an sshd_config. sshfront is told of what concerns
// a connection by factotum.
func (s *site) configure(t *testing.T, conf string) {
	t.Helper()
	tee := s.Command("tee", "/etc/p9auth/sshd_config")
	tee.Stdin = strings.NewReader(conf + "\n")
	if out, err := tee.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const took = "configuration read again"
	before := strings.Count(s.Log(), took)
	if err := syscall.Kill(s.Pids("factotum")[0], syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return strings.Count(s.Log(), took) > before }) {
		t.Fatal("factotum does not take the configuration")
	}
}

// A Match block for a user counts before that user is proven, with each keyword
// that has a say in authentication.
func TestMatchBlocksForTheUserCountFromTheFirstRequest(t *testing.T) {
	need(t, "ssh", "sshpass")
	s := newSite(t)
	offered := regexp.MustCompile(`Permission denied \(([^)]*)\)`)
	methods := func(user string) string {
		out, _ := exec.Command("bash", "-c", "ssh -n -p "+s.port+" "+s.options()+
			" -o PreferredAuthentications=none -o IdentityFile=none "+user+"@127.0.0.1 true").CombinedOutput()
		m := offered.FindStringSubmatch(string(out))
		if m == nil {
			t.Fatalf("no methods in %q", out)
		}
		return m[1]
	}
	password := func(user string) string {
		out, _ := exec.Command("bash", "-c", "sshpass -p open-sesame ssh -n -p "+s.port+" "+s.options()+
			" -o PubkeyAuthentication=no -o PreferredAuthentications=password -o NumberOfPasswordPrompts=1 "+user+"@127.0.0.1 id -un").CombinedOutput()
		return strings.TrimSpace(string(out))
	}

	s.configure(t, "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMatch User alice\nPasswordAuthentication yes")
	for user, want := range map[string]string{"alice": "password,publickey", "bob": "publickey", "mallory": "publickey"} {
		if got := methods(user); got != want && got != "publickey,password" {
			t.Errorf("%s is offered %s, not %s", user, got, want)
		}
	}
	if got := password("alice"); got != "alice" {
		t.Errorf("alice's password: %s", got)
	}
	if got := password("bob"); !strings.Contains(got, "Permission denied") {
		t.Errorf("bob's password: %s", got)
	}

	s.configure(t, "Match Group wizards\nAuthenticationMethods publickey,password")
	for user, want := range map[string]string{"alice": "publickey", "bob": "publickey,password,keyboard-interactive"} {
		if got := methods(user); len(got) != len(want) {
			t.Errorf("%s is offered %s, not %s", user, got, want)
		}
	}

	// A key's algorithm that only alice may use.
	s.configure(t, "PubkeyAcceptedAlgorithms rsa-sha2-512\nMatch User alice\nPubkeyAcceptedAlgorithms ssh-ed25519")
	if out, err := s.run(t, "$ssh -o BatchMode=yes alice@127.0.0.1 id -un"); err != nil || out != "alice\n" {
		t.Errorf("alice's key: %v: %s", err, out)
	}
	if out, err := s.run(t, "$ssh -o BatchMode=yes -o IdentitiesOnly=yes -i $keys/bob bob@127.0.0.1 id -un"); err == nil {
		t.Errorf("bob's key: %s", out)
	}

	// MaxAuthTries: more tries than others have, and fewer.
	s.configure(t, "MaxAuthTries 2\nMatch User alice\nMaxAuthTries 5")
	for user, tries := range map[string]int{"alice": 5, "bob": 2} {
		before := strings.Count(s.Log(), "Failed password for "+user)
		out, _ := s.run(t, `printf '#!/bin/sh\necho wrong\n' >askpass; chmod 755 askpass; SSH_ASKPASS_REQUIRE=force SSH_ASKPASS=$tmp/askpass `+
			`ssh -n -p $port $options -o PubkeyAuthentication=no -o PreferredAuthentications=password -o NumberOfPasswordPrompts=9 `+user+`@127.0.0.1 true`)
		if n := strings.Count(s.Log(), "Failed password for "+user) - before; n != tries || !strings.Contains(out, "Too many authentication failures") {
			t.Errorf("%s tried %d times, not %d: %s", user, n, tries, out)
		}
	}

	// New keys by amount and by time.
	for conf, want := range map[string]bool{
		"RekeyLimit default none":                                     false,
		"Match User alice\nRekeyLimit 256K":                           true,
		"Match Address 127.0.0.1\nRekeyLimit 256K":                    true,
		"RekeyLimit default 1s":                                       true,
		"RekeyLimit default 1s\nMatch User alice\nRekeyLimit 1G none": false,
		"RekeyLimit default none\nMatch User alice\nRekeyLimit 1G 1s": true,
	} {
		s.configure(t, conf)
		out, err := s.run(t, "ssh -n -v -p $port ${options/-o LogLevel=ERROR/} alice@127.0.0.1 'head -c 16000000 /dev/zero; sleep 3' 2>&1 >out; wc -c <out")
		if err != nil || !strings.HasSuffix(out, "16000000\n") {
			t.Fatalf("%q: %v: %s", conf, err, out)
		}
		if n := strings.Count(out, "SSH2_MSG_KEXINIT received"); (n > 2) != want {
			t.Errorf("%q: %d key exchanges", conf, n)
		}
	}

	// The fingerprints in the log.
	s.configure(t, "FingerprintHash md5")
	if out, err := s.run(t, "$ssh alice@127.0.0.1 true"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.WantLog(t, `Accepted publickey for alice from 127\.0\.0\.1 port \d+ ssh2: ED25519 MD5:[0-9a-f:]{47}`)
	s.noneLeft(t)
}

// What a client is penalized for is what sshd would say of it.
func TestWhatAClientIsPenalizedFor(t *testing.T) {
	need(t, "ssh", "sshpass")
	s := newSite(t)
	s.reload(t, "LogLevel DEBUG1\nPerSourcePenalties no\nMatch User bob\nRefuseConnection yes")
	log := func() string { return s.Sh(t, "cat "+s.Dir+"/log/sshfront") }
	none := "ssh -n -p $port $options -o PreferredAuthentications=none "
	wrong := "sshpass -p wrong ssh -n -p $port $options -o PubkeyAuthentication=no -o NumberOfPasswordPrompts=1 "
	for _, c := range []struct{ what, script, want string }{
		{"nothing is tried", none + "alice@127.0.0.1", "exited with status 8"},
		{"nothing is tried, for nobody", none + "mallory@127.0.0.1", "exited after auth attempt by invalid user"},
		{"a wrong password", wrong + "alice@127.0.0.1", "exited after unsuccessful auth attempt"},
		{"a wrong password, for nobody", wrong + "mallory@127.0.0.1", "exited after unsuccessful auth attempt"},
		{"a user who is refused", none + "bob@127.0.0.1", "prohibited by RefuseConnection"},
		{"no request", "exec 3<>/dev/tcp/127.0.0.1/$port; read -u 3 x; exec 3>&-; false", "exited with status 8"},
	} {
		before := strings.Count(log(), c.want)
		if out, err := s.run(t, c.script); err == nil {
			t.Errorf("%s: %s", c.what, out)
		}
		if !testbed.Eventually(func() bool { return strings.Count(log(), c.want) == before+1 }) {
			t.Errorf("%s is not logged as %q: %s", c.what, c.want, log())
		}
	}
	s.noneLeft(t)
}
