package versions

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// device builds the programs for the kernel device, but those that are the same.
func device(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/dev/caphash"); err == nil {
		t.Skip("this kernel has the device")
	}
	dir := t.TempDir()
	for name, pkg := range map[string]string{"factotum": "factotum", "login": "login", "sshfront": "sshfront"} {
		run(t, top(t), "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-tags", "capdev", "-o", filepath.Join(dir, name), "./"+pkg)
	}
	return dir
}

func TestWithoutTheKernelDevicePeopleLogInByFUSE(t *testing.T) {
	m := machineOf(t, device)
	m.install(m.old, "factotum", "login", "sshfront")
	m.install(m.now, "factotum-pam", "become")
	const conf = "/etc/p9auth/factotum.conf"

	// Where the administrator insists on the device, there is no other way in.
	if out, err := m.Command("sed", "-i", "1i CapFallback no", conf).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := m.Command("timeout", "20", filepath.Join(m.bin, "factotum"), "-f", conf).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "/dev/caphash: no such file or directory: load the kernel module p9auth (modprobe p9auth)") {
		t.Errorf("with CapFallback no: %v: %s", err, out)
	}

	if out, err := m.Command("sed", "-i", "1d", conf).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.startFactotum()
	m.startSSHFront()
	for _, want := range []string{"level=ERROR msg=\"THE KERNEL DEVICE IS MISSING: factotum serves the capability files by FUSE instead", "backend=fuse"} {
		if !strings.Contains(m.log("factotum"), want) {
			t.Errorf("factotum's log lacks %s: %s", want, m.log("factotum"))
		}
	}
	m.wantIn()
	term := m.Start(t, filepath.Join(m.bin, "login"), "alice")
	term.Expect(`(?i)password`)
	term.Send(testbed.Password + "\n")
	term.Expect(`\$ `)
	term.Send("id -un | tr a-z A-Z\n")
	term.Expect(`ALICE`)
	term.Send("exit\n")

	// By FUSE logins are bound to their programs, as with a factotum that was built for it.
	if strings.Contains(m.log("factotum"), "cannot bind a login to a program") {
		t.Error("factotum says that it binds nothing")
	}
	// It had no use for rights that only the device's user needs.
	if _, own, ok := strings.Cut(m.log("factotum"), " own_capabilities="); !ok || strings.Fields(own)[0] != "SYS_ADMIN" {
		t.Errorf("factotum has not kept SYS_ADMIN alone: %.40s", own)
	}
	open := m.open()
	m.startFactotum()
	open.goesOn()
	m.wantIn()
}
