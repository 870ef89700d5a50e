// SPDX-License-Identifier: GPL-2.0-only
/*
 * p9auth: Plan 9's capability device, /dev/caphash and /dev/capuse.
 *
 * Whoever may, writes the hash of a capability to caphash. Whoever has the
 * text of that capability writes it to capuse, once, and is then the user
 * that it names. See p9auth(4) and capuse(4).
 *
 * A capability belongs to the user namespace in which it was granted: only
 * there can it be redeemed, and its ids mean what they mean there.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <crypto/algapi.h>
#include <crypto/hash.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/ctype.h>
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/security.h>
#include <linux/slab.h>
#include <linux/static_call.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <linux/uidgid.h>
#include <linux/user_namespace.h>
#include <linux/workqueue.h>

#if !defined(CONFIG_X86_64) && !defined(CONFIG_ARM64)
#error "p9auth has been tried on x86-64 and arm64 only"
#endif
#if !defined(CONFIG_KPROBES) || !defined(CONFIG_SECURITY) || !defined(CONFIG_USER_NS)
#error "p9auth needs CONFIG_KPROBES, CONFIG_SECURITY and CONFIG_USER_NS"
#endif

/* The same bounds as in capproto/cap.go. */
#define P9_MAX_CAP	65536	/* bytes of a capability */
#define P9_MAX_GROUPS	4096
#define P9_KEY_SIZE	32
#define P9_KEY_TEXT	43	/* the key in base64url, without padding */
#define P9_HASH_SIZE	32	/* HMAC-SHA256 */

#define P9_SHA1_SIZE	20	/* HMAC-SHA1, the historical form */
#define P9_SHA1_KEY	256	/* longest key of the historical form */

#define P9_MAX_SPACES	1024	/* user namespaces with capabilities */
#define P9_SWEEP	HZ	/* how often the expired are looked for */

static bool sha1;
module_param(sha1, bool, 0444);
MODULE_PARM_DESC(sha1, "take the historical form too: from@to@key, HMAC-SHA1 (default N)");

static int p9_set_lifetime(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 1, 120);
}

static const struct kernel_param_ops p9_lifetime_ops = {
	.set = p9_set_lifetime,
	.get = param_get_uint,
};

static unsigned int lifetime = 120;
module_param_cb(lifetime, &p9_lifetime_ops, &lifetime, 0644);
MODULE_PARM_DESC(lifetime, "seconds that a capability may be redeemed, 1 to 120 (default 120)");

static int p9_set_max(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 1, 65536);
}

static const struct kernel_param_ops p9_max_ops = {
	.set = p9_set_max,
	.get = param_get_uint,
};

static unsigned int max = 1024;
module_param_cb(max, &p9_max_ops, &max, 0644);
MODULE_PARM_DESC(max, "capabilities that may be outstanding in a user namespace, 1 to 65536 (default 1024)");

/*
 * Functions of setresuid(2) and setgroups(2) that modules cannot link to.
 * Doing without them is no choice: new->user and new->ucounts are what
 * RLIMIT_NPROC is charged to, and only the LSM hooks know what happens to the
 * capability sets (and what other modules, as SafeSetID, have to say).
 *
 * The kernel is asked for them by its own documented interface to functions
 * by name, kprobes; the probe is registered disabled, so nothing is ever
 * patched. Their types are checked against their declarations, by typeof().
 * They are then called by static calls. Those are direct calls: an indirect
 * one would trap under CONFIG_X86_KERNEL_IBT, where the kernel takes the
 * landing pads of functions away whose address it never uses. (There, the
 * probe's address is behind the landing pad, which is a fine place to call.)
 */
DEFINE_STATIC_CALL_NULL(p9_alloc_uid, alloc_uid);
DEFINE_STATIC_CALL_NULL(p9_free_uid, free_uid);
DEFINE_STATIC_CALL_NULL(p9_set_cred_ucounts, set_cred_ucounts);
DEFINE_STATIC_CALL_NULL(p9_fix_setuid, security_task_fix_setuid);
DEFINE_STATIC_CALL_NULL(p9_fix_setgid, security_task_fix_setgid);
DEFINE_STATIC_CALL_NULL(p9_fix_setgroups, security_task_fix_setgroups);

/* A hash that was written to caphash. */
struct p9_entry {
	struct list_head list;
	u64 expires;	/* ns of boot time: not redeemed any more */
	u64 forget;	/* and from then on, unknown */
	unsigned int size;
	u8 hash[P9_HASH_SIZE];
};

/*
 * What there is in a user namespace.
 *
 * A user namespace has no hook that would tell a module of its end, so a
 * space holds a reference to it, lest another one came up at its address and
 * found the capabilities. The space lives while caphash is open (the open
 * file holds the namespace anyway, by its credentials) and while it has
 * entries. These expire within four minutes; before that, p9_sweep() drops
 * them within a second or so of finding that nobody but us holds the
 * namespace, when no process can be in it or come into it any more.
 */
struct p9_space {
	struct list_head list;
	struct user_namespace *ns;
	struct list_head entries;	/* oldest first */
	unsigned int count;
	bool open;
};

static DEFINE_MUTEX(p9_lock);	/* all below */
static LIST_HEAD(p9_spaces);
static unsigned int p9_space_count;
static unsigned int p9_entry_count;

static struct kmem_cache *p9_entry_cache;

static void p9_sweep(struct work_struct *work);
static DECLARE_DELAYED_WORK(p9_sweep_work, p9_sweep);

static int p9_get_count(char *buf, const struct kernel_param *kp)
{
	unsigned int n;

	mutex_lock(&p9_lock);
	n = *(unsigned int *)kp->arg;
	mutex_unlock(&p9_lock);
	return sysfs_emit(buf, "%u\n", n);
}

static const struct kernel_param_ops p9_count_ops = {
	.get = p9_get_count,
};

module_param_cb(entries, &p9_count_ops, &p9_entry_count, 0400);
MODULE_PARM_DESC(entries, "hashes that are stored, the expired included (read only)");
module_param_cb(namespaces, &p9_count_ops, &p9_space_count, 0400);
MODULE_PARM_DESC(namespaces, "user namespaces that have any, or caphash open (read only)");

static void p9_free_entry(struct p9_entry *entry)
{
	memzero_explicit(entry, sizeof(*entry));
	kmem_cache_free(p9_entry_cache, entry);
}

static void p9_drop(struct p9_space *space, struct p9_entry *entry)
{
	list_del(&entry->list);
	space->count--;
	p9_entry_count--;
	p9_free_entry(entry);
}

static void p9_drop_all(struct p9_space *space)
{
	struct p9_entry *entry, *next;

	list_for_each_entry_safe(entry, next, &space->entries, list)
		p9_drop(space, entry);
}

static void p9_forget(struct p9_space *space, u64 now)
{
	struct p9_entry *entry, *next;

	list_for_each_entry_safe(entry, next, &space->entries, list)
		if (now >= entry->forget)
			p9_drop(space, entry);
}

static struct p9_space *p9_find_space(const struct user_namespace *ns)
{
	struct p9_space *space;

	list_for_each_entry(space, &p9_spaces, list)
		if (space->ns == ns)
			return space;
	return NULL;
}

static void p9_free_space(struct p9_space *space)
{
	p9_drop_all(space);
	list_del(&space->list);
	p9_space_count--;
	put_user_ns(space->ns);
	kfree(space);
}

/* The first namespace is everybody's; later kernels (7.3) do not count its holders. */
static bool p9_only_we_hold(const struct user_namespace *ns)
{
	if (ns == &init_user_ns)
		return false;
#ifdef ns_ref_read	/* Linux 6.18 */
	return ns_ref_read(ns) == 1;
#else
	return refcount_read(&ns->ns.count) == 1;
#endif
}

static void p9_sweep(struct work_struct *work)
{
	struct p9_space *space, *next;
	u64 now = ktime_get_boottime_ns();

	mutex_lock(&p9_lock);
	list_for_each_entry_safe(space, next, &p9_spaces, list) {
		p9_forget(space, now);
		if (!space->open && (!space->count || p9_only_we_hold(space->ns)))
			p9_free_space(space);
	}
	if (p9_entry_count)
		schedule_delayed_work(&p9_sweep_work, P9_SWEEP);
	mutex_unlock(&p9_lock);
}

/* Store a hash. -ENOSPC: there are as many as there may be. */
static int p9_add(struct p9_space *space, const u8 *hash, unsigned int size)
{
	struct p9_entry *new, *entry, *expired = NULL;
	u64 now = ktime_get_boottime_ns();
	u64 life = READ_ONCE(lifetime) * (u64)NSEC_PER_SEC;
	unsigned int limit = READ_ONCE(max);
	unsigned int alive = 0;

	new = kmem_cache_zalloc(p9_entry_cache, GFP_KERNEL_ACCOUNT);
	if (!new)
		return -ENOMEM;
	new->expires = now + life;
	new->forget = new->expires + life;
	new->size = size;
	memcpy(new->hash, hash, size);

	mutex_lock(&p9_lock);
	p9_forget(space, now);
	list_for_each_entry(entry, &space->entries, list) {
		if (now < entry->expires)
			alive++;
		else if (!expired)
			expired = entry;
	}
	if (alive >= limit) {
		mutex_unlock(&p9_lock);
		p9_free_entry(new);
		return -ENOSPC;
	}
	if (space->count >= 2 * limit && expired)
		p9_drop(space, expired);
	list_add_tail(&new->list, &space->entries);
	space->count++;
	p9_entry_count++;
	schedule_delayed_work(&p9_sweep_work, P9_SWEEP);
	mutex_unlock(&p9_lock);
	return 0;
}

/*
 * Remove a hash. 0: it was there. -EPERM: it was not. -ETIMEDOUT: it had
 * expired. The time that this takes does not depend on how much of the hash
 * agrees with one that is there.
 */
static int p9_take(const struct user_namespace *ns, const u8 *hash, unsigned int size)
{
	struct p9_space *space;
	struct p9_entry *entry, *next;
	u64 now = ktime_get_boottime_ns();
	int err = -EPERM;

	mutex_lock(&p9_lock);
	space = p9_find_space(ns);
	if (space) {
		p9_forget(space, now);
		list_for_each_entry_safe(entry, next, &space->entries, list) {
			if (entry->size != size || crypto_memneq(entry->hash, hash, size))
				continue;
			if (now < entry->expires)
				err = 0;
			else if (err)
				err = -ETIMEDOUT;
			p9_drop(space, entry);
		}
	}
	mutex_unlock(&p9_lock);
	return err;
}

/*
 * May whoever opened the file, and whoever uses it now, make capabilities in
 * the user namespace that it was opened in?
 */
static bool p9_may_grant(const struct file *file)
{
#ifdef CAP_GRANT_ID
	static const int need[] = { CAP_GRANT_ID };
#else
	static const int need[] = { CAP_SETUID, CAP_SETGID };
#endif
	struct user_namespace *ns = file->f_cred->user_ns;
	int i;

	for (i = 0; i < ARRAY_SIZE(need); i++)
		if (!file_ns_capable(file, ns, need[i]) || !ns_capable(ns, need[i]))
			return false;
	return true;
}

static int caphash_open(struct inode *inode, struct file *file)
{
	struct user_namespace *ns = file->f_cred->user_ns;
	struct p9_space *space, *new;

	if (file->f_mode & FMODE_READ)
		return -EACCES;
	if (!p9_may_grant(file))
		return -EPERM;
	new = kzalloc(sizeof(*new), GFP_KERNEL_ACCOUNT);
	if (!new)
		return -ENOMEM;

	mutex_lock(&p9_lock);
	space = p9_find_space(ns);
	if (space && space->open) {
		mutex_unlock(&p9_lock);
		kfree(new);
		return -EBUSY;
	}
	if (!space && p9_space_count >= P9_MAX_SPACES) {
		mutex_unlock(&p9_lock);
		kfree(new);
		return -ENOSPC;
	}
	if (!space) {
		space = new;
		new = NULL;
		INIT_LIST_HEAD(&space->entries);
		space->ns = get_user_ns(ns);
		list_add(&space->list, &p9_spaces);
		p9_space_count++;
	}
	space->open = true;
	mutex_unlock(&p9_lock);
	kfree(new);
	file->private_data = space;
	return stream_open(inode, file);
}

static int caphash_release(struct inode *inode, struct file *file)
{
	struct p9_space *space = file->private_data;

	mutex_lock(&p9_lock);
	space->open = false;
	if (!space->count)
		p9_free_space(space);
	mutex_unlock(&p9_lock);
	return 0;
}

static ssize_t caphash_write(struct file *file, const char __user *ubuf,
			     size_t count, loff_t *ppos)
{
	struct p9_space *space = file->private_data;
	u8 buf[1 + P9_HASH_SIZE];
	const u8 *hash = buf;
	unsigned int size = count;
	bool revoke;
	int err;

	if (!p9_may_grant(file))
		return -EPERM;
	revoke = count == 1 + P9_HASH_SIZE || count == 1 + P9_SHA1_SIZE;
	if (revoke)
		size--;
	if (count > sizeof(buf) || (size != P9_HASH_SIZE && !(sha1 && size == P9_SHA1_SIZE)))
		return -EINVAL;
	if (copy_from_user(buf, ubuf, count))
		return -EFAULT;
	if (revoke && *hash++ != '-') {
		err = -EINVAL;
	} else if (revoke) {
		/* space->ns, not current's: the file may have been passed on. */
		err = p9_take(space->ns, hash, size) ? -ENOENT : 0;
	} else {
		err = p9_add(space, hash, size);
	}
	memzero_explicit(buf, sizeof(buf));
	return err ?: count;
}

/* A capability, parsed. */
struct p9_cap {
	kuid_t from;	/* invalid if the namespace has no such uid */
	kuid_t to;
	struct group_info *groups;	/* NULL in the historical form */
	kgid_t gid;	/* the first group, before they are sorted */
	size_t text;	/* length of what the hash is computed of */
	u8 key[P9_SHA1_KEY];
	unsigned int key_size;
};

/* A decimal number up to end: no sign, no leading zero, not (uid_t)-1. */
static bool p9_id(const char *p, const char *end, u32 *id)
{
	u64 n = 0;

	if (p == end || end - p > 10 || (*p == '0' && end - p > 1))
		return false;
	for (; p < end; p++) {
		if (!isdigit(*p))
			return false;
		n = 10 * n + (*p - '0');
	}
	*id = n;
	return n < U32_MAX;
}

/* The 43 characters of a key. The last one has two bits to spare, both 0. */
static bool p9_key(const char *p, u8 *key)
{
	unsigned int i, bits = 0;
	u32 acc = 0;

	for (i = 0; i < P9_KEY_TEXT; i++) {
		char c = p[i];
		u32 v;

		if (c >= 'A' && c <= 'Z')
			v = c - 'A';
		else if (c >= 'a' && c <= 'z')
			v = c - 'a' + 26;
		else if (c >= '0' && c <= '9')
			v = c - '0' + 52;
		else if (c == '-')
			v = 62;
		else if (c == '_')
			v = 63;
		else
			return false;
		acc = acc << 6 | v;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			*key++ = acc >> bits;
			acc &= (1U << bits) - 1;
		}
	}
	return !acc;
}

static int p9_groups(struct user_namespace *ns, const char *p, const char *end,
		     struct p9_cap *cap)
{
	unsigned int i, n = 1;
	const char *comma;
	u32 id;

	for (comma = p; comma < end; comma++)
		n += *comma == ',';
	if (n > P9_MAX_GROUPS)
		return -EINVAL;
	cap->groups = groups_alloc(n);
	if (!cap->groups)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		comma = memchr(p, ',', end - p) ?: end;
		if (!p9_id(p, comma, &id))
			return -EINVAL;
		cap->groups->gid[i] = make_kgid(ns, id);
		if (!gid_valid(cap->groups->gid[i]))
			return -EINVAL;
		p = comma + 1;
	}
	cap->gid = cap->groups->gid[0];
	groups_sort(cap->groups);
	return 0;
}

/* -EINVAL: not a capability, or one with ids that the namespace lacks. */
static int p9_parse(struct user_namespace *ns, const char *buf, size_t len,
		    struct p9_cap *cap)
{
	const char *end = buf + len;
	const char *to, *rest, *key;
	unsigned int i;
	u32 id;
	int err;

	to = memchr(buf, '@', len);
	if (!to || !p9_id(buf, to, &id))
		return -EINVAL;
	cap->from = make_kuid(ns, id);
	to++;
	rest = memchr(to, '@', end - to);
	if (!rest || !p9_id(to, rest, &id))
		return -EINVAL;
	cap->to = make_kuid(ns, id);
	if (!uid_valid(cap->to))
		return -EINVAL;
	rest++;
	key = memchr(rest, '@', end - rest);

	if (key) {
		if (end - (key + 1) != P9_KEY_TEXT || !p9_key(key + 1, cap->key))
			return -EINVAL;
		err = p9_groups(ns, rest, key, cap);
		if (err)
			return err;
		cap->text = key - buf;
		cap->key_size = P9_KEY_SIZE;
		return 0;
	}

	if (!sha1 || rest == end || end - rest > P9_SHA1_KEY)
		return -EINVAL;
	for (i = 0; i < end - rest; i++)
		if (!isascii(rest[i]) || !isprint(rest[i]))
			return -EINVAL;
	memcpy(cap->key, rest, end - rest);
	cap->key_size = end - rest;
	cap->text = rest - 1 - buf;
	return 0;
}

static int p9_hash(const char *alg, const struct p9_cap *cap, const char *text, u8 *hash)
{
	struct crypto_shash *tfm = crypto_alloc_shash(alg, 0, 0);
	int err;

	if (IS_ERR(tfm))
		return PTR_ERR(tfm);
	err = crypto_shash_setkey(tfm, cap->key, cap->key_size);
	if (!err)
		err = crypto_shash_tfm_digest(tfm, text, cap->text, hash);
	crypto_free_shash(tfm);	/* and its key */
	return err;
}

/*
 * A namespace in which setgroups(2) is denied (see user_namespaces(7)) has
 * users who would gain something by dropping a group.
 */
static bool p9_may_setgroups(const struct user_namespace *ns)
{
	return READ_ONCE(ns->flags) & USERNS_SETGROUPS_ALLOWED;
}

/* As the kernel's is_rlimit_overlimit(), for RLIMIT_NPROC. */
static bool p9_nproc_exceeded(struct ucounts *ucounts)
{
	unsigned long limit = rlimit(RLIMIT_NPROC);

	for (; ucounts; ucounts = ucounts->ns->ucounts) {
		long n = get_rlimit_value(ucounts, UCOUNT_RLIMIT_NPROC);

		if (n < 0 || n > limit)
			return true;
		limit = get_userns_rlimit_max(ucounts->ns, UCOUNT_RLIMIT_NPROC);
	}
	return false;
}

/*
 * Change the identity of the calling thread, as setgroups(2), setresgid(2)
 * and setresuid(2) together would, in one step. What that means, where the
 * other model, executing a set-user-ID program, differs:
 *
 * Capabilities follow the uids as capabilities(7) says, by the LSM hook. Who
 * becomes root gets none in effect, but those of root at the next execve(2).
 * Who had some and goes from one ordinary user to another keeps them: they
 * were its own, and it may drop them.
 *
 * Keyrings: the thread and process keyrings go at the next execve(2) as
 * always, and until then the same program has them that had them before. The
 * session keyring stays, as it does for set-user-ID programs. Giving the user
 * another one (pam_keyinit(8), keyctl(2)) is for the program to do.
 *
 * Dumpable and the parent death signal are reset by commit_creds(), so that
 * processes of the new user cannot look at memory of the old one's, and none
 * of the old user's can trace the new one.
 *
 * no_new_privs and tracing: capuse_write() refuses, as execve(2) withholds
 * set-user-ID then. setresuid(2) does not care, but there the process has the
 * right already; here it receives it.
 *
 * Other threads keep their identity, as with the bare system calls. They
 * share memory with this one, so they could have redeemed the capability
 * themselves: nothing is lost to them.
 */
static int p9_become(const struct p9_cap *cap)
{
	const struct cred *old = current_cred();
	struct cred *new;
	struct user_struct *user;
	int err;

	new = prepare_creds();
	if (!new)
		return -ENOMEM;

	if (cap->groups) {
		new->gid = cap->gid;
		new->egid = cap->gid;
		new->sgid = cap->gid;
		new->fsgid = cap->gid;
		err = static_call(p9_fix_setgid)(new, old, LSM_SETID_RES);
		if (err)
			goto abort;
		set_groups(new, cap->groups);
		err = static_call(p9_fix_setgroups)(new, old);
		if (err)
			goto abort;
	}

	new->uid = cap->to;
	new->euid = cap->to;
	new->suid = cap->to;
	new->fsuid = cap->to;
	if (!uid_eq(new->uid, old->uid)) {
		err = -EAGAIN;
		user = static_call(p9_alloc_uid)(new->uid);
		if (!user)
			goto abort;
		static_call(p9_free_uid)(new->user);
		new->user = user;
	}
	err = static_call(p9_fix_setuid)(new, old, LSM_SETID_RES);
	if (err)
		goto abort;
	err = static_call(p9_set_cred_ucounts)(new);
	if (err)
		goto abort;

	/* As setresuid(2): execve(2) fails if there are too many already. */
	if (new->ucounts != old->ucounts) {
		if (!uid_eq(new->uid, GLOBAL_ROOT_UID) && p9_nproc_exceeded(new->ucounts))
			current->flags |= PF_NPROC_EXCEEDED;
		else
			current->flags &= ~PF_NPROC_EXCEEDED;
	}
	return commit_creds(new);

abort:
	abort_creds(new);
	return err;
}

/*
 * Is this thread one whose identity can be changed? An io_uring worker or a
 * write under override_creds() acts for another thread.
 */
static bool p9_own_identity(void)
{
	unsigned int worker = PF_KTHREAD | PF_IO_WORKER;

#ifdef PF_USER_WORKER
	worker |= PF_USER_WORKER;
#endif
	return !(current->flags & worker) && current_cred() == current_real_cred();
}

/* Redeem a capability that is well-formed. On failure, *why says why. */
static int p9_redeem(const struct p9_cap *cap, const u8 *hash, const char **why)
{
	unsigned int size = cap->groups ? P9_HASH_SIZE : P9_SHA1_SIZE;
	struct user_namespace *ns = current_user_ns();
	int err;

	/* These do not use the capability up. */
	if (task_no_new_privs(current)) {
		*why = "the process has no_new_privs set";
		return -EPERM;
	}
	if (current->ptrace) {
		*why = "the process is traced";
		return -EPERM;
	}
	if (cap->groups && !p9_may_setgroups(ns)) {
		*why = "the user namespace denies setgroups";
		return -EPERM;
	}

	/* From here on it is used up, whatever comes. */
	err = p9_take(ns, hash, size);
	if (err) {
		*why = err == -ETIMEDOUT ? "the capability has expired" :
			"the capability is unknown or was used before";
		return err;
	}
	if (!uid_eq(cap->from, current_uid())) {
		*why = "the capability is for another source uid";
		return -EPERM;
	}
	err = p9_become(cap);
	if (err)
		*why = "the kernel refused the new identity";
	return err;
}

static int capuse_open(struct inode *inode, struct file *file)
{
	return stream_open(inode, file);
}

static ssize_t capuse_write(struct file *file, const char __user *ubuf,
			    size_t count, loff_t *ppos)
{
	uid_t uid = from_kuid(&init_user_ns, current_uid());
	const char *why = "this is not a capability";
	u8 hash[P9_HASH_SIZE];
	struct p9_cap *cap;
	size_t len = count;
	char *buf;
	int err;

	if (!count || count > P9_MAX_CAP + 1)
		return -EINVAL;
	cap = kzalloc(sizeof(*cap), GFP_KERNEL_ACCOUNT);
	buf = kvmalloc(count, GFP_KERNEL_ACCOUNT);
	err = -ENOMEM;
	if (!cap || !buf)
		goto out;
	err = -EFAULT;
	if (copy_from_user(buf, ubuf, count))
		goto out;

	if (buf[len - 1] == '\n')	/* what echo(1) appends */
		len--;
	err = -EINVAL;
	if (len <= P9_MAX_CAP)
		err = p9_parse(current_user_ns(), buf, len, cap);
	if (err == -EINVAL)
		goto refuse;
	if (!err)
		err = p9_hash(cap->groups ? "hmac(sha256)" : "hmac(sha1)", cap, buf, hash);
	if (err)
		goto out;

	if (!p9_own_identity()) {
		why = "it was written on behalf of another thread";
		err = -EPERM;
		goto refuse;
	}
	/* Nobody begins to trace us, as with execve(2). */
	err = -ERESTARTNOINTR;
	if (mutex_lock_interruptible(&current->signal->cred_guard_mutex))
		goto out;
	err = p9_redeem(cap, hash, &why);
	mutex_unlock(&current->signal->cred_guard_mutex);
	if (!err)
		goto out;
refuse:
	pr_notice_ratelimited("capability refused: %s (pid %d, uid %u, error %d)\n",
			      why, task_pid_nr(current), uid, -err);
out:
	memzero_explicit(hash, sizeof(hash));
	kvfree_sensitive(buf, count);
	if (cap && cap->groups)
		put_group_info(cap->groups);
	kfree_sensitive(cap);
	return err ?: count;
}

static const struct file_operations caphash_fops = {
	.owner = THIS_MODULE,
	.open = caphash_open,
	.release = caphash_release,
	.write = caphash_write,
};

static const struct file_operations capuse_fops = {
	.owner = THIS_MODULE,
	.open = capuse_open,
	.write = capuse_write,
};

static struct miscdevice caphash_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "caphash",
	.fops = &caphash_fops,
	.mode = 0200,
};

static struct miscdevice capuse_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "capuse",
	.fops = &capuse_fops,
	.mode = 0666,
};

static void *p9_symbol(const char *name)
{
	struct kprobe kp = {
		.symbol_name = name,
		.flags = KPROBE_FLAG_DISABLED,
	};
	int err = register_kprobe(&kp);

	if (err) {
		pr_err("cannot find the kernel's %s (error %d): this kernel is not supported\n",
		       name, -err);
		return NULL;
	}
	unregister_kprobe(&kp);
	return kp.addr;
}

#define P9_BIND(call, name) ({						\
	typeof(name) *f_ = p9_symbol(#name);				\
	if (f_)								\
		static_call_update(call, f_);				\
	!!f_;								\
})

static int __init p9_bind(void)
{
	if (P9_BIND(p9_alloc_uid, alloc_uid) &&
	    P9_BIND(p9_free_uid, free_uid) &&
	    P9_BIND(p9_set_cred_ucounts, set_cred_ucounts) &&
	    P9_BIND(p9_fix_setuid, security_task_fix_setuid) &&
	    P9_BIND(p9_fix_setgid, security_task_fix_setgid) &&
	    P9_BIND(p9_fix_setgroups, security_task_fix_setgroups))
		return 0;
	return -ENOENT;
}

/* Is there the hash function? Better to fail now than at the first login. */
static int __init p9_have(const char *alg)
{
	struct crypto_shash *tfm = crypto_alloc_shash(alg, 0, 0);

	if (IS_ERR(tfm)) {
		pr_err("the kernel has no %s\n", alg);
		return PTR_ERR(tfm);
	}
	crypto_free_shash(tfm);
	return 0;
}

static int __init p9_init(void)
{
	int err;

	err = p9_bind();
	if (!err)
		err = p9_have("hmac(sha256)");
	if (!err && sha1)
		err = p9_have("hmac(sha1)");
	if (err)
		return err;
	p9_entry_cache = KMEM_CACHE(p9_entry, SLAB_ACCOUNT);
	if (!p9_entry_cache)
		return -ENOMEM;
	err = misc_register(&caphash_dev);
	if (err)
		goto no_caphash;
	err = misc_register(&capuse_dev);
	if (err)
		goto no_capuse;
	return 0;

no_capuse:
	misc_deregister(&caphash_dev);
no_caphash:
	kmem_cache_destroy(p9_entry_cache);
	return err;
}

static void __exit p9_exit(void)
{
	struct p9_space *space, *next;

	misc_deregister(&capuse_dev);
	misc_deregister(&caphash_dev);
	/* No file is open, or we would not be here: only the work is left. */
	cancel_delayed_work_sync(&p9_sweep_work);
	mutex_lock(&p9_lock);
	list_for_each_entry_safe(space, next, &p9_spaces, list)
		p9_free_space(space);
	mutex_unlock(&p9_lock);
	kmem_cache_destroy(p9_entry_cache);
}

module_init(p9_init);
module_exit(p9_exit);

MODULE_DESCRIPTION("Plan 9's capability device: /dev/caphash and /dev/capuse");
MODULE_AUTHOR("The p9auth authors");
MODULE_VERSION("1.0");
MODULE_LICENSE("GPL");
