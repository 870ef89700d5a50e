//go:build ignore

/*
 * redeem redeems a bound capability in a process of su's, which waits for it as the
 * shell's parent. It runs as the caller, has no rights, and is small so that it starts
 * at once.
 *
 *	redeem FD CAPUSE
 *
 * It reads the capability from the socket FD, to its end, writes it to the file CAPUSE
 * and executes the program whose name it reads there, which is become: see capuse(4).
 * Where that fails it writes to FD a letter for the step, two bytes of the errno and a
 * newline, and ends with status 126. FD is closed on exec, so that su reads the end
 * otherwise.
 */

#include <asm/errno.h>
#include <linux/fcntl.h>
#include <linux/prctl.h>

typedef unsigned long u64;

#include "syscall.h"

enum {
	MAXCAP = 65536,		/* as capproto's */
	MAXPATH = 4096,
};

/* Ends, having said which step has failed. */
__attribute__((noreturn)) static void fail(long fd, char step, long e)
{
	char said[4] = { step, -e >> 8 & 0xff, -e & 0xff, '\n' };

	SYS(write, fd, said, sizeof(said), 0, 0);
	for (;;)
		SYS(exit_group, 126, 0, 0, 0, 0);
}

__attribute__((noreturn)) void start(u64 *sp);

void start(u64 *sp)
{
	const char *const *argv = (const char *const *)(sp + 1);
	static const char *const become[] = { "become", 0 };
	static const char *const nothing[] = { 0 };
	char cap[MAXCAP + 1], exe[MAXPATH];
	long fd = 0, file, n, len = 0, i, dir = 0;
	const char *s;

	/* Nobody may trace us or read our memory; as the kernel has it already. */
	SYS(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);

	if (sp[0] != 3)
		fail(2, 'a', -EINVAL);
	for (s = argv[1]; *s >= '0' && *s <= '9' && fd < 1 << 20; s++)
		fd = fd * 10 + *s - '0';
	if (*s || s == argv[1])
		fail(2, 'a', -EINVAL);
	n = SYS(fcntl, fd, F_SETFD, FD_CLOEXEC, 0, 0);
	if (n < 0)
		fail(2, 'a', n);

	do {
		n = SYS(read, fd, cap + len, sizeof(cap) - len, 0, 0);
		if (n < 0)
			fail(fd, 'r', n);
		len += n;
	} while (n > 0 && len < (long)sizeof(cap));

	/* The name of the executable goes behind the directory of the file. */
	for (i = 0; argv[2][i] && i < MAXPATH - 256; i++)
		if ((exe[i] = argv[2][i]) == '/')
			dir = i + 1;
	file = SYS(openat, AT_FDCWD, argv[2], O_RDWR | O_CLOEXEC, 0, 0);
	if (file < 0)
		fail(fd, 'o', file);
	n = SYS(write, file, cap, len, 0, 0);
	if (n < 0)
		fail(fd, 'w', n);
	n = SYS(read, file, exe + dir, 255, 0, 0);
	if (n < 1 || exe[dir + n - 1] != '\n')
		fail(fd, 'n', n < 0 ? n : -EIO);
	exe[dir + n - 1] = 0;
	for (i = dir; exe[i]; i++)
		if (exe[i] == '/')
			fail(fd, 'n', -EIO);
	fail(fd, 'x', SYS(execve, exe, become, nothing, 0, 0));
}
