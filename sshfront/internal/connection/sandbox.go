package connection

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"p9auth/internal/privs"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
	"p9auth/sshfront/internal/passed"
	"p9auth/sshfront/internal/sshlog"
)

// enterSandbox shuts a connection process in, for good and in all of its
// threads, after it has dialled factotum. What it holds open it may use: the
// TCP socket, the control socket, the conversation with factotum, the link. It
// may not open, execute, connect, listen, trace, signal another process, or start
// one.
//
// The kernel counts some things for all processes of a uid together, and all
// connections are of one. So a process in here must not be able to use up what the
// others need: it makes no descriptor, passes none on, and makes no thread. A limit
// would not do where the kernel compares the count of the uid with the limit of
// whoever wants more: the honest processes have the same limit as the one that has
// used it up. sshfront(8) lists each of these pools and what bounds it.
//
// Landlock (all that the kernel has; it is the second line), and a seccomp filter
// (the first; without it the process must not go on), with which the kernel sets
// no_new_privs for all threads, too (seccomp(2), SECCOMP_FILTER_FLAG_TSYNC). A
// system call that is not on the list kills the process; with debug it fails
// with EPERM.
func enterSandbox(debug bool) error {
	defer sys.BoundStops()()
	// The time zone is read when it is first needed, which is too late.
	_, _ = time.Now().Zone()
	if err := passed.Prepare(); err != nil {
		return err
	}
	if err := privs.Undumpable(); err != nil {
		return err
	}
	abi, err := landlocksys.LandlockGetABIVersion()
	if err != nil {
		abi = 0
	}
	sshlog.Printf(sshdconf.LogDebug2, "sandbox: landlock version %d (0: none)", abi)
	if err := landlock.V11.BestEffort().Restrict(); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	// After the last system call that is made in all threads: each of them makes it, and
	// by a signal of those that need a place. Those that come now inherit what was set.
	makeThreads()
	if err := limitConnection(); err != nil {
		return err
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

// How many threads a connection process has: one for each processor that it uses (see
// sys.SmallRuntime), and those that can be in a system call at the same time, for the
// runtime has others run meanwhile where a call takes more than some microseconds, as
// each does on a machine with much to do: one in which package passed waits, one in
// which it reads or writes, one each that reads from the client and writes to it, to the
// log, the link, the listener, and factotum, and one in reserve.
const (
	maxProcessors = 4
	spareThreads  = 9
)

// makeThreads has the runtime make the threads that it will need: it keeps those
// that are idle, and makes others only where none is. It cannot make one later.
func makeThreads() {
	processors := min(runtime.GOMAXPROCS(0), maxProcessors)
	runtime.GOMAXPROCS(processors)
	var made, left sync.WaitGroup
	made.Add(processors + spareThreads)
	leave := make(chan struct{})
	for range processors + spareThreads {
		left.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			made.Done()
			<-leave
		})
	}
	made.Wait()
	close(leave)
	left.Wait()
}

// Limits of a connection process.
const (
	// maxDescriptors is more than channels.maxChannels can make of them. They come
	// from the user process, and count for the user while they are on their way.
	maxDescriptors = 1024
	// maxData is the memory that it may write to, in bytes: some windows of 2 MiB
	// whose clients or programs do not read, and what Go's runtime reserves.
	maxData = 1 << 30
)

// limitConnection sets resource limits.
func limitConnection() error {
	// Signals that are pending are counted for the uid, but against the limit of the
	// process that they are for; Go's own need no place.
	limits := []int{unix.RLIMIT_CORE, unix.RLIMIT_MEMLOCK, unix.RLIMIT_MSGQUEUE, unix.RLIMIT_SIGPENDING, unix.RLIMIT_NPROC, unix.RLIMIT_FSIZE}
	for _, l := range limits {
		if err := unix.Setrlimit(l, &unix.Rlimit{}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	return errors.Join(atMost(unix.RLIMIT_NOFILE, maxDescriptors), atMost(unix.RLIMIT_DATA, maxData))
}

// atMost lowers a limit, for good, where it is higher.
func atMost(limit int, n uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(limit, &now); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	n = min(n, now.Max)
	return os.NewSyscallError("setrlimit", unix.Setrlimit(limit, &unix.Rlimit{Cur: n, Max: n}))
}

// allowed are the system calls of the Go runtime, of sockets that are open, and
// of the clock, whatever their arguments.
var allowed = []string{
	// The runtime: memory, threads, signals, scheduling.
	"munmap", "madvise", "mincore", "futex", "nanosleep", "sched_yield", "sched_getaffinity", "restart_syscall",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "getpid", "gettid", "exit", "exit_group",
	"epoll_pwait", "getrandom",
	"clock_gettime", "clock_nanosleep", "gettimeofday",
	// Descriptors.
	"read", "write", "readv", "writev", "pread64", "close", "ppoll", "fstat",
	"recvmsg", "recvfrom", "sendto", "shutdown",
	"getsockname", "getpeername", "getsockopt",
}

// perhaps are what a library may try and do without: they fail with EPERM, and
// kill nobody.
var perhaps = []string{
	"openat", "newfstatat", "fstatat", "statx", "readlinkat", "faccessat", "faccessat2",
	"pipe2", "splice", "sendfile", "copy_file_range", "ioctl", "prlimit64", "uname",
	// os.NewFile tries whether the runtime can wait for a file, which it must not:
	// see package passed. What it waited for before, it goes on to wait for.
	"epoll_ctl",
}

// threadFlags are those with which Go's runtime makes a thread (os_linux.go);
// on amd64 CLONE_SETTLS comes with them (sys_linux_amd64.s). It fails, and the
// runtime ends the process and says why.
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
	}
	for _, c := range []uint64{unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_SETFD} {
		cond = append(cond, when("fcntl", is(1, seccomp.Equal, c)))
	}
	for _, o := range socketOptions {
		cond = append(cond, when("setsockopt", is(1, seccomp.Equal, o[0]), is(2, seccomp.Equal, o[1])))
	}
	var thread uint64
	switch arch {
	case "amd64":
		thread = threadFlags | unix.CLONE_SETTLS
		names = append(names[:len(names):len(names)], "poll")
	case "arm64":
		thread = threadFlags
	default:
		return seccomp.Policy{}, errors.New("there is no sandbox for " + arch)
	}
	return seccomp.Policy{
		DefaultAction: violation,
		Syscalls: []seccomp.SyscallGroup{
			{Names: names, NamesWithCondtions: cond, Action: seccomp.ActionAllow},
			{Names: eperm, NamesWithCondtions: []seccomp.NameWithConditions{when("clone", is(0, seccomp.Equal, thread))}, Action: seccomp.ActionErrno},
		},
	}, nil
}

func when(name string, c ...seccomp.Condition) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: name, Conditions: c}
}

func is(arg uint32, op seccomp.Operation, v uint64) seccomp.Condition {
	return seccomp.Condition{Argument: arg, Operation: op, Value: v}
}
