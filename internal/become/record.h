/*
 * The record of a grant, and whether it is one. internal/becomerecord has the
 * same in Go: change both, or the test that holds them to each other fails.
 */

typedef unsigned int u32;
typedef unsigned long u64;

_Static_assert(sizeof(u32) == 4 && sizeof(u64) == 8 && sizeof(void *) == 8, "this is for 64 bits");

/*
 * The record, little endian. internal/becomerecord writes it and has the same
 * layout. After the header come the groups, the descriptors, and the strings,
 * each with a NUL: root, dir, path, context, keyring, mounts, argv, environment.
 * An unbound record has groups only, and zeros for the rest.
 */
struct record {
	u64 magic;
	u32 size;		/* of the whole record, in bytes */
	u32 flags;
	u32 from;		/* the uid that redeemed */
	u32 uid;		/* the uid to become */
	u32 ngroups;		/* the first is the primary group */
	u32 nfds;		/* descriptors that stay open */
	u32 umask;
	u32 limits;		/* bit n: limit[n] is to be set */
	u32 argc, envc;
	u32 ptys;		/* terminals that are opened before the change of root */
	u32 ttyaudit;		/* bit 0: the terminal is audited, bit 1: passwords too */
	u64 rootdev, rootino;	/* what fstat(2) must say of the root directory */
	struct { u64 soft, hard; } limit[16];
	u64 ttydev, ttyino;	/* what fstat(2) must say of descriptors 0, 1 and 2 */
	u64 mountsdev, mountsino;	/* what fstat(2) must say of the mount namespace */
	u64 inheritable;	/* capabilities, of capabilities(7): bit n is number n */
	u64 ambient;		/* some of the inheritable ones */
	u32 rest[];
};

_Static_assert(sizeof(struct record) == 376, "the layout is becomerecord's");

enum {
	BOUND = 1,
	LOGINUID = 2,		/* the audit login uid is to be set */
	ROOT = 4,		/* change root to the string root; path is outside of it */
	TTY = 8,		/* descriptors 0, 1 and 2 must be a terminal */
	FLAGS = 15,

	MAXSIZE = 1 << 20,
	MAXGROUPS = 65536,	/* the kernel's NGROUPS_MAX */
	MAXFDS = 64,
	MAXPTYS = 16,
	MAXSTRINGS = 32768,	/* in argv and environment together */
	MAXPATH = 4096,		/* with its NUL, as the kernel's PATH_MAX */
	MAXCONTEXT = 4096,	/* with its NUL, of a security context */
	MAXKEYRING = 64,	/* with its NUL, of a keyring's name */
};

#define MAGIC 0x33746e6172673970	/* "p9grant3" */
#define NOID (~(u32)0)

/* What is to be done, be it from the record or, if unbound, the arguments. */
struct plan {
	const struct record *r;
	const u32 *groups, *fds;
	const char *root, *dir, *path, *context, *keyring, *mounts;
	const char *const *argv, *const *env;
	const char *strings[MAXSTRINGS + 2];
};

/* Takes the string at *at, which ends before end. Null if there is none. */
static const char *string(const char **at, const char *end)
{
	const char *s = *at;

	while (*at < end)
		if (*(*at)++ == 0)
			return s;
	return 0;
}

static int is_path(const char *s, const char *next)
{
	return s && s[0] == '/' && next - s <= MAXPATH;
}

/* Whether it is printable ASCII without blanks, or empty, and shorter than max. */
static int is_word(const char *s, const char *next, u32 max)
{
	if (!s || next - s > max)
		return 0;
	for (; *s; s++)
		if (*s <= ' ' || *s > '~')
			return 0;
	return 1;
}

static int is_assignment(const char *s)
{
	if (*s == '=')
		return 0;
	for (; *s; s++)
		if (*s == '=')
			return 1;
	return 0;
}

/*
 * Checks len bytes as a record, and points p at its parts. It reads nothing
 * beyond them. It returns 0 if anything is not as it must be.
 */
static int check(const void *b, u64 len, struct plan *p)
{
	const struct record *r = b;
	const char *at, *end = (const char *)b + len;
	u32 i;

	if (len < sizeof(*r) || len > MAXSIZE)
		return 0;
	if (r->magic != MAGIC || r->size != len || r->flags & ~FLAGS || r->ttyaudit > 3)
		return 0;
	if (r->from == NOID || r->uid == NOID)
		return 0;
	if (r->ngroups < 1 || r->ngroups > MAXGROUPS || r->nfds > MAXFDS)
		return 0;
	if (r->umask > 0777 || r->limits > 0xffff || r->ambient & ~r->inheritable)
		return 0;
	for (i = 0; i < 16; i++) {
		if (r->limit[i].soft > r->limit[i].hard)
			return 0;
		if (!(r->limits >> i & 1) && r->limit[i].hard)
			return 0;
	}
	if (sizeof(*r) + 4 * ((u64)r->ngroups + r->nfds) > len)
		return 0;
	p->r = r;
	p->context = p->keyring = p->mounts = "";
	p->groups = r->rest;
	p->fds = p->groups + r->ngroups;
	at = (const char *)(p->fds + r->nfds);
	for (i = 0; i < r->ngroups; i++)
		if (p->groups[i] == NOID)
			return 0;
	if (!(r->flags & ROOT) && (r->ptys || r->rootdev || r->rootino))
		return 0;
	if (!(r->flags & TTY) && (r->ttydev || r->ttyino))
		return 0;

	if (!(r->flags & BOUND))
		return !(r->flags & ~LOGINUID) && !r->nfds && !r->umask && !r->limits && !r->argc && !r->envc &&
			!r->ttyaudit && !r->mountsdev && !r->mountsino && !r->inheritable && at == end;

	/* Without the standard ones, what is opened would take their places. */
	if (r->nfds < 3 || p->fds[0] != 0 || p->fds[1] != 1 || p->fds[2] != 2)
		return 0;
	for (i = 3; i < r->nfds; i++)
		if (p->fds[i] <= p->fds[i - 1] || p->fds[i] > 0x7fffffff)
			return 0;
	/* With a root, what become opens and leaves open follows them at once. */
	if (r->flags & ROOT && (p->fds[r->nfds - 1] != r->nfds - 1 || r->ptys > MAXPTYS))
		return 0;
	if (r->argc < 1 || r->argc > MAXSTRINGS || r->envc > MAXSTRINGS - r->argc)
		return 0;

	p->root = string(&at, end);
	if (r->flags & ROOT ? !is_path(p->root, at) : !p->root || *p->root)
		return 0;
	p->dir = string(&at, end);
	/* The empty one is where the redeemer is, which no root holds. */
	if (!p->dir || ((*p->dir || r->flags & ROOT) && !is_path(p->dir, at)))
		return 0;
	p->path = string(&at, end);
	if (!is_path(p->path, at))
		return 0;
	p->context = string(&at, end);
	if (!is_word(p->context, at, MAXCONTEXT))
		return 0;
	p->keyring = string(&at, end);
	if (!is_word(p->keyring, at, MAXKEYRING))
		return 0;
	p->mounts = string(&at, end);
	if (!p->mounts || (*p->mounts ? !is_path(p->mounts, at) : r->mountsdev || r->mountsino))
		return 0;
	p->argv = p->strings;
	for (i = 0; i < r->argc; i++)
		if (!(p->strings[i] = string(&at, end)))
			return 0;
	p->strings[i++] = 0;
	p->env = p->strings + i;
	for (; i < r->argc + 1 + r->envc; i++)
		if (!(p->strings[i] = string(&at, end)) || !is_assignment(p->strings[i]))
			return 0;
	p->strings[i] = 0;
	return at == end;
}
