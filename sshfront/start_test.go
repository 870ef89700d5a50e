package main

import (
	"bufio"
	"io"
	"regexp"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// sshfrontLog is what sshfront has logged.
func (s *site) sshfrontLog(t *testing.T) string { return s.Sh(t, "cat "+s.Dir+"/log/sshfront") }

// wantSSHFrontLog waits until sshfront has logged a line that matches.
func (s *site) wantSSHFrontLog(t *testing.T, expr string) {
	t.Helper()
	re := regexp.MustCompile(`(?m)` + expr)
	if !testbed.Eventually(func() bool { return re.MatchString(s.sshfrontLog(t)) }) {
		t.Errorf("not in sshfront's log: %s:\n%s", expr, s.sshfrontLog(t))
	}
}

// The user process is executed from the program's file by become, whose standard
// error nobody but the listener reads.
func TestAProgramThatIsGoneIsLoggedAndTheUserIsTold(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	bin := s.Bin("")
	s.Sh(t, "mkdir /run/bin && mount -t tmpfs bin /run/bin && mkdir /run/bin/up /run/bin/work && "+
		"mount -t overlay bin -o lowerdir="+bin+",upperdir=/run/bin/up,workdir=/run/bin/work "+bin+" && mv "+bin+"/sshfront "+bin+"/away")
	for _, options := range []string{"", "-tt"} {
		out, err := s.run(t, "$ssh "+options+" alice@127.0.0.1 echo in")
		if err == nil || !strings.Contains(out, "the session cannot be opened; the administrator finds the reason in the log") {
			t.Errorf("%q: the user is told: %v: %s", options, err, out)
		}
	}
	s.wantSSHFrontLog(t, `error: session process \d+ for connection from 127\.0\.0\.1 to 127\.0\.0\.1 says: become: cannot execute \S+/sshfront: no such file or directory$`)

	// The running listener needs nothing but the file to be there again, or another of
	// the same version, as after an installation.
	for _, script := range []string{"mv away sshfront", "cp -p sshfront new && mv -f new sshfront", "cp -p sshfront new && rm sshfront && mv new sshfront"} {
		s.Sh(t, "cd "+bin+" && "+script)
		if out, err := s.run(t, "$ssh alice@127.0.0.1 echo in"); err != nil || out != "in\n" {
			t.Errorf("%s: %v: %s", script, err, out)
		}
	}
	s.noneLeft(t)
}

// Anybody can have all keys that they may have (keyrings(7)). Debian's sshd lets
// them in, as pam_keyinit is optional there.
func TestAUserWithTooManyKeysLogsInByKey(t *testing.T) {
	need(t, "ssh", "keyctl")
	s := newSite(t)
	// The kernel counts the keys of a uid, so those of another testbed's alice, too:
	// where her logins end, room is made, and filled again.
	fill := s.Command(testbed.As("alice", "sh", "-c", "i=0; while [ ! -e /run/enough ]; do keyctl add user k$i x @u >/dev/null 2>&1 && i=$((i+1)) || { [ $i -le 100 ] || echo full; sleep 0.01; }; done")...)
	out, err := fill.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := fill.Start(); err != nil {
		t.Fatal(err)
	}
	defer s.Sh(t, strings.Join(testbed.As("alice", "keyctl", "clear", "@u"), " "))
	defer fill.Wait()
	defer s.Sh(t, "touch /run/enough")
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "full\n" {
		t.Fatalf("%q, %v", line, err)
	}
	go io.Copy(io.Discard, out)
	theirs, _ := s.sshd(t, "")
	// A process that has no session keyring would get one all the same.
	ours := testbed.FreePort(t)
	front := s.Command("keyctl", "session", "-", s.Bin("sshfront"), "-D", "-E", s.Dir+"/log/sshfront", "-p", ours)
	if err := front.Start(); err != nil {
		t.Fatal(err)
	}
	defer front.Wait()
	defer front.Process.Kill()
	s.wantSSHFrontLog(t, "Server listening on .* port "+ours)
	for _, port := range []string{ours, theirs} {
		out, err := s.run(t, "port="+port+`; ssh -n -p $port $options alice@127.0.0.1 'keyctl add user more x @u 2>&1 || id -un'`)
		if err != nil || out != "add_key: Disk quota exceeded\nalice\n" {
			t.Errorf("port %s: %v: %s", port, err, out)
		}
	}
	s.wantSSHFrontLog(t, `says: become: no new session keyring: you have too many keys: disk quota exceeded$`)

	term := s.Start(t, "keyctl", "session", "-", s.Bin("login"), "alice")
	term.Expect(`assword:`)
	term.Send(testbed.Password + "\n")
	if got := term.Run("keyctl add user more x @u 2>&1 || id -un"); !strings.Contains(got, "Disk quota exceeded") || !strings.Contains(got, "alice") {
		t.Errorf("at a terminal: %s", got)
	}
	term.Hangup()
	s.noneLeft(t)
}
