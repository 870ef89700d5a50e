/*
 * What PAM's session modules have set of the worker, and only the user's own
 * process can take on: mount namespace, security context, capabilities, keyring,
 * audit of the terminal. Nothing of it is done unless the record says so.
 */

#define AF_NETLINK 16		/* linux/socket.h does not have them */
#define SOCK_RAW 3
#define SOCK_CLOEXEC 02000000
#define KEYRINGPERM 0x3f030000	/* all to its possessors, view and read to its owner: security/keys/keyring.c */

/* Whether the descriptor is of that inode. */
static int is_inode(long fd, u64 dev, u64 ino)
{
	u64 stat[32];	/* st_dev and st_ino are the first two */

	must(SYS(fstat, fd, stat, 0, 0, 0), "fstat");
	return stat[0] == dev && stat[1] == ino;
}

/*
 * Enters the mount namespace that pam_namespace(8) or the like has made in the
 * worker, which is known by its inode: the worker may have ended, and its pid be
 * another's. That makes the namespace's root the directory; one that the record
 * leaves to the redeemer is found again by its name, which goes into dir.
 */
static void join_mounts(struct plan *p, char dir[MAXPATH])
{
	long fd;

	if (!*p->dir) {
		must(SYS(getcwd, dir, MAXPATH, 0, 0, 0), "getcwd");
		p->dir = dir;
	}
	fd = SYS(openat, AT_FDCWD, p->mounts, O_RDONLY | O_CLOEXEC, 0, 0);
	if (fd < 0)
		fail("cannot open ", p->mounts, -fd);
	if (!is_inode(fd, p->r->mountsdev, p->r->mountsino))
		fail("another mount namespace has taken the place of ", p->mounts, 0);
	must(SYS(setns, fd, CLONE_NEWNS, 0, 0, 0), "setns");
	SYS(close, fd, 0, 0, 0, 0);
}

/*
 * Sets the security context for what is executed next, and for keys that are made
 * until then, as pam_selinux(8) does: see setexeccon(3), setkeycreatecon(3). The
 * kernel compares it with the policy, and decides when the program is executed.
 */
static void set_context(const char *context)
{
	static const char files[2][40] = { "/proc/thread-self/attr/exec", "/proc/thread-self/attr/keycreate" };
	long fd, e;
	int i;

	for (i = 0; i < 2; i++) {
		fd = e = SYS(openat, AT_FDCWD, files[i], O_WRONLY | O_CLOEXEC, 0, 0);
		if (fd >= 0)
			e = SYS(write, fd, context, length(context), 0, 0);
		if (e < 0)
			fail("cannot set the security context ", context, -e);
		SYS(close, fd, 0, 0, 0, 0);
	}
}

/*
 * Has the kernel log what is typed at terminals by this process and what it
 * starts, as pam_tty_audit(8) does: AUDIT_TTY_SET in linux/audit.h.
 */
static void set_tty_audit(u32 status)
{
	struct {
		struct nlmsghdr header;
		struct audit_tty_status status;
	} m = { { sizeof(m), AUDIT_TTY_SET, NLM_F_REQUEST | NLM_F_ACK, 1, 0 }, { status & 1, status >> 1 } };
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char rest[64];
	} answer;
	long fd, n;

	fd = n = SYS(socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT, 0, 0);
	if (n >= 0)
		n = SYS(write, fd, &m, sizeof(m), 0, 0);
	if (n >= 0)
		n = SYS(read, fd, &answer, sizeof(answer), 0, 0);
	if (n >= 0)
		n = n >= (long)sizeof(answer.header) + 4 && answer.header.nlmsg_type == NLMSG_ERROR ? answer.error.error : -EIO;
	must(n, "have the terminal audited");
	SYS(close, fd, 0, 0, 0, 0);
}

/*
 * Gives the user a session keyring of their own, linked to their user keyring
 * as pam_keyinit(8) does, so that none of the front end's keys go along. It is
 * the one that the worker has made for the session, by its name, where there is
 * one, and that can then be joined by nobody else; or else a new one. A
 * kernel may lack key management, or a container's filter of system calls keep
 * everybody in it from keys (EPERM); a redeemer cannot have such a filter made,
 * as no_new_privs, which that takes, would have kept this from being privileged.
 * A user who has no room for another key (keyrings(7)) is let in all the same, with
 * a line that says so; then the user keyring must not be linked, as the old session
 * keyring is others' too.
 * Failing to link costs convenience, not safety.
 */
static void join_keyring(const char *name)
{
	long r = SYS(keyctl, KEYCTL_JOIN_SESSION_KEYRING, *name ? name : 0, 0, 0, 0);

	if (r == -ENOSYS || r == -EOPNOTSUPP || r == -EPERM)
		return;
	if (r == -EDQUOT) {
		say("no new session keyring: you have too many keys", "", EDQUOT);
		return;
	}
	must(r, "join a new session keyring");
	if (*name)
		SYS(keyctl, KEYCTL_SETPERM, KEY_SPEC_SESSION_KEYRING, KEYRINGPERM, 0, 0);
	SYS(keyctl, KEYCTL_LINK, KEY_SPEC_USER_KEYRING, KEY_SPEC_SESSION_KEYRING, 0, 0);
}

/*
 * Gives up all capabilities, but for those that pam_cap(8) has made inheritable,
 * and of these the ambient ones, which the executed program has.
 */
static void set_capabilities(const struct record *r)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct caps[2];
	u32 i;

	for (i = 0; i < 2; i++) {
		caps[i].effective = 0;
		caps[i].permitted = r->ambient >> 32 * i;
		caps[i].inheritable = r->inheritable >> 32 * i;
	}
	must(SYS(capset, &header, caps, 0, 0, 0), "capset");
	for (i = 0; i < 64; i++)
		if (r->ambient >> i & 1)
			must(SYS(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0), "prctl");
}
