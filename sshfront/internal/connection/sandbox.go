package connection

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"p9auth/internal/privs"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/sshlog"
)

// enterSandbox shuts a connection process in, for good and in all of its
// threads, after it has dialled factotum. What it holds open it may use: the
// TCP socket, the control socket, the conversation with factotum, links that
// it makes. It may not open, execute, connect, listen, trace, signal another
// process, or start one.
//
// no_new_privs, landlock (all that the kernel has; it is the second line), and
// a seccomp filter (the first; without it the process must not go on). A
// system call that is not on the list kills the process; with debug it fails
// with EPERM.
func enterSandbox(debug bool) error {
	// The time zone is read when it is first needed, which is too late.
	_, _ = time.Now().Zone()
	if err := limitConnection(); err != nil {
		return err
	}
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return fmt.Errorf("prctl(PR_SET_NO_NEW_PRIVS): %w", e)
	}
	abi, err := landlocksys.LandlockGetABIVersion()
	if err != nil {
		abi = 0
	}
	sshlog.Printf(sshdconf.LogDebug2, "sandbox: landlock version %d (0: none)", abi)
	if err := landlock.V11.BestEffort().Restrict(); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	violation := seccomp.ActionKillProcess
	if debug {
		violation = seccomp.ActionErrno
	}
	policy, err := connectionPolicy(runtime.GOARCH, violation)
	if err != nil {
		return err
	}
	err = seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy})
	if err != nil {
		return fmt.Errorf("the kernel must have seccomp: %w", err)
	}
	return nil
}

// limitConnection sets resource limits, and keeps the memory to ourselves.
func limitConnection() error {
	if err := privs.Undumpable(); err != nil {
		return err
	}
	limits := []int{unix.RLIMIT_CORE, unix.RLIMIT_MEMLOCK, unix.RLIMIT_MSGQUEUE}
	var st unix.Stat_t
	if err := unix.Fstat(2, &st); err != nil {
		return fmt.Errorf("standard error: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG { // with -E the log is a file that grows
		limits = append(limits, unix.RLIMIT_FSIZE)
	}
	for _, l := range limits {
		if err := unix.Setrlimit(l, &unix.Rlimit{}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	return nil
}

// allowed are the system calls of the Go runtime, of sockets that are open, and
// of the clock, whatever their arguments.
var allowed = []string{
	// The runtime: memory, threads, signals, scheduling.
	"munmap", "madvise", "mincore", "futex", "nanosleep", "sched_yield", "sched_getaffinity", "restart_syscall",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "getpid", "gettid", "exit", "exit_group",
	"epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "getrandom",
	"clock_gettime", "clock_nanosleep", "gettimeofday",
	// Descriptors.
	"read", "write", "readv", "writev", "pread64", "close", "ppoll", "fstat",
	"recvmsg", "sendmsg", "recvfrom", "sendto", "shutdown",
	"getsockname", "getpeername", "getsockopt",
}

// perhaps are what a library may try and do without: they fail with EPERM, and
// kill nobody.
var perhaps = []string{
	"openat", "newfstatat", "fstatat", "statx", "readlinkat", "faccessat", "faccessat2",
	"pipe2", "splice", "sendfile", "copy_file_range", "ioctl", "prlimit64", "uname",
}

// threadFlags are those with which Go's runtime makes a thread (os_linux.go);
// on amd64 CLONE_SETTLS comes with them (sys_linux_amd64.s).
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD

// socketOptions are the ones that may be set: level and name.
var socketOptions = [][2]uint64{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.SOL_SOCKET, unix.SO_RCVBUF}, {unix.SOL_SOCKET, unix.SO_SNDBUF},
	{unix.SOL_SOCKET, unix.SO_LINGER},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY}, {unix.IPPROTO_TCP, unix.TCP_QUICKACK}, {unix.IPPROTO_TCP, unix.TCP_CORK}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_IP, unix.IP_TOS}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
}

// connectionPolicy is the filter for a GOARCH.
func connectionPolicy(arch string, violation seccomp.Action) (seccomp.Policy, error) {
	names := allowed
	eperm := []string{}
	for _, n := range perhaps {
		// One system call, two names.
		if arch == "amd64" && n == "fstatat" || arch == "arm64" && n == "newfstatat" {
			continue
		}
		eperm = append(eperm, n)
	}
	cond := []seccomp.NameWithConditions{
		// Memory never becomes code.
		when("mmap", is(2, seccomp.BitsNotSet, unix.PROT_EXEC)),
		when("mprotect", is(2, seccomp.BitsNotSet, unix.PROT_EXEC)),
		when("tgkill", is(0, seccomp.Equal, uint64(os.Getpid()))), // preemption
		when("prctl", is(0, seccomp.Equal, unix.PR_SET_VMA)),
		// A link: a pair that is connected, for good.
		when("socketpair", is(0, seccomp.Equal, unix.AF_UNIX),
			is(1, seccomp.Equal, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)),
	}
	for _, c := range []uint64{unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_SETFD, unix.F_DUPFD_CLOEXEC} {
		cond = append(cond, when("fcntl", is(1, seccomp.Equal, c)))
	}
	for _, o := range socketOptions {
		cond = append(cond, when("setsockopt", is(1, seccomp.Equal, o[0]), is(2, seccomp.Equal, o[1])))
	}
	switch arch {
	case "amd64":
		cond = append(cond, when("clone", is(0, seccomp.Equal, threadFlags|unix.CLONE_SETTLS)))
		names = append(names[:len(names):len(names)], "poll")
	case "arm64":
		cond = append(cond, when("clone", is(0, seccomp.Equal, threadFlags)))
	default:
		return seccomp.Policy{}, errors.New("there is no sandbox for " + arch)
	}
	return seccomp.Policy{
		DefaultAction: violation,
		Syscalls: []seccomp.SyscallGroup{
			{Names: names, NamesWithCondtions: cond, Action: seccomp.ActionAllow},
			{Names: eperm, Action: seccomp.ActionErrno},
		},
	}, nil
}

func when(name string, c ...seccomp.Condition) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: name, Conditions: c}
}

func is(arg uint32, op seccomp.Operation, v uint64) seccomp.Condition {
	return seccomp.Condition{Argument: arg, Operation: op, Value: v}
}
