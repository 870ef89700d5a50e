/*
 * What an acceptor gives up before it reads what strangers send. It keeps the socket to
 * factotum, the host's keys, and the right to read what everybody may.
 */
#include "library.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * No two acceptors have the same uid, and nobody else has it: above what sssd(8) makes
 * of domains by default (2,000,200,000) and what systemd gives to containers, and below
 * 2^31. A pid has 22 bits.
 */
#define FIRST_ID 2100000000u
#define NOBODY 65534u /* where a user namespace does not have the id */

static int limit(int resource, rlim_t n)
{
	struct rlimit now;

	if (getrlimit(resource, &now) != 0)
		return -1;
	now.rlim_max = now.rlim_max < n ? now.rlim_max : n;
	now.rlim_cur = now.rlim_max;
	return setrlimit(resource, &now);
}

static int become(uid_t id) { return setresgid(id, id, id) != 0 || setresuid(id, id, id) != 0 ? -1 : 0; }

/* drop becomes a user who has nothing, with no way back. */
static int drop(void)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct caps[2] = {{0}};
	uid_t id = FIRST_ID + (uid_t)getpid();

	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return -1;
	if (setgroups(0, NULL) != 0)
		return -1;
	if (become(id) != 0 && (errno != EINVAL || become(NOBODY) != 0))
		return -1;
	if (syscall(SYS_capset, &header, caps) != 0)
		return -1;
	if (setresuid(-1, 0, -1) == 0 || setresgid(-1, 0, -1) == 0) {
		errno = ENOTRECOVERABLE;
		return -1;
	}
	return 0;
}

/*
 * landlock forbids to change a file, to execute one, to use TCP, and to signal others:
 * landlock(7), as much of it as the kernel has. It is the second line after the filter.
 */
static int landlock(void)
{
	enum { create = 444, restrict_self = 446, version = 1 };
	struct { uint64_t fs, net, scoped; } rules;
	/* Execution, and all but to read: by the version of landlock, from 1. */
	static const uint64_t fs[] = {0x1ff3, 0x3ff3, 0x7ff3, 0x7ff3, 0xfff3};
	long abi = syscall(create, NULL, 0, version), ruleset;
	size_t size;

	if (abi < 1)
		return 0;
	rules.fs = fs[abi > 5 ? 4 : abi - 1];
	rules.net = 3; /* bind, connect */
	rules.scoped = 3; /* abstract unix sockets, signals */
	size = abi < 4 ? 8 : abi < 6 ? 16 : 24;
	ruleset = syscall(create, &rules, size, 0);
	if (ruleset < 0 || syscall(restrict_self, (int)ruleset, 0) != 0)
		return -1;
	return close((int)ruleset);
}

/*
 * allowed are the system calls of Go's runtime, of the C library that loads libraries and
 * reads files, and of a socket that is open. What is not here fails, as a library may
 * try something and do without.
 */
static const int allowed[] = {
	/* memory */
	SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_mincore,
	/* threads, time, signals */
	SYS_futex, SYS_set_robust_list, SYS_rseq, SYS_set_tid_address, SYS_sched_yield, SYS_sched_getaffinity, SYS_gettid, SYS_getpid,
	SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday,
	SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack, SYS_restart_syscall, SYS_membarrier, SYS_exit, SYS_exit_group,
	/* files, to read */
	SYS_read, SYS_pread64, SYS_readv, SYS_lseek, SYS_close, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_getdents64,
	SYS_faccessat, SYS_faccessat2, SYS_readlinkat, SYS_getcwd, SYS_fcntl, SYS_fadvise64,
	/* the socket, standard error, and Go's poller */
	SYS_write, SYS_sendmsg, SYS_recvmsg, SYS_sendto, SYS_recvfrom, SYS_shutdown, SYS_getsockopt, SYS_setsockopt, SYS_getsockname, SYS_getpeername,
	SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_eventfd2, SYS_pipe2, SYS_ppoll,
	/* what there is to know */
	SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_uname, SYS_sysinfo, SYS_getrandom, SYS_getrlimit, SYS_getrusage, SYS_umask,
#ifdef __x86_64__
	SYS_arch_prctl, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_poll, SYS_time, SYS_epoll_wait,
#endif
};

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

/* Offsets in struct seccomp_data; both architectures are little-endian. */
enum { number = 0, architecture = 4, first = 16, second = 24, third = 32 };

#define LOAD(offset) (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset)
#define RETURN(value) (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, value)
#define UNLESS(n, skip) (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, n, 0, skip)
#define IF(n, skip) (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, n, skip, 0)
#define HAS(bits, yes, no) (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, yes, no)
#define FAILS(e) (SECCOMP_RET_ERRNO | (e))

/* write_flags are those of open(2) that a file which is read is not opened with. */
#define WRITE_FLAGS (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND)

/*
 * filter allows what is in allowed, to open a file to read it, another thread, a signal to
 * itself, to stay undumpable, and to read its limits.
 */
static int filter(void)
{
	struct sock_filter f[48 + 2 * sizeof allowed / sizeof *allowed];
	unsigned short n = 0;

	f[n++] = LOAD(architecture);
	f[n++] = IF(ARCHITECTURE, 1);
	f[n++] = RETURN(SECCOMP_RET_KILL_PROCESS);
	f[n++] = LOAD(number);
	for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
		f[n++] = UNLESS((unsigned)allowed[i], 1);
		f[n++] = RETURN(SECCOMP_RET_ALLOW);
	}
	f[n++] = UNLESS(SYS_clone3, 1); /* its flags are in memory; libraries use clone then */
	f[n++] = RETURN(FAILS(ENOSYS));
	f[n++] = UNLESS(SYS_openat, 4);
	f[n++] = LOAD(third);
	f[n++] = HAS(WRITE_FLAGS, 1, 0);
	f[n++] = RETURN(SECCOMP_RET_ALLOW);
	f[n++] = RETURN(FAILS(EACCES));
#ifdef SYS_open
	f[n++] = UNLESS(SYS_open, 4);
	f[n++] = LOAD(second);
	f[n++] = HAS(WRITE_FLAGS, 1, 0);
	f[n++] = RETURN(SECCOMP_RET_ALLOW);
	f[n++] = RETURN(FAILS(EACCES));
#endif
	f[n++] = UNLESS(SYS_clone, 4);
	f[n++] = LOAD(first);
	f[n++] = HAS(CLONE_THREAD, 0, 1);
	f[n++] = RETURN(SECCOMP_RET_ALLOW);
	f[n++] = RETURN(FAILS(EPERM));
	f[n++] = UNLESS(SYS_tgkill, 4);
	f[n++] = LOAD(first);
	f[n++] = UNLESS((unsigned)getpid(), 1);
	f[n++] = RETURN(SECCOMP_RET_ALLOW);
	f[n++] = RETURN(FAILS(EPERM));
	f[n++] = UNLESS(SYS_prctl, 6); /* as package undumpable does once more */
	f[n++] = LOAD(first);
	f[n++] = UNLESS(PR_SET_DUMPABLE, 3);
	f[n++] = LOAD(second);
	f[n++] = UNLESS(0, 1);
	f[n++] = RETURN(SECCOMP_RET_ALLOW);
	f[n++] = RETURN(FAILS(EPERM));
	f[n++] = UNLESS(SYS_prlimit64, 7);
	f[n++] = LOAD(first);
	f[n++] = UNLESS(0, 5);
	f[n++] = LOAD(third); /* the new limit: none */
	f[n++] = UNLESS(0, 3);
	f[n++] = LOAD(third + 4);
	f[n++] = UNLESS(0, 1);
	f[n++] = RETURN(SECCOMP_RET_ALLOW);
	f[n++] = RETURN(FAILS(EPERM));
	struct sock_fprog program = {n, f};
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

/* p9_confine is called while there is one thread, and returns -1 if the process must not go on. */
int p9_confine(void)
{
	if (limit(RLIMIT_CORE, 0) != 0 || limit(RLIMIT_MEMLOCK, 0) != 0 || limit(RLIMIT_MSGQUEUE, 0) != 0)
		return -1;
	/* Seconds of processor, descriptors, bytes, and threads: a token takes some milliseconds. */
	if (limit(RLIMIT_CPU, 10) != 0 || limit(RLIMIT_NOFILE, 64) != 0 || limit(RLIMIT_DATA, 1ul << 30) != 0)
		return -1;
	if (landlock() != 0 || drop() != 0)
		return -1;
	return filter();
}
