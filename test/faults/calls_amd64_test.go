package faults

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// leftOut are the system calls that no fault is tried at, and why.
var leftOut = []struct {
	why   string
	calls []uint32
}{
	{"Go's runtime and the C library end the program if these fail, and the kernel fails none of them for want of anything but memory that is spent already", []uint32{
		unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MREMAP, unix.SYS_MADVISE, unix.SYS_BRK, unix.SYS_MINCORE,
		unix.SYS_FUTEX, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_SIGALTSTACK, unix.SYS_ARCH_PRCTL,
		unix.SYS_SET_TID_ADDRESS, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETRANDOM,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EVENTFD2,
	}},
	{"they cannot fail", []uint32{
		unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETTID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID,
		unix.SYS_UMASK, unix.SYS_SCHED_YIELD, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RT_SIGRETURN, unix.SYS_RESTART_SYSCALL,
		unix.SYS_TIME, unix.SYS_GETTIMEOFDAY, unix.SYS_CLOCK_GETTIME, unix.SYS_UNAME, unix.SYS_TGKILL, unix.SYS_GETPGRP, unix.SYS_SYSINFO,
	}},
	{"the descriptor is closed whatever it says, and a process that is killed there is as one that is killed at the next call", []uint32{unix.SYS_CLOSE}},
	{"they wait: the runtime's poller and timers call them as often as it happens", []uint32{
		unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_WAIT, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_DELETE,
	}},
}

// unasked are the calls of leftOut.
var unasked = func() (list []uint32) {
	for _, l := range leftOut {
		list = append(list, l.calls...)
	}
	return list
}()

// harmless says whether this call is none of those that its name stands for: it makes a
// thread, for want of which both runtimes end their program (tests of the lack of tasks try
// that), it asks for or sets what cannot fail, it wakes a poller by a byte in a pipe or by
// an eventfd, or it reads that, or the pipe in which a child says why it cannot execute a
// program: reading that fails for nothing, and the runtime would wait for the child's end.
func harmless(n notice) bool {
	switch n.nr {
	case unix.SYS_CLONE:
		return n.args[0]&unix.CLONE_THREAD != 0
	case unix.SYS_READ:
		return n.args[2] == 8
	case unix.SYS_WRITE:
		return n.args[2] == 1 || n.args[2] == 8
	case unix.SYS_PRCTL:
		return n.args[0] == unix.PR_SET_NO_NEW_PRIVS // made in each thread, see onAllThreads
	case unix.SYS_FCNTL:
		return n.args[1] != unix.F_DUPFD && n.args[1] != unix.F_DUPFD_CLOEXEC
	}
	return false
}

// A call is one that faults are tried at, with the errors that the kernel has for it. One
// without errors is a step at which the process is killed only.
type call struct {
	name   string
	errnos []unix.Errno
}

var (
	makes  = []unix.Errno{unix.EMFILE, unix.ENOMEM}
	looks  = []unix.Errno{unix.EIO, unix.ENOMEM}
	reads  = []unix.Errno{unix.EINTR, unix.EIO}
	writes = []unix.Errno{unix.EINTR, unix.ENOSPC, unix.EIO}
	talks  = []unix.Errno{unix.EINTR, unix.ENOMEM}
	forks  = []unix.Errno{unix.EAGAIN, unix.ENOMEM}
	waits  = []unix.Errno{unix.EINTR}
)

// calls are those that have a name here; others are called by their number, and fail with
// ENOMEM.
var calls = map[int32]call{
	unix.SYS_READ: {"read", reads}, unix.SYS_PREAD64: {"pread64", reads}, unix.SYS_READV: {"readv", reads}, unix.SYS_GETDENTS64: {"getdents64", []unix.Errno{unix.EIO}},
	unix.SYS_WRITE: {"write", writes}, unix.SYS_WRITEV: {"writev", writes}, unix.SYS_PWRITE64: {"pwrite64", writes},
	unix.SYS_FSYNC: {"fsync", []unix.Errno{unix.EIO}}, unix.SYS_FDATASYNC: {"fdatasync", []unix.Errno{unix.EIO}}, unix.SYS_FTRUNCATE: {"ftruncate", writes},
	unix.SYS_OPEN: {"open", []unix.Errno{unix.EINTR, unix.EMFILE, unix.EIO}}, unix.SYS_OPENAT: {"openat", []unix.Errno{unix.EINTR, unix.EMFILE, unix.EIO}},
	unix.SYS_OPENAT2: {"openat2", []unix.Errno{unix.EMFILE, unix.EIO}}, unix.SYS_CREAT: {"creat", makes},
	unix.SYS_SOCKET: {"socket", makes}, unix.SYS_SOCKETPAIR: {"socketpair", makes}, unix.SYS_PIPE2: {"pipe2", makes}, unix.SYS_DUP: {"dup", makes},
	unix.SYS_DUP2: {"dup2", nil}, unix.SYS_DUP3: {"dup3", nil}, unix.SYS_MEMFD_CREATE: {"memfd_create", makes}, unix.SYS_PIDFD_OPEN: {"pidfd_open", makes},
	unix.SYS_ACCEPT4: {"accept4", []unix.Errno{unix.EINTR, unix.EMFILE, unix.ENOMEM}}, unix.SYS_ACCEPT: {"accept", makes},
	unix.SYS_CONNECT: {"connect", []unix.Errno{unix.EINTR, unix.EAGAIN, unix.ENOMEM}}, unix.SYS_BIND: {"bind", []unix.Errno{unix.ENOMEM}}, unix.SYS_LISTEN: {"listen", []unix.Errno{unix.ENOMEM}},
	unix.SYS_SENDMSG: {"sendmsg", talks}, unix.SYS_RECVMSG: {"recvmsg", talks}, unix.SYS_SENDTO: {"sendto", talks}, unix.SYS_RECVFROM: {"recvfrom", talks},
	unix.SYS_SHUTDOWN: {"shutdown", nil}, unix.SYS_GETSOCKNAME: {"getsockname", []unix.Errno{unix.ENOBUFS}}, unix.SYS_GETPEERNAME: {"getpeername", []unix.Errno{unix.ENOTCONN}},
	unix.SYS_SETSOCKOPT: {"setsockopt", []unix.Errno{unix.ENOMEM}}, unix.SYS_GETSOCKOPT: {"getsockopt", []unix.Errno{unix.ENOMEM}},
	unix.SYS_EPOLL_CTL: {"epoll_ctl", []unix.Errno{unix.ENOMEM, unix.ENOSPC}},
	unix.SYS_STAT:      {"stat", looks}, unix.SYS_LSTAT: {"lstat", looks}, unix.SYS_FSTAT: {"fstat", looks}, unix.SYS_NEWFSTATAT: {"newfstatat", looks}, unix.SYS_STATX: {"statx", looks},
	unix.SYS_STATFS: {"statfs", looks}, unix.SYS_FSTATFS: {"fstatfs", looks}, unix.SYS_ACCESS: {"access", looks}, unix.SYS_FACCESSAT: {"faccessat", looks}, unix.SYS_FACCESSAT2: {"faccessat2", looks},
	unix.SYS_READLINK: {"readlink", looks}, unix.SYS_READLINKAT: {"readlinkat", looks}, unix.SYS_GETCWD: {"getcwd", looks}, unix.SYS_CHDIR: {"chdir", looks}, unix.SYS_FCHDIR: {"fchdir", looks},
	unix.SYS_CHMOD: {"chmod", looks}, unix.SYS_FCHMOD: {"fchmod", looks}, unix.SYS_CHOWN: {"chown", looks}, unix.SYS_FCHOWN: {"fchown", looks}, unix.SYS_FCHOWNAT: {"fchownat", looks},
	unix.SYS_UNLINK: {"unlink", looks}, unix.SYS_UNLINKAT: {"unlinkat", looks}, unix.SYS_MKDIR: {"mkdir", looks}, unix.SYS_MKDIRAT: {"mkdirat", looks}, unix.SYS_RENAME: {"rename", looks},
	unix.SYS_LSEEK: {"lseek", []unix.Errno{unix.EIO}}, unix.SYS_CLOSE_RANGE: {"close_range", []unix.Errno{unix.ENOMEM}},
	unix.SYS_FCNTL: {"fcntl", []unix.Errno{unix.EMFILE}}, unix.SYS_FLOCK: {"flock", []unix.Errno{unix.EINTR, unix.ENOLCK}}, unix.SYS_IOCTL: {"ioctl", []unix.Errno{unix.EINTR, unix.EIO}},
	unix.SYS_CLONE: {"clone", forks}, unix.SYS_CLONE3: {"clone3", forks}, unix.SYS_FORK: {"fork", forks}, unix.SYS_VFORK: {"vfork", forks},
	unix.SYS_EXECVE: {"execve", []unix.Errno{unix.ENOMEM, unix.EAGAIN, unix.EIO}}, unix.SYS_EXECVEAT: {"execveat", []unix.Errno{unix.ENOMEM, unix.EAGAIN, unix.EIO}},
	unix.SYS_WAIT4: {"wait4", waits}, unix.SYS_WAITID: {"waitid", waits}, unix.SYS_POLL: {"poll", waits}, unix.SYS_PPOLL: {"ppoll", waits}, unix.SYS_SELECT: {"select", waits}, unix.SYS_PSELECT6: {"pselect6", waits},
	unix.SYS_KILL: {"kill", nil}, unix.SYS_PIDFD_SEND_SIGNAL: {"pidfd_send_signal", nil}, unix.SYS_ALARM: {"alarm", nil},
	unix.SYS_SETUID: {"setuid", forks}, unix.SYS_SETGID: {"setgid", []unix.Errno{unix.ENOMEM}}, unix.SYS_SETRESUID: {"setresuid", forks}, unix.SYS_SETRESGID: {"setresgid", []unix.Errno{unix.ENOMEM}}, unix.SYS_SETREUID: {"setreuid", forks}, unix.SYS_SETREGID: {"setregid", []unix.Errno{unix.ENOMEM}},
	unix.SYS_SETFSUID: {"setfsuid", nil}, unix.SYS_SETFSGID: {"setfsgid", nil}, unix.SYS_SETGROUPS: {"setgroups", []unix.Errno{unix.ENOMEM}}, unix.SYS_GETGROUPS: {"getgroups", []unix.Errno{unix.ENOMEM}},
	unix.SYS_CAPSET: {"capset", []unix.Errno{unix.ENOMEM}}, unix.SYS_CAPGET: {"capget", []unix.Errno{unix.ENOMEM}}, unix.SYS_PRCTL: {"prctl", []unix.Errno{unix.ENOMEM}}, unix.SYS_SECCOMP: {"seccomp", []unix.Errno{unix.ENOMEM}},
	unix.SYS_LANDLOCK_CREATE_RULESET: {"landlock_create_ruleset", makes}, unix.SYS_LANDLOCK_RESTRICT_SELF: {"landlock_restrict_self", []unix.Errno{unix.ENOMEM}},
	unix.SYS_KEYCTL: {"keyctl", []unix.Errno{unix.ENOMEM, unix.EDQUOT}}, unix.SYS_PRLIMIT64: {"prlimit64", []unix.Errno{unix.ENOMEM}}, unix.SYS_SETSID: {"setsid", []unix.Errno{unix.ENOMEM}},
	unix.SYS_SETPRIORITY: {"setpriority", []unix.Errno{unix.EPERM}}, unix.SYS_MOUNT: {"mount", []unix.Errno{unix.ENOMEM}}, unix.SYS_UMOUNT2: {"umount2", []unix.Errno{unix.ENOMEM}}, unix.SYS_SETNS: {"setns", []unix.Errno{unix.ENOMEM}}, unix.SYS_UNSHARE: {"unshare", []unix.Errno{unix.ENOMEM}},
	unix.SYS_GETSID: {"getsid", nil}, unix.SYS_GETPGID: {"getpgid", nil}, unix.SYS_SETPGID: {"setpgid", nil}, unix.SYS_GETRESUID: {"getresuid", nil}, unix.SYS_GETRESGID: {"getresgid", nil},
	unix.SYS_GETXATTR: {"getxattr", looks}, unix.SYS_LGETXATTR: {"lgetxattr", looks}, unix.SYS_FGETXATTR: {"fgetxattr", looks}, unix.SYS_MSYNC: {"msync", []unix.Errno{unix.EIO}}, unix.SYS_GETRUSAGE: {"getrusage", nil},
}

func callName(nr int32) string {
	if c, ok := calls[nr]; ok {
		return c.name
	}
	return fmt.Sprintf("call %d", nr)
}

// errnosOf are the errors that a call of that name is tried with.
func errnosOf(name string) []unix.Errno {
	for _, c := range calls {
		if c.name == name {
			return c.errnos
		}
	}
	return []unix.Errno{unix.ENOMEM}
}
