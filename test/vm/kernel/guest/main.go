// Guest is the init of the virtual machine that test/vm/kernel/vm boots. It
// loads the module p9auth, tries everything that p9auth(4) and capuse(4) say
// of the device, and powers the machine off.
//
// What it finds out goes to the console, one line for each claim:
//
//	p9: ok CLAIM
//	p9: FAIL CLAIM: what was seen
//	p9: done
//
// With arguments it is a helper process of such a test: see helpers.go.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A T is the test of one claim.
type T struct {
	failures []string
}

// Errorf notes something wrong.
func (t *T) Errorf(format string, args ...any) {
	t.failures = append(t.failures, fmt.Sprintf(format, args...))
}

// Fatalf notes something wrong and ends the test.
func (t *T) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	panic(t)
}

// must ends the test if there is an error.
func (t *T) must(err error) {
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// run runs a test and says what came of it.
func run(claim string, f func(*T)) {
	t := &T{}
	func() {
		defer func() {
			if r := recover(); r != nil && r != any(t) {
				t.Errorf("panic: %v\n%s", r, debug.Stack())
			}
		}()
		f(t)
	}()
	if len(t.failures) == 0 {
		fmt.Printf("p9: ok %s\n", claim)
		return
	}
	why := strings.ReplaceAll(strings.Join(t.failures, "; "), "\n", " | ")
	fmt.Printf("p9: FAIL %s: %.2000s\n", claim, why)
}

func main() {
	if len(os.Args) > 1 && os.Getpid() != 1 {
		helper(os.Args[1], os.Args[2:])
		return
	}
	os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
	if err := setup(); err != nil {
		fmt.Printf("p9: FAIL the guest is set up: %v\n", err)
	} else if b, err := os.ReadFile("/faults.arguments"); err == nil {
		faults(string(b))
	} else {
		tests()
	}
	fmt.Println("p9: done")
	unix.Sync()
	time.Sleep(100 * time.Millisecond)
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// setup makes a system out of the initramfs.
func setup() error {
	for _, m := range []struct{ dir, fs, opt string }{
		{"/proc", "proc", ""}, {"/sys", "sysfs", ""}, {"/dev", "devtmpfs", "mode=755"},
		{"/dev/pts", "devpts", "ptmxmode=666,mode=620,gid=5"}, {"/dev/shm", "tmpfs", "mode=1777"},
		{"/run", "tmpfs", "mode=755"}, {"/tmp", "tmpfs", "mode=1777"}, {"/var/log", "tmpfs", "mode=755"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fs, m.dir, m.fs, 0, m.opt); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	os.Symlink("/proc/self/fd", "/dev/fd")
	unix.Sethostname([]byte("guest"))
	// The kernel's own words go to dmesg, which a test reads in the end; a
	// splat still comes to the console.
	if err := os.WriteFile("/proc/sys/kernel/printk", []byte("4"), 0); err != nil {
		return err
	}
	return nil
}

// short says that the long tests are to be cut down.
func short() bool {
	b, _ := os.ReadFile("/proc/cmdline")
	return slices.Contains(strings.Fields(string(b)), "p9.short")
}

// argument is what follows a word at the beginning of an argument of the kernel's.
func argument(word string) string {
	b, _ := os.ReadFile("/proc/cmdline")
	for _, a := range strings.Fields(string(b)) {
		if value, ok := strings.CutPrefix(a, word); ok {
			return value
		}
	}
	return ""
}

const (
	modulePath = "/lib/p9auth.ko"
	parameters = "/sys/module/p9auth/parameters"
)

// load loads the module.
func load(params string) error { return loadFile(modulePath, params) }

func loadFile(path, params string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), params, 0); err != nil {
		return fmt.Errorf("load %s with %q: %w", path, params, err)
	}
	return nil
}

// unload removes the module, or says that it is in use (EWOULDBLOCK).
func unload() error { return unix.DeleteModule("p9auth", unix.O_NONBLOCK) }

// unloaded removes the module. It may be in use for a moment longer: the kernel
// closes the files of a process that had an io_uring in its own time.
func unloaded(t *T) {
	var err error
	if !eventually(func() bool { err = unload(); return err == nil }) {
		t.Fatalf("unload: %v", err)
	}
}

// parameter reads a parameter of the module.
func parameter(t *T, name string) string {
	b, err := os.ReadFile(filepath.Join(parameters, name))
	t.must(err)
	return strings.TrimSpace(string(b))
}

func setParameter(t *T, name, value string) {
	t.must(os.WriteFile(filepath.Join(parameters, name), []byte(value), 0))
}

// eventually waits up to a minute for a condition.
func eventually(ok func() bool) bool {
	for range 1200 {
		if ok() {
			return true
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false
}
