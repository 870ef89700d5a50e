//go:build ignore

/*
 * become turns a redeemed grant into the new identity and executes a program.
 *
 * Nobody runs the installed file, but for -V. factotum reads it when it starts,
 * and serves it once for each redemption, with the grant's record in the place
 * of the section .record, as a one-time executable in the capuse file system:
 * see capuse(4) and internal/capfs. The kernel starts that in the redeemer's own
 * process with the capabilities cap_setuid and cap_setgid, with
 * cap_audit_control where the redeemer's bounding set has it, and with more
 * where the record names a root directory, a mount namespace or capabilities:
 * see needed().
 *
 * It trusts the kernel and its own file, which nobody but factotum writes. Of
 * the rest of the process (arguments, environment, descriptors, limits, signals,
 * directory) everything is the redeemer's choice. There are two kinds of record:
 *
 *	unbound   says who. The arguments say what:
 *	          become [nproc=SOFT:HARD] [stack=SOFT:HARD] DIR PATH ARGV0 [ARG...]
 *	bound     says who and what: arguments and environment are not looked at,
 *	          descriptors that the record does not name are closed.
 *
 * The record is checked in full before the first step that needs a right, and
 * internal/becomerecord has the same checks in Go. There is no allocation, no
 * thread and no library here: the system calls are in the order of start(),
 * which can be read from top to bottom, and man/capuse.4 lists them.
 */

#include <linux/audit.h>
#include <linux/auxvec.h>
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/keyctl.h>
#include <linux/netlink.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched.h>

#include "record.h"
#include "syscall.h"
#include "report.h"
#include "session.h"

/* Takes a decimal number at *s and the byte stop after it. */
static int number(const char **s, char stop, u64 *n)
{
	const char *p = *s;

	for (*n = 0; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(*n, 10, n) || __builtin_add_overflow(*n, *p - '0', n))
			return 0;
	if (p == *s || *p != stop)
		return 0;
	*s = p + 1;
	return 1;
}

/* Takes NAME=SOFT:HARD off the arguments, if it is the first of them. */
static int limit_arg(const char *name, const char *const **argv, u64 limit[2])
{
	const char *s = **argv;

	for (; *name; name++, s++)
		if (!s || *s != *name)
			return 0;
	if (!number(&s, ':', &limit[0]) || !number(&s, 0, &limit[1]))
		fail(**argv, " is no limit", 0);
	++*argv;
	return 1;
}

static void set_limit(u32 resource, const void *limit)
{
	must(SYS(prlimit64, 0, resource, limit, 0, 0), "set a resource limit");
}

/*
 * Sets the audit login uid of this thread, see pam_loginuid(8). A kernel
 * without audit has no such file. The process is undumpable, so its files in
 * /proc are root's (proc(5)): this one is opened as root's fsuid.
 */
static void set_login_uid(u32 from, u32 uid)
{
	char digits[10];
	int i = sizeof(digits);
	long fd;

	SYS(setfsuid, 0, 0, 0, 0, 0);
	fd = SYS(openat, AT_FDCWD, "/proc/thread-self/loginuid", O_WRONLY | O_CLOEXEC, 0, 0);
	SYS(setfsuid, from, 0, 0, 0, 0);
	if (fd == -ENOENT)
		return;
	must(fd, "open /proc/thread-self/loginuid");
	do
		digits[--i] = '0' + uid % 10;
	while (uid /= 10);
	must(SYS(write, fd, digits + i, sizeof(digits) - i, 0, 0), "set the audit login uid");
	SYS(close, fd, 0, 0, 0, 0);
}

/*
 * Takes back what a process keeps when it executes a program, and the redeemer
 * may have set: descriptors, file mode mask, signals, timers.
 */
static void forget_redeemer(const struct plan *p)
{
	static const u64 nothing[4];
	u32 i, next = 0;

	for (i = 0; i < p->r->nfds; i++) {
		if (p->fds[i] > next)
			must(SYS(close_range, next, p->fds[i] - 1, 0, 0, 0), "close_range");
		next = p->fds[i] + 1;
	}
	must(SYS(close_range, next, ~(u32)0, 0, 0, 0), "close_range");
	SYS(umask, p->r->umask, 0, 0, 0, 0);
	for (i = 0; i < 3; i++)
		must(SYS(setitimer, i, nothing, 0, 0, 0), "setitimer");
	for (i = 1; i <= 64; i++)
		if (i != 9 && i != 19)	/* SIGKILL, SIGSTOP */
			must(SYS(rt_sigaction, i, nothing, 0, 8, 0), "rt_sigaction");
	must(SYS(rt_sigprocmask, 2, nothing, 0, 8, 0), "rt_sigprocmask");	/* SIG_SETMASK */
}

/*
 * The standard descriptors come from the redeemer, so they must be of the very
 * terminal that the record means: the file in /dev, not only the device, as a
 * number of a pty stands for another one in another devpts.
 */
static void check_terminal(const struct plan *p)
{
	u32 i;

	for (i = 0; i < 3; i++)
		if (!is_inode(i, p->r->ttydev, p->r->ttyino))
			fail("standard input, output and error are not the terminal of this login", "", 0);
}

/*
 * Changes the root directory, and returns a descriptor of the program, which is
 * outside of it. The program's descriptor stays open, since nothing in the root
 * leads to the program, and so do the terminals' that the record asks for, as
 * far as there are any: these belong to the user from the beginning. The path of
 * the root is followed with root's fsuid and none of root's capabilities, for
 * its directories are root's and may be closed to others. It must lead to the
 * very directory that factotum has checked.
 */
static long change_root(const struct plan *p)
{
	long program, fd;
	u32 i;

	SYS(setfsuid, p->r->uid, 0, 0, 0, 0);
	program = SYS(openat, AT_FDCWD, p->path, O_PATH, 0, 0);
	if (program < 0)
		fail("cannot open ", p->path, -program);
	for (i = 0; i < p->r->ptys; i++)
		SYS(openat, AT_FDCWD, "/dev/ptmx", O_RDWR | O_NOCTTY, 0, 0);
	SYS(setfsuid, 0, 0, 0, 0, 0);
	fd = SYS(openat, AT_FDCWD, p->root, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0, 0);
	if (fd < 0)
		fail("cannot open the root directory ", p->root, -fd);
	if (!is_inode(fd, p->r->rootdev, p->r->rootino))
		fail("another directory has taken the place of ", p->root, 0);
	must(SYS(fchdir, fd, 0, 0, 0, 0), "enter the root directory");
	must(SYS(chroot, ".", 0, 0, 0, 0), "chroot");
	SYS(close, fd, 0, 0, 0, 0);
	SYS(setfsuid, p->r->from, 0, 0, 0, 0);
	return program;
}

/* Whether this process is that user's, by what the kernel says of it. */
static int is_user(const u64 *aux, u32 uid)
{
	int n = 0;

	for (; aux[0] != AT_NULL; aux += 2)
		if (aux[0] == AT_UID || aux[0] == AT_EUID) {
			if (aux[1] != uid)
				return 0;
			n++;
		}
	return n == 2 && SYS(getuid, 0, 0, 0, 0, 0) == uid && SYS(geteuid, 0, 0, 0, 0, 0) == uid;
}

/* The capabilities without which the record cannot be obeyed. */
static u64 needed(const struct plan *p)
{
	u64 need = 1 << CAP_SETUID | 1 << CAP_SETGID | p->r->inheritable;

	if (p->r->flags & LOGINUID || p->r->ttyaudit)
		need |= 1 << CAP_AUDIT_CONTROL;
	if (p->r->flags & ROOT)
		need |= 1 << CAP_SYS_CHROOT;
	if (*p->mounts)	/* to see the worker's, and to enter it: setns(2) */
		need |= 1 << CAP_SYS_PTRACE | 1 << CAP_SYS_ADMIN | 1 << CAP_SYS_CHROOT;
	return need;
}

/* The file as it is installed has no grant, and can only say its version. */
__attribute__((noreturn)) static void installed(const char *const *argv)
{
	static const char version[] = "become from p9auth " VERSION "\n";

	if (!argv[0] || !argv[1] || argv[1][0] != '-' || argv[1][1] != 'V' || argv[1][2] || argv[2])
		fail("usage: served by factotum, see capuse(4)", "", 0);
	SYS(write, 1, version, sizeof(version) - 1, 0, 0);
	for (;;)
		SYS(exit_group, 0, 0, 0, 0, 0);
}

extern const struct record record;

/* sp points at argc, argv, a null, the environment, a null, auxv: see elf(5). */
__attribute__((noreturn)) void start(u64 *sp);

void start(u64 *sp)
{
	struct plan p;
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct caps[2];
	char dir[MAXPATH];
	u64 nproc[2], stack[2], *aux;
	int has_nproc = 0, has_stack = 0;
	long program = -1, e;
	u32 i;

	/* Nobody may trace us or read our memory; as the kernel has it already. */
	must(SYS(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl");

	/* A standard descriptor that is closed would be what is opened next. */
	for (i = 0; i < 3; i++)
		if (SYS(fcntl, i, F_GETFD, 0, 0, 0) == -EBADF)
			must(SYS(openat, AT_FDCWD, "/dev/null", O_RDWR, 0, 0), "open /dev/null");

	/* The record is whole, and this is the user who redeemed. */
	if (record.magic != MAGIC)
		installed((const char *const *)(sp + 1));
	if (record.size > MAXSIZE || !check(&record, record.size, &p))
		fail("the grant in this file is damaged", "", 0);
	p.argv = (const char *const *)(sp + 1);
	for (aux = sp + 1 + sp[0] + 1; *aux; aux++)
		;
	if (!is_user(aux + 1, record.from))
		fail("the grant is for another user than runs this", "", 0);
	if (record.flags & TTY)
		check_terminal(&p);
	if (record.flags & BOUND) {
		p.argv = p.strings;
	} else {
		p.env = p.argv + sp[0] + 1;
		if (sp[0] > 0)
			p.argv++;
		has_nproc = limit_arg("nproc=", &p.argv, nproc);
		has_stack = limit_arg("stack=", &p.argv, stack);
		if (!p.argv[0] || !p.argv[1] || !p.argv[2])
			fail("usage: served by factotum, see capuse(4)", "", 0);
		p.dir = *p.argv++;
		p.path = *p.argv++;
	}

	/* The kernel has given what is needed. */
	if (SYS(prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 0)
		fail("no_new_privs is set, so the kernel gives no capabilities", "", 0);
	must(SYS(capget, &header, caps, 0, 0, 0), "capget");
	if (needed(&p) & ~(caps[0].effective | (u64)caps[1].effective << 32))
		fail("the kernel gave no capabilities; is this process traced?", "", 0);

	/*
	 * The order matters. The login uid needs cap_audit_control if it was set
	 * before. The context is written where there is still a /proc. The limit of
	 * processes comes before the uids: when they change, the kernel compares it
	 * with what the new user has. Groups and gids come before them too, as after
	 * them they could not be given up if capabilities went along, and so does the
	 * root, whose path root's fsuid follows, with the new groups: a terminal gets
	 * its group by them. The session keyring is made when the ids are those of
	 * its owner, and the capabilities go last.
	 */
	if (record.flags & BOUND)
		forget_redeemer(&p);
	if (record.flags & LOGINUID)
		set_login_uid(record.from, record.uid);
	if (record.ttyaudit)
		set_tty_audit(record.ttyaudit);
	if (*p.context)
		set_context(p.context);
	if (*p.mounts)
		join_mounts(&p, dir);
	for (i = 0; i < 16; i++)
		if (record.limits >> i & 1)
			set_limit(i, &record.limit[i]);
	if (has_nproc)
		set_limit(RLIMIT_NPROC, nproc);
	must(SYS(setgroups, record.ngroups, p.groups, 0, 0, 0), "setgroups");
	must(SYS(setresgid, p.groups[0], p.groups[0], p.groups[0], 0, 0), "setresgid");
	if (record.flags & ROOT)
		program = change_root(&p);
	if (record.inheritable)	/* they go when root becomes another: capabilities(7) */
		must(SYS(prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl");
	must(SYS(setresuid, record.uid, record.uid, record.uid, 0, 0), "setresuid");
	join_keyring(p.keyring);
	set_capabilities(&record);

	/* This is the user, with no rights but those of the grant. */
	if (has_stack)
		set_limit(RLIMIT_STACK, stack);
	if (*p.dir) {
		e = SYS(chdir, p.dir, 0, 0, 0, 0);
		if (e < 0)
			fail("cannot enter ", p.dir, -e);
	}
	if (record.flags & ROOT)
		e = SYS(execveat, program, "", p.argv, p.env, AT_EMPTY_PATH);
	else
		e = SYS(execve, p.path, p.argv, p.env, 0, 0);
	fail("cannot execute ", p.path, -e);
}
