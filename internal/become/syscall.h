/*
 * System calls without a library, for x86-64 and arm64. An argument that a call
 * does not have is 0.
 */

#include <asm/errno.h>
#include <asm/unistd.h>

/* System calls. They return -errno, as the kernel does. */

#if defined(__x86_64__)

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n\thlt\n");

static long call(long nr, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = e;
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return r;
}

#elif defined(__aarch64__)

__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x30, #0\n\tmov x0, sp\n\tb start\n");

static long call(long nr, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	register u64 x8 __asm__("x8") = nr;
	register u64 x0 __asm__("x0") = a;
	register u64 x1 __asm__("x1") = b;
	register u64 x2 __asm__("x2") = c;
	register u64 x3 __asm__("x3") = d;
	register u64 x4 __asm__("x4") = e;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}

#else
#error "become is for x86-64 and arm64"
#endif

/* None of become's calls does a part of its work and is interrupted then. */
static __attribute__((noinline)) long again(long nr, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	long r;

	do
		r = call(nr, a, b, c, d, e);
	while (r == -EINTR);
	return r;
}

#define SYS(name, a, b, c, d, e) again(__NR_##name, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e))
