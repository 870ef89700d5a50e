// Become turns a redeemed grant into the new identity and execs the target.
//
// It is never run from where it is installed, but for -V, which prints the
// version: factotum reads it when it starts, and serves it once for each redemption, with the grant's record at
// the end, as a one-time executable in the capuse file system. The kernel
// starts that with exactly CAP_SETUID and CAP_SETGID (and CAP_AUDIT_CONTROL
// where the redeemer's bounding set has it), in the redeemer's own process.
//
// It trusts its own file, which it reads through /proc/self/exe, and nothing
// else. Its arguments come from the redeemer, who may run what it likes as
// the user that it becomes:
//
//	become [nproc=SOFT:HARD] [stack=SOFT:HARD] DIR PATH ARGV0 [ARG...]
//
// DIR is entered as the new user ("" stays), PATH is executed. nproc is the
// user's limit of processes, stack that of the stack, whose soft one the kernel
// lowers to 8 MiB for a program that starts with capabilities.
//
// It runs on one thread: credentials belong to threads, and the one that
// calls execve(2) is the one that lives on. Once the limit is set Go's runtime
// may not start another, as that could be refused, and Go crashes then. So
// there is one processor, and this thread keeps it: with RawSyscall the runtime
// does not notice that the thread is in the kernel.
package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"p9auth/internal/becomerecord"
)

// version is set by the Makefile. internal/version, which says more, would make
// this program longer: factotum serves it whole for each login.
var version = "(built without make)"

func init() { runtime.LockOSThread() }

func main() {
	args := os.Args[min(1, len(os.Args)):]
	nproc, args := limitArg("nproc=", args)
	stack, args := limitArg("stack=", args)
	if len(args) == 1 && args[0] == "-V" {
		// Before any right is used: a redeemer that asks for it gets a line
		// and nothing else.
		os.Stdout.WriteString("become from p9auth " + version + "\n")
		return
	}
	if len(args) < 3 {
		fail("usage: served by factotum, see capuse(4)", 0)
	}
	dir, path, argv := args[0], args[1], args[2:]
	r := record()

	// The order matters. The login uid needs CAP_AUDIT_CONTROL if it was set
	// before. Groups and gids go before the uids, as after them they could
	// not be given up if capabilities went along. The session keyring is made
	// when the ids are those of its owner, and the capabilities go last.
	//
	// The limit of processes is set just before: the kernel compares it with
	// what the new user has when the uids change.
	if r.LoginUID {
		setLoginUID(r.UID)
	}
	runtime.GOMAXPROCS(1)
	nproc.set(6) // RLIMIT_NPROC
	setgroups(r.Groups)
	call("setresgid", syscall.SYS_SETRESGID, r.Groups[0], r.Groups[0], r.Groups[0])
	call("setresuid", syscall.SYS_SETRESUID, r.UID, r.UID, r.UID)
	newKeyring()
	dropCapabilities()
	stack.set(syscall.RLIMIT_STACK)

	if dir != "" {
		if e := chdir(dir); e != 0 {
			fail("cannot enter "+dir, e)
		}
	}
	err := syscall.Exec(path, argv, environ())
	fail("cannot execute "+path, err.(syscall.Errno))
}

// environ is the environment as the redeemer gave it. Go's runtime sets
// GOTRACEBACK in a program that starts with capabilities.
func environ() []string {
	env := os.Environ()
	keep := env[:0]
	for _, kv := range env {
		if kv != "GOTRACEBACK=none" {
			keep = append(keep, kv)
		}
	}
	return keep
}

// record reads the grant at the end of the program's own file.
func record() becomerecord.Record {
	fd, err := syscall.Open("/proc/self/exe", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		fail("cannot read the grant: is /proc mounted? open /proc/self/exe", err.(syscall.Errno))
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		fail("cannot read the grant: fstat", err.(syscall.Errno))
	}
	trailer := make([]byte, becomerecord.TrailerSize)
	n, _ := syscall.Pread(fd, trailer, st.Size-becomerecord.TrailerSize)
	size, err := becomerecord.Size(trailer[:max(n, 0)])
	if err != nil {
		fail("there is no grant in this file; it is served by factotum, see capuse(4)", 0)
	}
	b := make([]byte, size)
	n, _ = syscall.Pread(fd, b, st.Size-int64(size))
	r, err := becomerecord.Parse(b[:max(n, 0)])
	if err != nil {
		fail("the grant in this file is damaged", 0)
	}
	syscall.Close(fd)
	return r
}

// setLoginUID sets the audit login uid of this thread, see
// pam_loginuid(8). A kernel without audit has no such file.
func setLoginUID(uid uint32) {
	const file, mode = "/proc/thread-self/loginuid", syscall.O_WRONLY | syscall.O_CLOEXEC
	fd, err := syscall.Open(file, mode, 0)
	if err == syscall.EACCES {
		// The kernel has made the process undumpable, so its files in /proc
		// are root's (proc(5)): open this one as root's fsuid.
		me := uint32(syscall.Geteuid())
		syscall.RawSyscall(syscall.SYS_SETFSUID, 0, 0, 0)
		fd, err = syscall.Open(file, mode, 0)
		syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(me), 0, 0)
	}
	if err == syscall.ENOENT {
		return
	}
	if err != nil {
		fail("open /proc/thread-self/loginuid", err.(syscall.Errno))
	}
	if _, err := syscall.Write(fd, strconv.AppendUint(nil, uint64(uid), 10)); err != nil {
		fail("set the audit login uid", err.(syscall.Errno))
	}
	syscall.Close(fd)
}

// A limit is of a resource, as prlimit(2) takes it.
type limit struct{ soft, hard uint64 }

// limitArg takes NAME=SOFT:HARD off the arguments. It returns nil if it is not
// the first of them.
func limitArg(name string, args []string) (*limit, []string) {
	if len(args) == 0 || !strings.HasPrefix(args[0], name) {
		return nil, args
	}
	soft, hard, _ := strings.Cut(args[0][len(name):], ":")
	var l limit
	var err1, err2 error
	l.soft, err1 = strconv.ParseUint(soft, 10, 64)
	l.hard, err2 = strconv.ParseUint(hard, 10, 64)
	if err1 != nil || err2 != nil {
		fail(args[0]+" is no limit", 0)
	}
	return &l, args[1:]
}

func (l *limit) set(resource uintptr) {
	if l == nil {
		return
	}
	_, _, e := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, resource, uintptr(unsafe.Pointer(l)), 0, 0, 0)
	if e != 0 {
		fail("set a resource limit", e)
	}
}

func chdir(dir string) syscall.Errno {
	p, err := syscall.BytePtrFromString(dir)
	if err != nil {
		return syscall.EINVAL
	}
	_, _, e := syscall.RawSyscall(syscall.SYS_CHDIR, uintptr(unsafe.Pointer(p)), 0, 0)
	return e
}

func setgroups(gids []uint32) {
	_, _, e := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(gids)), uintptr(unsafe.Pointer(&gids[0])), 0)
	if e != 0 {
		fail("setgroups", e)
	}
}

// newKeyring gives the user a session keyring of their own, linked to their
// user keyring as pam_keyinit(8) does, so that none of the front end's keys
// go along. A kernel may lack key management.
func newKeyring() {
	const (
		joinSession    = 1 // KEYCTL_JOIN_SESSION_KEYRING
		link           = 8 // KEYCTL_LINK
		sessionKeyring = -3
		userKeyring    = -4
	)
	ses, usr := int32(sessionKeyring), int32(userKeyring)
	_, _, e := syscall.RawSyscall(syscall.SYS_KEYCTL, joinSession, 0, 0)
	if e == syscall.ENOSYS || e == syscall.EOPNOTSUPP {
		return
	}
	if e != 0 {
		fail("join a new session keyring", e)
	}
	// Failing to link costs convenience, not safety.
	syscall.RawSyscall(syscall.SYS_KEYCTL, link, uintptr(usr), uintptr(ses))
}

// dropCapabilities empties the permitted, effective and inheritable sets, and
// with them the ambient set: see capset(2), version 3.
func dropCapabilities() {
	header := struct {
		version uint32
		pid     int32
	}{version: 0x20080522}
	var data [2]struct{ effective, permitted, inheritable uint32 }
	_, _, e := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if e != 0 {
		fail("capset", e)
	}
}

func call(name string, nr uintptr, a, b, c uint32) {
	if _, _, e := syscall.RawSyscall(nr, uintptr(a), uintptr(b), uintptr(c)); e != 0 {
		fail(name, e)
	}
}

// fail says what happened and ends the process, with the codes of a shell
// that cannot execute a program.
func fail(what string, e syscall.Errno) {
	code := 126
	if e != 0 {
		what += ": " + e.Error()
	}
	if e == syscall.ENOENT {
		code = 127
	}
	b := []byte("become: " + what + "\n")
	syscall.RawSyscall(syscall.SYS_WRITE, 2, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	os.Exit(code)
}
