package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestTheBannerIsThatOfTheRealSshd has OpenSSH's client show the banner for
// several users, with sshfront and with Debian's sshd at the other end.
func TestTheBannerIsThatOfTheRealSshd(t *testing.T) {
	need(t, "ssh", "sshpass", "/usr/sbin/sshd")
	s := newSite(t)
	s.Sh(t, "for x in all alice wizards nobody; do echo the banner for $x >/etc/ssh/banner-$x; done; "+
		"printf 'no newline, \\303\\244\\n\\nsecond line' >/etc/ssh/banner-bob; "+
		"yes \"it's a long banner\" | head -c 120000 >/etc/ssh/banner-long")
	show := func(port, user string) string {
		// Nobody gets in: the banner is all that is shown, but for the refusal.
		cmd := exec.Command("timeout", "30", "ssh", "-n", "-F", "none", "-p", port, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-o", "LogLevel=INFO", "-o", "BatchMode=yes", "-o", "PubkeyAuthentication=no", "-o", "GlobalKnownHostsFile=/dev/null", user+"@127.0.0.1", "true")
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Fatalf("%s is logged in without a proof", user)
		}
		var lines []string
		for l := range strings.Lines(string(out)) {
			if !strings.HasPrefix(l, "Warning: Permanently added") && !strings.Contains(l, "Permission denied") {
				lines = append(lines, l)
			}
		}
		return strings.Join(lines, "")
	}
	// Who never offers a proof is turned away after a while.
	s.reload(t, "PerSourcePenalties no")
	shown := 0
	for _, conf := range []string{
		"Banner none",
		"Banner /etc/ssh/banner-long",
		"Banner /etc/ssh/banner-all",
		"Banner /etc/ssh/banner-all\nMatch User alice\nBanner /etc/ssh/banner-alice\nMatch User bob\nBanner /etc/ssh/banner-bob",
		"Match Group wizards\nBanner /etc/ssh/banner-wizards\nMatch User mallory\nBanner /etc/ssh/banner-nobody",
		"Banner /etc/ssh/banner-all\nMatch User !alice,*\nBanner none",
		"Match Address 127.0.0.1 User a*\nBanner /etc/ssh/banner-alice",
	} {
		s.configure(t, conf)
		theirs, end := s.sshd(t, conf)
		for _, user := range []string{"alice", "bob", "mallory"} {
			got, want := show(s.port, user), show(theirs, user)
			if got != want {
				t.Errorf("%q: %s is shown %q, by sshd %q", conf, user, got, want)
			}
			if want != "" {
				shown++
			}
		}
		end()
	}
	if shown < 9 {
		t.Errorf("%d banners were shown", shown)
	}

	// A connection that is refused for its user says why.
	s.configure(t, "Match User alice\nBanner /etc/ssh/banner-alice\nRefuseConnection yes")
	if got := show(s.port, "alice"); !strings.Contains(got, "this server refuses your connection") {
		t.Errorf("a refused user is shown %q", got)
	}
	s.noneLeft(t)
}
