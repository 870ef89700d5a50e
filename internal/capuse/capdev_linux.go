//go:build capdev

package capuse

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/sys"
)

// DefaultPath is the capuse file.
const DefaultPath = "/dev/capuse"

// device is the kernel's.
var device = way{redeemDevice, deviceBindsNothing, "the kernel's log", "the kernel module p9auth"}

// find returns the file to use for that, and how. Where factotum had to do without the
// device (CapFallback), it serves the capability files at their usual place, where only
// root could make others; the device, if it has come since, knows none of its
// capabilities.
func find(file string) (string, way) {
	if file == DefaultPath {
		if _, err := os.Stat(filesPath); err == nil {
			return filesPath, files
		}
	}
	if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() {
		return file, files
	}
	return file, device
}

// redeemDevice writes the capability to the kernel's device, which changes the
// identity of this thread, and executes the target at once.
//
// Until the write it returns errors. After it only this thread is the new
// user, a state that no Go program should go on in: what fails then is said
// on standard error, in the words of become, and ends the process.
//
// From the limit of processes on, Go's runtime may not start a thread, as that
// could be refused, and Go crashes then. So there is one processor, and this
// thread keeps it: with RawSyscall the runtime does not notice that the thread
// is in the kernel.
func redeemDevice(file, capability string, t Target) error {
	c, err := capproto.Parse(capability)
	if err != nil {
		return fmt.Errorf("write %s: %w", file, unix.EINVAL)
	}
	runtime.LockOSThread()
	var fd int
	if err := sys.Again(func() (err error) { fd, err = unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0); return err }); err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	loginUID := noLoginUID()
	procs := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(procs)
	// The kernel compares the soft limit with what the new user has, at the
	// write. The hard one, which could not be raised again, waits for it.
	before, err := softLimit(t.NProc)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("set the limit of processes: %w", err)
	}
	if err := write(fd, []byte(capability)); err != nil {
		setLimit(before)
		unix.Close(fd)
		return fmt.Errorf("write %s: %w", file, err)
	}

	if err := setLimit(t.NProc); err != nil {
		fail("set the limit of processes", err)
	}
	if loginUID {
		setLoginUID(c.Grant.To)
	}
	newKeyring()
	if err := dropCapabilities(); err != nil {
		fail("capset", err)
	}
	if t.Dir != "" {
		if err := chdir(t.Dir); err != nil {
			fail("cannot enter "+t.Dir, err)
		}
	}
	fail("cannot execute "+t.Path, syscall.Exec(t.Path, t.Argv, t.Env))
	return nil
}

// deviceBindsNothing fails before it uses the capability up: the device changes the
// identity of a thread, and cannot say what that does next.
func deviceBindsNothing(file, _ string) error {
	return fmt.Errorf("%s cannot bind a capability to a program: %w", file, errors.ErrUnsupported)
}

// softLimit lowers the soft limit of processes to the new user's. It returns
// what the limit was.
func softLimit(l *[2]uint64) (before *[2]uint64, err error) {
	if l == nil {
		return nil, nil
	}
	var now unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NPROC, nil, &now); err != nil {
		return nil, err
	}
	return &[2]uint64{now.Cur, now.Max}, setLimit(&[2]uint64{l[0], max(l[0], now.Max)})
}

// setLimit sets the limit of processes, nil leaves it.
func setLimit(l *[2]uint64) error {
	if l == nil {
		return nil
	}
	return unix.Prlimit(0, unix.RLIMIT_NPROC, &unix.Rlimit{Cur: l[0], Max: l[1]}, nil)
}

const loginUIDFile = "/proc/thread-self/loginuid"

// noLoginUID says whether there is an audit login uid, and it is not set.
func noLoginUID() bool {
	now, err := os.ReadFile(loginUIDFile)
	return err == nil && string(now) == strconv.FormatUint(capproto.NoID, 10)
}

// setLoginUID sets the audit login uid, if none is set. That needs no right (a
// change would need CAP_AUDIT_CONTROL). A login uid that is set already stays:
// become, which has the right, would have changed it.
func setLoginUID(uid uint32) {
	// The change of identity has made the process undumpable, so its files in
	// /proc are root's (proc(5)). For the time of the write they are the new
	// user's, who learns nothing from our memory but their own login.
	unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0)
	// Where this fails, the login uid stays unset: it is for the audit log.
	file := append([]byte(loginUIDFile), 0)
	at := unix.AT_FDCWD
	var fd uintptr
	err := sys.Again(func() error {
		var e unix.Errno
		if fd, _, e = unix.RawSyscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(&file[0])), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0); e != 0 {
			return e
		}
		return nil
	})
	if err == nil {
		write(int(fd), strconv.AppendUint(nil, uint64(uid), 10))
	}
	unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0)
}

// write writes once. A write to capuse that was interrupted has used nothing up.
func write(fd int, b []byte) error {
	return sys.Again(func() error {
		if _, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b))); e != 0 {
			return e
		}
		return nil
	})
}

func chdir(dir string) error {
	p, err := unix.BytePtrFromString(dir)
	if err != nil {
		return err
	}
	if _, _, e := unix.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(p)), 0, 0); e != 0 {
		return e
	}
	return nil
}

// newKeyring gives the user a session keyring of their own, linked to their
// user keyring as pam_keyinit(8) does, so that none of the front end's keys
// go along. A kernel may lack key management, and a container's filter may keep
// everybody in it from keys (EPERM).
func newKeyring() {
	const (
		joinSession    = 1 // KEYCTL_JOIN_SESSION_KEYRING
		link           = 8 // KEYCTL_LINK
		sessionKeyring = -3
		userKeyring    = -4
	)
	ses, usr := int32(sessionKeyring), int32(userKeyring)
	_, _, e := unix.RawSyscall(unix.SYS_KEYCTL, joinSession, 0, 0)
	if e == unix.ENOSYS || e == unix.EOPNOTSUPP || e == unix.EPERM {
		return
	}
	if e == unix.EDQUOT {
		// As become does: the user stays in the old one, which others can see, so
		// their user keyring is not linked to it.
		write(2, []byte("become: no new session keyring: you have too many keys: disk quota exceeded\n"))
		return
	}
	if e != 0 {
		fail("join a new session keyring", e)
	}
	// Failing to link costs convenience, not safety.
	unix.RawSyscall(unix.SYS_KEYCTL, link, uintptr(usr), uintptr(ses))
}

// dropCapabilities empties this thread's permitted, effective and inheritable
// sets, and with them the ambient set: see capset(2), version 3. The module
// leaves a thread what it had, as setresuid(2) would.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	_, _, e := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if e != 0 {
		return e
	}
	return nil
}

// fail ends the process with the words and the codes of become.
func fail(what string, err error) {
	code := 126
	if errors.Is(err, unix.ENOENT) {
		code = 127
	}
	write(2, fmt.Appendf(nil, "become: %s: %v\n", what, err))
	os.Exit(code)
}
