package daemon

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// A worker in another context than the policy's is none: what cannot have its context is
// not started, and the policy is not asked where there is none. make vm-selinux has the
// rest, where SELinux is.
func TestAProgramThatCannotHaveItsContextIsNotStarted(t *testing.T) {
	if selinuxAnswers() {
		t.Skip("SELinux is there, and this test is for machines without")
	}
	touched := filepath.Join(t.TempDir(), "touched")
	cmd := exec.Command("touch", touched)
	if err := startIn("system_u:system_r:nobody_t:s0", cmd); err == nil || cmd.Process != nil {
		t.Errorf("it is started: %v", err)
	}
	for _, front := range []string{"", "kernel", "unlabeled"} {
		if context, err := transition(front, "/bin/true"); context != "" || err != nil {
			t.Errorf("the context for a front end of %q is %q, %v", front, context, err)
		}
	}
	if context, err := capFilesContext(t.TempDir()); context != "" || err != nil {
		t.Errorf("the context of the capability files is %q, %v", context, err)
	}
	if got := contextType("system_u:system_r:sshd_t:s0-s0:c0.c1023"); got != "sshd_t" {
		t.Errorf("the type is %q", got)
	}
}
