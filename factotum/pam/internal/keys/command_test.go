package keys

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestACommandThatMayNotRunGrantsNothing(t *testing.T) {
	s := newSetup(t)
	key := newKey(t).PublicKey()
	own := filepath.Join(s.account.Home, "program")
	if err := os.WriteFile(own, []byte("#!/bin/sh\n"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ command, user, note string }{
		{"/none/program", "nobody", "unsafe: lstat /none: no such file"},
		{own, "nobody", "unsafe: bad ownership or modes for"},
		{"/usr/bin", "nobody", "unsafe: /usr/bin is not a regular file"},
		{"program", "nobody", "is not an absolute path"},
		{"/usr/bin/echo %F", "nobody", "%F"}, // a certificate's token, for a plain key
		{"/usr/bin/echo", "", "no user is configured to run it"},
		{"/usr/bin/echo", "root", `user "root" is root, and no program is run as root`},
		{"/usr/bin/echo", "no such user", `user "no such user": no such user`},
		{"/usr/bin/echo", "%x", "%x"},
	} {
		s.conf.AuthorizedKeysCommand, s.conf.AuthorizedKeysCommandUser = c.command, c.user
		s.want(c.command+" as "+c.user, key, false, c.note)
	}
}

// Root runs the program as the user that is configured. Anybody else cannot become
// that user, and then nothing is run.
func TestACommandRunsAsItsUserOrNotAtAll(t *testing.T) {
	s := newSetup(t)
	ca, mine := newKey(t), newKey(t)
	root := os.Geteuid() == 0
	s.conf.AuthorizedKeysCommandUser, s.conf.AuthorizedPrincipalsCommandUser = "daemon", "daemon"
	s.conf.AuthorizedKeysCommand = "/usr/bin/echo %t %k"
	note := ""
	if !root {
		note = "operation not permitted"
	}
	s.want("it prints the key", mine.PublicKey(), root, note)
	if root {
		s.conf.AuthorizedKeysCommand = "/bin/false"
		s.want("it fails", mine.PublicKey(), false, "it failed: exit status 1")
		s.conf.AuthorizedKeysCommand = "/usr/bin/yes"
		s.want("it prints too much", mine.PublicKey(), false, "it printed more than")
		s.conf.AuthorizedKeysCommand = "/usr/bin/id -u"
		c := &check{account: s.account, conf: s.conf.Auth(), asUser: as}
		if out, err := c.run([]string{"/usr/bin/id", "-u"}, "daemon"); err != nil || string(out) != "1\n" {
			t.Errorf("%q, %v", out, err)
		}
		if out, err := c.run([]string{"/usr/bin/env"}, "daemon"); err != nil || strings.Contains(string(out), os.Getenv("HOME")+"\n") || !strings.Contains(string(out), "USER=daemon\n") {
			t.Errorf("%q, %v", out, err)
		}
	}
	s.conf.AuthorizedKeysCommand = ""
	s.conf.TrustedUserCAKeys = s.file("ca.pub", line(ca))
	s.conf.AuthorizedPrincipalsCommand = "/usr/bin/echo staff"
	note = "Accepted certificate"
	if !root {
		note = "operation not permitted"
	}
	s.want("it prints the principal", certify(t, ca, mine, nil), root, note)
	s.conf.AuthorizedPrincipalsCommand = "echo"
	s.want("it has no path", certify(t, ca, mine, func(c *ssh.Certificate) {}), false, "is not an absolute path")
}

func TestOutputIsBounded(t *testing.T) {
	strict, loose := &bounded{max: 5, strict: true}, &bounded{max: 5}
	for _, b := range []*bounded{strict, loose} {
		if n, err := io.WriteString(b, "abc"); n != 3 || err != nil || b.full {
			t.Errorf("%d, %v", n, err)
		}
	}
	if n, err := io.WriteString(strict, "def"); n != 2 || !errors.Is(err, io.ErrShortWrite) || !strict.full {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := io.WriteString(loose, "def"); n != 3 || err != nil || !loose.full || string(loose.kept) != "abcde" {
		t.Errorf("%d, %v, %q", n, err, loose.kept)
	}
}
