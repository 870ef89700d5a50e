package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

func TestModulesThatCannotWorkAreFound(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"login":   "# session required pam_apparmor.so\nauth required pam_unix.so\n@include common\nsession [success=ok \\\n default=bad] /lib/security/pam_unshare.so debug\n@include ../../etc/shadow\n",
		"common":  "session\tsubstack\tdeeper\nsession optional pam_umask.so pam_apparmor.so_not\n@include login\n",
		"deeper":  "session optional pam_chroot.so # pam_apparmor.so\n",
		"sshd":    "@include gone\nsession optional pam_umask.so\n",
		"unasked": "session required pam_unshare.so\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, m := range findLost(dir, "login") {
		got = append(got, m.name)
	}
	if len(got) != 2 || got[0] != "pam_unshare.so" || got[1] != "pam_chroot.so" {
		t.Errorf("login: %v", got)
	}
	if m := findLost(dir, "sshd"); m != nil {
		t.Errorf("sshd: %v", m)
	}
}
