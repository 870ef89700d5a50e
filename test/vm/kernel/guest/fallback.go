package main

import (
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// withoutDevice has factotum, built for the device, start on a kernel whose module
// could not be had, as when DKMS failed.
func withoutDevice() {
	const conf = "/etc/p9auth/factotum.conf"
	if f, err := os.Open("/lib/fuse.ko"); err == nil {
		unix.FinitModule(int(f.Fd()), "", 0) // in use already, or refused: the test says so
		f.Close()
	}
	run("without the device, CapFallback no ends factotum, which says why", func(t *T) {
		b, err := os.ReadFile(conf)
		t.must(err)
		t.must(os.WriteFile(conf, append([]byte("CapFallback no\n"), b...), 0o644))
		defer os.WriteFile(conf, b, 0o644)
		out, err := exec.Command(programs + "factotum").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "/dev/caphash: no such file or directory: load the kernel module p9auth") {
			t.Errorf("%v: %s", err, out)
		}
	})
	run("without the device, people log in by FUSE, and factotum says so loudly", func(t *T) {
		for _, f := range []string{capuser, caphash} {
			if _, err := os.Stat(f); err == nil {
				t.Fatalf("%s is there", f)
			}
		}
		factotum := start(t, "/var/log/factotum-fuse", programs+"factotum")
		defer factotum.stop()
		factotum.says(t, `level=ERROR msg="THE KERNEL DEVICE IS MISSING: factotum serves the capability files by FUSE instead`)
		factotum.says(t, "backend=fuse")
		front := start(t, "/var/log/sshfront-fuse", bounded(without(capGrantID), programs+"sshfront", "-D", "-e", "-p", "22")...)
		defer front.stop()
		front.says(t, "Server listening")
		got := output(exec.Command("/usr/bin/ssh", "-i", "/root/id", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes",
			"-o", "LogLevel=ERROR", "alice@localhost", "id; cat /proc/self/loginuid"))
		want(t, "id", got, "uid=1000(alice) gid=1000(alice) groups=1000(alice),1100(wizards)\n1000")
		if len(t.failures) > 0 {
			for _, d := range []*daemon{front, factotum} {
				b, _ := os.ReadFile(d.log)
				t.Errorf("%s: %s", d.log, b)
			}
		}
	})
}
