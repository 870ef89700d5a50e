/*
 * An NSS module, as a directory's that has its own idea of names: a name in
 * /etc/names.map ("typed account" a line) leads to the account of that other name in
 * /etc/passwd and /etc/shadow.
 */
#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <shadow.h>
#include <stdio.h>
#include <string.h>

static int account(const char *typed, char name[64])
{
	char from[64];
	int found = 0;
	FILE *f = fopen("/etc/names.map", "r");

	if (f == NULL)
		return 0;
	while (!found && fscanf(f, "%63s %63s", from, name) == 2)
		found = strcmp(from, typed) == 0;
	fclose(f);
	return found;
}

enum nss_status _nss_names_getpwnam_r(const char *typed, struct passwd *pw, char *buf, size_t size, int *error)
{
	char name[64];
	struct passwd *p = NULL;
	int e = ENOENT;
	FILE *f;

	if (!account(typed, name) || (f = fopen("/etc/passwd", "r")) == NULL)
		return NSS_STATUS_NOTFOUND;
	while ((e = fgetpwent_r(f, pw, buf, size, &p)) == 0 && strcmp(p->pw_name, name) != 0)
		;
	fclose(f);
	if (e == 0)
		return NSS_STATUS_SUCCESS;
	*error = e;
	return e == ERANGE ? NSS_STATUS_TRYAGAIN : NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_names_getspnam_r(const char *typed, struct spwd *sp, char *buf, size_t size, int *error)
{
	char name[64];
	struct spwd *p = NULL;
	int e = ENOENT;
	FILE *f;

	if (!account(typed, name) || (f = fopen("/etc/shadow", "r")) == NULL)
		return NSS_STATUS_NOTFOUND;
	while ((e = fgetspent_r(f, sp, buf, size, &p)) == 0 && strcmp(p->sp_namp, name) != 0)
		;
	fclose(f);
	if (e == 0)
		return NSS_STATUS_SUCCESS;
	*error = e;
	return e == ERANGE ? NSS_STATUS_TRYAGAIN : NSS_STATUS_NOTFOUND;
}
