#include "library.h"

#include <dlfcn.h>
#include <stdio.h>

/* load opens a library and finds its functions, in the order of their names. */
static int load(const char *file, const char *const *names, void **functions, char *problem, size_t size)
{
	void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);

	if (library == NULL) {
		snprintf(problem, size, "%s", dlerror());
		return -1;
	}
	for (size_t i = 0; names[i] != NULL; i++) {
		functions[i] = dlsym(library, names[i]);
		if (functions[i] == NULL) {
			snprintf(problem, size, "%s has no %s", file, names[i]);
			return -1;
		}
	}
	return 0;
}

#define NAME(name) #name,
static const char *const gss_names[] = {GSS_FUNCTIONS(NAME) NULL};
static const char *const krb5_names[] = {KRB5_FUNCTIONS(NAME) NULL};

const struct p9_gss *p9_load_gss(char *problem, size_t size)
{
	static union {
		struct p9_gss named;
		void *each[sizeof(struct p9_gss) / sizeof(void *)];
	} g;

	return load("libgssapi_krb5.so.2", gss_names, g.each, problem, size) == 0 ? &g.named : NULL;
}

const struct p9_krb5 *p9_load_krb5(char *problem, size_t size)
{
	static union {
		struct p9_krb5 named;
		void *each[sizeof(struct p9_krb5) / sizeof(void *)];
	} k;

	return load("libkrb5.so.3", krb5_names, k.each, problem, size) == 0 ? &k.named : NULL;
}

void p9_krb5_problem(const struct p9_krb5 *k, krb5_context c, krb5_error_code e, const char *doing, char *problem, size_t size)
{
	const char *text = k->krb5_get_error_message(c, e);

	snprintf(problem, size, "%s: %s", doing, text);
	k->krb5_free_error_message(c, text);
}

/*
 * p9_userok asks whether a principal may be a user: auth_to_local of krb5.conf(5), and the
 * user's ~/.k5login. It returns 1 for yes. Its caller has the rights of that user, who
 * owns the file.
 */
int p9_userok(const char *principal, const char *user, char *why, size_t size)
{
	const struct p9_krb5 *k = p9_load_krb5(why, size);
	krb5_context c;
	krb5_principal p;
	krb5_error_code e;
	int ok = 0;

	if (k == NULL)
		return 0;
	e = k->krb5_init_context(&c);
	if (e != 0) {
		p9_krb5_problem(k, NULL, e, "krb5.conf", why, size);
		return 0;
	}
	e = k->krb5_parse_name(c, principal, &p);
	if (e != 0) {
		p9_krb5_problem(k, c, e, "the principal", why, size);
	} else {
		ok = k->krb5_kuserok(c, p, user) != 0;
		if (!ok)
			snprintf(why, size, "krb5_kuserok says no");
		k->krb5_free_principal(c, p);
	}
	k->krb5_free_context(c);
	return ok;
}
