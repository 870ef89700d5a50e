package session

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/factotum/pam/internal/nss"
)

func TestEachDirectoryOnTheWayToARootIsLookedAt(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "/a": "/ /a", "/a/": "/ /a/", "/a/b": "/ /a/ /a/b", "/a//b/": "/ /a/ /a// /a//b/", "/a/../b": "/ /a/ /a/../ /a/../b",
	} {
		var seen []string
		_, err := descend(path, func(component string, st *unix.Stat_t) error {
			seen = append(seen, component)
			st.Mode = unix.S_IFDIR | 0o755
			return nil
		})
		if err != nil || strings.Join(seen, " ") != want {
			t.Errorf("%s: %q, %v", path, seen, err)
		}
	}
	type st = unix.Stat_t
	for text, at := range map[string]struct {
		component string
		st        st
	}{
		`bad ownership or modes for chroot directory component "/a/"`: {"/a/", st{Mode: unix.S_IFDIR | 0o755, Uid: 1}},
		`bad ownership or modes for chroot directory component "/"`:   {"/", st{Mode: unix.S_IFDIR | 0o775}},
		`bad ownership or modes for chroot directory "/a/b"`:          {"/a/b", st{Mode: unix.S_IFDIR | 0o757}},
		`chroot path "/a/b" is not a directory`:                       {"/a/b", st{Mode: unix.S_IFREG | 0o644}},
	} {
		_, err := descend("/a/b", func(component string, st *unix.Stat_t) error {
			if *st = (unix.Stat_t{Mode: unix.S_IFDIR | 0o755}); component == at.component {
				*st = at.st
			}
			return nil
		})
		if err == nil || err.Error() != text {
			t.Errorf("%v, want %s", err, text)
		}
	}
}

func TestTokensOfARootDirectory(t *testing.T) {
	a := &nss.Account{Name: "alice", UID: 1000, Home: "/home/alice"}
	for template, want := range map[string]string{
		"/srv/%u": "/srv/alice", "%h": "/home/alice", "/srv/%U%%": "/srv/1000%", "~": "/home/alice/", "~/in": "/home/alice/in", "~root/x": "/root/x",
		"/srv/%i": "", "/srv/%": "", "~no-such-user/x": "",
	} {
		got, err := expandRoot(template, a)
		if got != want || (err == nil) == (want == "") {
			t.Errorf("%s is %q, %v", template, got, err)
		}
	}
	// What comes from the account is as little to be trusted.
	for home, want := range map[string]string{"relative": "chroot path does not begin at root", "/" + strings.Repeat("x", 5000): "chroot path too long"} {
		a.Home = home
		if _, err := root("%h", a); err == nil || err.Error() != want {
			t.Errorf("%.20s: %v", home, err)
		}
	}
	if r, err := root("/usr/..//usr/", a); err != nil || r.Path != "/usr" || r.Ino != inode(t, "/usr") {
		t.Errorf("%+v, %v", r, err)
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}
