package daemon

import (
	"testing"
	"time"

	"p9auth/internal/proc"
	"p9auth/test/testbed"
)

const (
	lost  = "the capability files were lost, and are mounted again"
	again = "the capability files are mounted again"
)

// TestTheCapabilityFilesComeBack takes them away from a running factotum in each way that
// a root process has. Within two seconds logins work, and the log says once what was.
func TestTheCapabilityFilesComeBack(t *testing.T) {
	b := up(t)
	pid := b.Factotum(t)
	stays := b.In(t, "bob")
	for _, way := range []struct{ name, do, reason string }{
		// Nothing holds the file system, so that its connection ends as well: which of the two
		// factotum sees first is open.
		{"unmounted", "umount -l $cap", "(something else is there|the kernel has ended the FUSE connection)"},
		{"unmounted while somebody has a file open", "sleep 60 3<>$cap/capuse 2>/dev/null & umount -l $cap; echo $! >/run/sleeper", "something else is there"},
		{"moved", "mkdir -p /run/elsewhere; mount --move $cap /run/elsewhere", "something else is there"},
		{"below another mount", "mount -t tmpfs over $cap", "something else is there"},
		{"remounted nosuid", "mount -o remount,bind,nosuid $cap", "it was remounted nosuid"},
		{"remounted noexec", "mount -o remount,bind,noexec $cap", "it was remounted noexec"},
		{"remounted read-only", "mount -o remount,bind,ro $cap", "it was remounted ro"},
		{"cut off", `mountpoint -q /sys/fs/fuse/connections || mount -t fusectl fusectl /sys/fs/fuse/connections; echo 1 >/sys/fs/fuse/connections/$(mountpoint -d $cap | cut -d: -f2)/abort`, "the kernel has ended the FUSE connection"},
	} {
		t.Run(way.name, func(t *testing.T) {
			before := b.Logged(lost)
			b.Sh(t, "exec >/dev/null; cap=/run/factotum/cap; "+way.do)
			began := time.Now()
			if !testbed.Eventually(func() bool { return b.Logged("level=INFO msg=\""+again) == before+1 }) {
				t.Fatalf("factotum does not mount the files again: %s", b.Log())
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("that took %v", took)
			}
			b.Out(t, b.In(t, "alice"))
			if n := b.Logged(lost); n != before+1 {
				t.Errorf("the log has %d lines of it", n-before)
			}
			b.WantLog(t, lost+`" dir=/run/factotum/cap reason="`+way.reason)
		})
	}
	b.Sh(t, "kill $(cat /run/sleeper)")
	if got := b.Factotum(t); got != pid {
		t.Errorf("factotum was %d, and is %d", pid, got)
	}
	if got := stays.Run("id -un"); got != "bob" {
		t.Errorf("bob's session says %q", got)
	}
	b.Out(t, stays)
}

// TestFactotumEndsWhereTheCapabilityFilesCannotStay with status 1, so that a service
// manager starts it again.
func TestFactotumEndsWhereTheCapabilityFilesCannotStay(t *testing.T) {
	b := up(t)
	stays := b.In(t, "bob")
	h, err := proc.Open(b.Factotum(t))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for n := 0; h.Alive() && n < 30; n++ {
		b.Sh(t, "umount -l /run/factotum/cap || true")
		testbed.Eventually(func() bool { return b.Logged("level=INFO msg=\""+again) == n+1 || !h.Alive() })
	}
	if h.Alive() {
		t.Fatal("it mounts the files again and again")
	}
	if !testbed.Eventually(func() bool {
		return b.Logged("factotum: the capability files cannot be mounted again: they are lost too often") == 1
	}) {
		t.Error("it does not say why it ends")
	}
	b.Restart(t)
	b.Out(t, b.In(t, "alice"))
	b.Out(t, stays)
}
