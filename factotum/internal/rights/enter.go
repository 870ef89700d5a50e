package rights

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"p9auth/internal/proc"
	"p9auth/internal/sys"
)

// Enter gives up, in all threads and for good, what neither factotum nor a worker
// needs. It is called when everything is open and mounted, and before anybody is
// heard. With device, it is the kernel that makes capabilities of what factotum writes.
// Where the service manager has taken CAP_SETPCAP away, it has decided what workers may
// have, and Enter leaves the bounding set as it is. It logs what is on.
func Enter(log *slog.Logger, device bool) error {
	backend := uint64(backend)
	if !device {
		backend = 0
	}
	defer sys.BoundStops()()
	st, err := proc.ReadStatus(os.Getpid())
	if err != nil {
		return err
	}
	workers := st.Permitted & st.Bounding
	if workers&(1<<unix.CAP_SETPCAP) != 0 {
		workers &= all() | backend
		if err := bound(st.Bounding &^ workers); err != nil {
			return err
		}
	}
	if missing := all() &^ workers; missing != 0 {
		log.Warn("factotum lacks capabilities, so that something will not work", "capabilities", names(missing), "see", "factotum(8)")
	}
	if err := allThreads("prctl(PR_SET_NO_NEW_PRIVS)", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return err
	}
	if err := seccomp(); err != nil {
		return err
	}
	// What the service manager has added is for whoever needs it.
	own := workers &^ (only(func(r Right) bool { return !r.Own }) &^ backend)
	if err := capset(workers, own); err != nil {
		return err
	}
	if _, err := proc.ReadStatus(1); err != nil { // without CAP_SYS_PTRACE
		log.Warn("factotum does not see the processes of others, so that nobody can log in", "error", err.Error(), "see", "hidepid in factotum(8)")
	}
	// Linux 6.3 and later.
	memory := "on"
	if err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0); err != nil {
		memory = "off: " + err.Error()
	}
	log.Info("factotum has given up rights", "own_capabilities", names(own), "workers_capabilities", names(workers),
		"no_new_privs", "on", "seccomp", "on", "memory_deny_write_execute", memory, "landlock", "off: PAM modules would inherit it")
	return nil
}

// only is the set of the capabilities in the table for which f is true.
func only(f func(Right) bool) (set uint64) {
	for _, r := range Table {
		if f(r) {
			set |= 1 << r.Cap
		}
	}
	return set
}

func all() uint64 { return only(func(Right) bool { return true }) }

// names are the names of a set; those that the table does not have are numbers.
func names(set uint64) string {
	var list []string
	for _, r := range Table {
		if set&(1<<r.Cap) != 0 {
			list = append(list, r.Name)
			set &^= 1 << r.Cap
		}
	}
	for n := 0; set != 0; n, set = n+1, set>>1 {
		if set&1 != 0 {
			list = append(list, fmt.Sprint(n))
		}
	}
	return strings.Join(list, ",")
}

// bound takes capabilities out of the bounding set.
func bound(drop uint64) error {
	for n := range uintptr(64) {
		if drop&(1<<n) == 0 {
			continue
		}
		if err := allThreads("prctl(PR_CAPBSET_DROP)", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0); err != nil {
			return err
		}
	}
	return nil
}

// capset sets the permitted and the effective set, and empties the inheritable one.
// A worker gets the permitted set back, as root executes it.
func capset(permitted, effective uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Permitted: uint32(permitted), Effective: uint32(effective)},
		{Permitted: uint32(permitted >> 32), Effective: uint32(effective >> 32)},
	}
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if e != 0 {
		return fmt.Errorf("capset: %w", e)
	}
	return nil
}

// seccomp loads the filter into all threads.
func seccomp() error {
	info, err := arch.GetInfo(runtime.GOARCH)
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	program, err := filter(info)
	if err != nil {
		return err
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	f := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		f[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return sys.LoadSeccomp(f)
}

// allThreads makes a system call in each thread.
func allThreads(name string, trap, a1, a2, a3 uintptr) error {
	if _, _, e := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0); e != 0 {
		return fmt.Errorf("%s: %w", name, e)
	}
	return nil
}
