package config

import (
	"os"
	"path/filepath"
	"testing"
)

// since are the files of testdata with keywords that sshd has since a release of Debian.
var since = map[string]int{"penalties": 13, "idle": 13, "new-release": 13}

// The files of testdata are of the kinds that distributions, images for clouds, guides
// for hardening and administrators write; the first line says which.
func TestConfigurationsOfTheFieldAreReadAsBySshd(t *testing.T) {
	files, err := filepath.Glob("testdata/*")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	each(t, func(t *testing.T, w *world) {
		t.Parallel()
		l := ledger{seen: map[int]bool{}}
		for _, f := range files {
			if w.release < since[filepath.Base(f)] {
				continue
			}
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{
				{"-t"}, {"-T", "-C", "user=alice,host=h.cs.example.edu,addr=192.0.2.9,laddr=127.0.0.1,lport=22"},
				{"-T", "-C", "user=bob,host=10.1.2.3,addr=10.1.2.3,laddr=127.0.0.1,lport=2222"},
				{"-T", "-C", "user=root,host=2001:db8::1,addr=2001:db8::1,laddr=::1,lport=22"},
			} {
				theirs, ours := w.both(t, string(text), args...)
				w.verdicts(filepath.Base(f)+":\n"+string(text), theirs, ours, l.differs(t, w))
			}
		}
	})
}
