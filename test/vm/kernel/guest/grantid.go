package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// CAP_GRANT_ID is what kernel/patches adds.
const capGrantID = 41

// lastCap is the highest capability of this kernel.
func lastCap() int {
	b, _ := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

func hasGrantID() bool { return lastCap() >= capGrantID }

// without is a mask of all capabilities but some.
func without(caps ...int) uint64 { return (1<<(lastCap()+1) - 1) &^ mask(caps...) }

func mask(caps ...int) (m uint64) {
	for _, c := range caps {
		m |= 1 << c
	}
	return m
}

// bounded puts before a command what makes it root's with a bounding set, as
// init leaves it to a service.
func bounded(set uint64, argv ...string) []string {
	return append([]string{"/proc/self/exe", "bounded", strconv.FormatUint(set, 16)}, argv...)
}

// becomeBounded is the helper of bounded.
func becomeBounded(args []string) {
	runtime.LockOSThread()
	set, err := strconv.ParseUint(args[0], 16, 64)
	for c := 0; err == nil && c <= lastCap(); c++ {
		if set&(1<<c) == 0 {
			err = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		}
	}
	if err == nil {
		err = syscall.Exec(args[1], args[1:], os.Environ())
	}
	fmt.Println("bounded:", err)
	os.Exit(1)
}

// grantIDTests are for a kernel that has CAP_GRANT_ID.
func grantIDTests() {
	if !hasGrantID() {
		return
	}
	write := func(set uint64) string {
		a := bounded(set, "/bin/bash", "-c", "head -c 32 /dev/urandom >/dev/caphash && echo granted")
		return output(exec.Command(a[0], a[1:]...))
	}
	run("CAP_GRANT_ID: a root shell without it cannot open caphash", func(t *T) {
		closeHash()
		defer openHash(t)
		for what, set := range map[string]uint64{"all the others": without(capGrantID), "CAP_SETUID and CAP_SETGID": mask(unix.CAP_SETUID, unix.CAP_SETGID)} {
			if got := write(set); !strings.Contains(got, "caphash: Operation not permitted") {
				t.Errorf("with %s: %s", what, got)
			}
		}
	})
	run("CAP_GRANT_ID: the kernel's own selftest passes, and skips nothing", func(t *T) {
		closeHash()
		defer openHash(t)
		got := output(exec.Command("/selftest/test_grant_id"))
		if !strings.Contains(got, " pass:5 fail:0 xfail:0 xpass:0 skip:0 error:0") {
			t.Errorf("%s", got)
		}
	})
	run("CAP_GRANT_ID: a root shell with nothing else can", func(t *T) {
		closeHash()
		defer openHash(t)
		want(t, "write", write(mask(capGrantID)), "granted")
	})
}

// factotumCaps are CAP_GRANT_ID and what PAM, becoming a user to read their files, and
// hanging a terminal up (CAP_SYS_ADMIN) take.
func factotumCaps() uint64 {
	return mask(capGrantID, unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_KILL, unix.CAP_SYS_ADMIN,
		unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SYS_PTRACE, unix.CAP_SYS_RESOURCE, unix.CAP_AUDIT_WRITE, unix.CAP_AUDIT_CONTROL)
}

// leaks asks kmemleak, where the kernel has it, twice as it wants to be asked.
func leaks(t *T) {
	const file = "/sys/kernel/debug/kmemleak"
	unix.Mount("debugfs", "/sys/kernel/debug", "debugfs", 0, "")
	if os.WriteFile(file, []byte("scan"), 0) != nil {
		return // no such kernel
	}
	os.WriteFile(file, []byte("scan"), 0)
	b, err := os.ReadFile(file)
	t.must(err)
	fmt.Printf("p9: note kmemleak knows %d leaks\n", strings.Count(string(b), "unreferenced object"))
	if strings.Contains(string(b), "p9auth") || strings.Contains(string(b), "capuse") || strings.Contains(string(b), "caphash") {
		t.Errorf("kmemleak: %s", b)
	}
}
