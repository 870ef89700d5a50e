//go:build ignore

/*
 * check is for tests: it reads records from standard input, each after its
 * length in 4 bytes, and answers each with a byte, y or n, as become would.
 */

#include "record.h"
#include "syscall.h"

void start(void);

static u64 input(void *b, u64 n)
{
	u64 got = 0;
	long r;

	while (got < n && (r = SYS(read, 0, (char *)b + got, n - got, 0, 0)) > 0)
		got += r;
	return got;
}

void start(void)
{
	struct plan p;
	u64 b[MAXSIZE / 8 + 1];
	u32 n;

	while (input(&n, 4) == 4 && n <= sizeof(b) && input(b, n) == n)
		SYS(write, 1, check(b, n, &p) ? "y" : "n", 1, 0, 0);
	SYS(exit_group, 0, 0, 0, 0, 0);
}
