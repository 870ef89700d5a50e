package main

/*
#include <stdbool.h>
#include <sys/resource.h>

// Go raises the soft limit of open files when it starts. This runs before, so
// that the worker can take that back: what PAM sees and sets must be the limits
// that the worker was started with.
static struct rlimit nofile_at_start;
static bool saved;

__attribute__((constructor)) static void
save_nofile(void)
{
	saved = getrlimit(RLIMIT_NOFILE, &nofile_at_start) == 0;
}

static void
restore_nofile(void)
{
	if (saved)
		setrlimit(RLIMIT_NOFILE, &nofile_at_start);
}
*/
import "C"

// restoreNoFile sets RLIMIT_NOFILE to what it was before Go's runtime started.
func restoreNoFile() { C.restore_nofile() }
