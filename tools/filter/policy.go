package main

import (
	"fmt"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ownPID stands for the pid of the process that will load the filter: no pid is so
// high (PID_MAX_LIMIT is 4 Mi).
const ownPID = 1<<31 - 1

// allowed are the system calls of the Go runtime, of sockets that are open, and
// of the clock, whatever their arguments. One that an architecture does not have is
// left out there.
var allowed = []string{
	// The runtime: memory, threads, signals, scheduling.
	"munmap", "madvise", "mincore", "futex", "nanosleep", "sched_yield", "sched_getaffinity", "restart_syscall",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "getpid", "gettid", "exit", "exit_group",
	"epoll_pwait", "getrandom",
	"clock_gettime", "clock_nanosleep", "gettimeofday",
	// Descriptors.
	"read", "write", "readv", "writev", "pread64", "close", "poll", "ppoll", "fstat",
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
var socketOptions = [][2]uint32{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.SOL_SOCKET, unix.SO_RCVBUF}, {unix.SOL_SOCKET, unix.SO_SNDBUF},
	{unix.SOL_SOCKET, unix.SO_LINGER},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY}, {unix.IPPROTO_TCP, unix.TCP_QUICKACK}, {unix.IPPROTO_TCP, unix.TCP_CORK}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_IP, unix.IP_TOS}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
}

// Offsets in struct seccomp_data of seccomp(2); both architectures are
// little-endian.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

var (
	allow = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	kill  = bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}
)

func fails(e unix.Errno) bpf.RetConstant {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)}
}

// equal goes on if an argument has a value, and skips the next skip instructions if
// not. All 64 bits of the argument count.
func equal(n, v uint32, skip uint8) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArgs + 8*n + 4, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: skip + 2},
		bpf.LoadAbsolute{Off: offArgs + 8*n, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipFalse: skip},
	}
}

// notExecutable goes on if a protection, the third argument, has no PROT_EXEC.
func notExecutable() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArgs + 8*2, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.PROT_EXEC, SkipFalse: 1},
		kill,
		allow,
	}
}

// policy is the filter for an architecture. What it does not permit kills the process.
func policy(a *arch.Info) ([]bpf.Instruction, error) {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a.ID), SkipTrue: 1},
		kill,
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
	}
	// call adds what is done with one system call, or nothing if there is no such.
	call := func(name string, then ...bpf.Instruction) {
		if n, ok := a.SyscallNames[name]; ok {
			p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(n), SkipFalse: uint8(len(then))})
			p = append(p, then...)
		}
	}
	for _, n := range allowed {
		call(n, allow)
	}
	// Memory never becomes code.
	call("mmap", notExecutable()...)
	call("mprotect", notExecutable()...)
	call("tgkill", append(equal(0, ownPID, 1), allow, kill)...) // preemption
	call("prctl", append(equal(0, unix.PR_SET_VMA, 1), allow, kill)...)
	var then []bpf.Instruction
	for _, c := range []uint32{unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_SETFD} {
		then = append(then, append(equal(1, c, 1), allow)...)
	}
	call("fcntl", append(then, kill)...)
	then = nil
	for _, o := range socketOptions {
		name := append(equal(2, o[1], 1), allow)
		then = append(append(then, equal(1, o[0], uint8(len(name)))...), name...)
	}
	call("setsockopt", append(then, kill)...)
	for _, n := range perhaps {
		call(n, fails(unix.EPERM))
	}
	thread := uint32(threadFlags)
	if a.ID == arch.X86_64.ID {
		thread |= unix.CLONE_SETTLS
	}
	call("clone", append(equal(0, thread, 1), fails(unix.EPERM), kill)...)
	p = append(p, kill)
	if len(p) > 4096 { // BPF_MAXINSNS
		return nil, fmt.Errorf("the filter has %d instructions", len(p))
	}
	return p, nil
}
