/*
 * What become says when something fails, on standard error, and how it ends.
 */

/* In the words of Go's syscall.Errno, which the rest of the suite speaks. */
static const char *words(long e)
{
	switch (e) {
	case EPERM: return "operation not permitted";
	case ENOENT: return "no such file or directory";
	case EINTR: return "interrupted system call";
	case EIO: return "input/output error";
	case E2BIG: return "argument list too long";
	case ENOEXEC: return "exec format error";
	case EBADF: return "bad file descriptor";
	case EAGAIN: return "resource temporarily unavailable";
	case ENOMEM: return "cannot allocate memory";
	case EACCES: return "permission denied";
	case ENOTDIR: return "not a directory";
	case EISDIR: return "is a directory";
	case EINVAL: return "invalid argument";
	case ENFILE: return "too many open files in system";
	case EMFILE: return "too many open files";
	case ETXTBSY: return "text file busy";
	case ENAMETOOLONG: return "file name too long";
	case ENOSYS: return "function not implemented";
	case ELOOP: return "too many levels of symbolic links";
	case ELIBBAD: return "accessing a corrupted shared library";
	case ESTALE: return "stale file handle";
	case EDQUOT: return "disk quota exceeded";
	case EKEYREVOKED: return "key has been revoked";
	}
	return "unexpected error";
}

static u64 length(const char *s)
{
	u64 n = 0;

	while (s[n])
		n++;
	return n;
}

/* Says on standard error what happened; e is an errno or 0. */
static void say(const char *what, const char *name, long e)
{
	const char *part[6] = { "become: ", what, name, e ? ": " : "", e ? words(e) : "", "\n" };
	struct { const char *base; u64 len; } v[6];
	int i;

	for (i = 0; i < 6; i++) {
		v[i].base = part[i];
		v[i].len = length(part[i]);
	}
	SYS(writev, 2, v, 6, 0, 0);
}

/* The codes are those of a shell that cannot execute a program. */
__attribute__((noreturn)) static void fail(const char *what, const char *name, long e)
{
	say(what, name, e);
	for (;;)
		SYS(exit_group, e == ENOENT ? 127 : 126, 0, 0, 0, 0);
}

static long must(long r, const char *what)
{
	if (r < 0)
		fail(what, "", -r);
	return r;
}
