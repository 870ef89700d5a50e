package main

import (
	"fmt"
	"strings"
	"testing"
)

// StrictModes is that of Debian's sshd, whose users have a group of their own and
// often a umask of 002.
func TestStrictModesLetsInWhomDebiansSshdLetsIn(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	theirs, _ := s.sshd(t, "StrictModes yes")
	s.reload(t, "PerSourcePenalties no")
	in := 0
	const h = "/home/alice"
	for _, c := range []string{
		"true",
		"chmod g+w " + h,
		"chmod g+w " + h + "/.ssh",
		"chmod g+w " + h + "/.ssh/authorized_keys",
		"chmod o+w " + h,
		"chmod o+w " + h + "/.ssh/authorized_keys",
		"chgrp wizards " + h + "; chmod g+w " + h,                                        // alice is its member
		"chgrp wizards " + h + "; chmod g+w " + h + "; usermod -a -G wizards bob",        // and bob
		"chgrp root " + h + "/.ssh; chmod g+w " + h + "/.ssh",                            // root's
		"chgrp bob " + h + "/.ssh; chmod g+w " + h + "/.ssh",                             // another's
		"usermod -a -G alice bob; chmod g+w " + h,                                        // bob is in alice's group
		"usermod -g alice bob; chmod g+w " + h,                                           // as his primary one
		"chown root:alice " + h + "/.ssh; chmod 775 " + h + "/.ssh",                      // root's directory, alice's group
		"usermod -a -G alice alice; chmod g+w " + h,                                      // named, too
		"usermod -a -G alice alice; chown root " + h + "/.ssh; chmod 775 " + h + "/.ssh", // but root owns it
		"groupadd empty; chgrp empty " + h + "; chmod g+w " + h,
		"chgrp 54321 " + h + "; chmod g+w " + h,
	} {
		s.Sh(t, c)
		var got [2]bool
		for i, port := range []string{s.port, theirs} {
			out, err := s.run(t, fmt.Sprintf("port=%s; ssh -n -p $port $options -o BatchMode=yes alice@127.0.0.1 true", port))
			if got[i] = err == nil; !got[i] && !strings.Contains(out, "Permission denied") {
				t.Fatalf("%s: %v: %s", c, err, out)
			}
		}
		if got[0] != got[1] {
			t.Errorf("%s: we let in %v, sshd %v", c, got[0], got[1])
		}
		if got[1] {
			in++
		}
		s.Sh(t, "usermod -G wizards -g alice alice; usermod -G '' -g bob bob; chown -R alice:alice "+h+"/.ssh; chown alice:alice "+h+
			"; chmod 755 "+h+"; chmod 700 "+h+"/.ssh; chmod 600 "+h+"/.ssh/authorized_keys; groupdel empty 2>/dev/null || true")
	}
	if in < 6 {
		t.Errorf("only %d logins", in)
	}
}

// A host's account for backups or git can have thousands of keys: the file is read as
// a stream.
func TestTheLastOfManyKeysLogsIn(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	s.Sh(t, "cd /home/alice/.ssh; mine=$(cat authorized_keys); yes \"$(cat "+s.Dir+"/keys/bob.pub)\" | head -n 30000 >authorized_keys; echo \"$mine\" >>authorized_keys; test $(stat -c %s authorized_keys) -gt 2097152")
	if out, err := s.run(t, "$ssh alice@127.0.0.1 echo in"); err != nil || out != "in\n" {
		t.Errorf("%v: %s", err, out)
	}
}
