package asuser

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestNothingIsDoneWithTheWrongRights(t *testing.T) {
	if os.Geteuid() == 0 { // root may become anybody: ask somebody else
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestNothingIsDoneWithTheWrongRights$")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	groups, err := threadGroups()
	if err != nil {
		t.Fatal(err)
	}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	for name, err := range map[string]error{
		"uid":    Do(uid+1, gid, groups, func() error { t.Error("called"); return nil }),
		"gid":    Do(uid, gid+1, groups, func() error { t.Error("called"); return nil }),
		"groups": Do(uid, gid, append(groups, gid+1), func() error { t.Error("called"); return nil }),
	} {
		if err == nil {
			t.Errorf("another %s: no error", name)
		}
	}
	want := errors.New("f's own")
	if err := Do(uid, gid, groups, func() error { return want }); err != want {
		t.Error(err)
	}
}

func TestRootReadsWithTheUsersRightsOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string, uid, gid int, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const uid, gid, group = 54321, 54322, 54323
	for path, ok := range map[string]bool{
		file("roots", 0, 0, 0o600): false, file("own", uid, 0, 0o400): true, file("others", uid+1, 0, 0o400): false,
		file("primary", 0, gid, 0o040): true, file("supplementary", 0, group, 0o040): true, file("root's group", 0, 0, 0o040): false,
	} {
		err := Do(uid, gid, []uint32{gid, group}, func() error {
			f, err := os.Open(path)
			if err == nil {
				f.Close()
			}
			return err
		})
		if (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
		if f, err := os.Open(path); err != nil {
			t.Errorf("root's rights are not back: %v", err)
		} else {
			f.Close()
		}
	}
}
