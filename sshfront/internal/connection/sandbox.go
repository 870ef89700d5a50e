package connection

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

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
	return loadFilter(debug)
}

// The filters in filter_*.go are made by tools/filter, which has the list of what is
// allowed, and the reasons. Two values in them are known only here.
const (
	ownPID = 1<<31 - 1 // stands for the process: no pid is so high
	ret    = unix.BPF_RET | unix.BPF_K
)

// loadFilter loads the seccomp filter into all threads.
func loadFilter(debug bool) error {
	f := slices.Clone(filter)
	for i := range f {
		switch {
		case f[i].K == ownPID:
			f[i].K = uint32(os.Getpid())
		case debug && f[i].Code == ret && f[i].K == unix.SECCOMP_RET_KILL_PROCESS:
			f[i].K = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
		}
	}
	// Without landlock nothing has set it; the kernel sets it in the other threads.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_NO_NEW_PRIVS): %w", err)
	}
	return sys.LoadSeccomp(f)
}

// spareThreads is how many threads a connection process has beside the one that has its
// processor (see sys.SmallRuntime): those that can be in a system call at the same time,
// for the runtime has others run meanwhile where a call takes more than some
// microseconds, as each does on a machine with much to do: one in which package passed
// waits, one in which it reads or writes, one each that reads from the client and writes
// to it, to the log, the link, the listener, and factotum, and one in reserve.
const spareThreads = 9

// makeThreads has the runtime make the threads that it will need: it cannot make one
// later.
func makeThreads() {
	runtime.GOMAXPROCS(1) // whatever the environment says
	sys.MakeThreads(1 + spareThreads)
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
