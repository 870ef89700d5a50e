/*
 * A PAM module that misbehaves. Its arguments say when and how:
 *
 *	pam_misbehaves.so TYPE=WHAT...	TYPE is auth, acct, open or close
 */
#include <sys/resource.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <security/pam_ext.h>
#include <security/pam_modules.h>

#define MANY 10000

static int
say(pam_handle_t *pamh, int style, const char *text)
{
	const struct pam_conv *conv;
	struct pam_message msg = { style, text };
	const struct pam_message *msgs = &msg;
	struct pam_response *resp = NULL;
	int r;

	if (pam_get_item(pamh, PAM_CONV, (const void **)&conv) != PAM_SUCCESS)
		return PAM_SYSTEM_ERR;
	r = conv->conv(1, &msgs, &resp, conv->appdata_ptr);
	if (r == PAM_SUCCESS && resp != NULL) {
		free(resp->resp);
		free(resp);
	}
	return r;
}

static int
misbehave(pam_handle_t *pamh, const char *what)
{
	int i, r = PAM_SUCCESS;

	if (strcmp(what, "crash") == 0)
		*(volatile int *)8 = 1;
	else if (strcmp(what, "abort") == 0)
		abort();
	else if (strcmp(what, "exit") == 0)
		_exit(0);
	else if (strcmp(what, "hang") == 0)
		for (;;)
			pause();
	else if (strcmp(what, "questions") == 0)
		for (i = 0; i < MANY && r == PAM_SUCCESS; i++)
			r = say(pamh, PAM_PROMPT_ECHO_OFF, "And now? ");
	else if (strcmp(what, "messages") == 0)
		for (i = 0; i < MANY && r == PAM_SUCCESS; i++)
			r = say(pamh, PAM_TEXT_INFO, "By the way.");
	else if (strcmp(what, "binary") == 0)
		r = say(pamh, 7 /* PAM_BINARY_PROMPT */, "\0\0\0\7\1xx");
	else if (strcmp(what, "style") == 0)
		r = say(pamh, 4711, "What?");
	else if (strcmp(what, "huge") == 0) {
		char *text = malloc((1 << 20) + 1);

		memset(text, '\'', 1 << 20);
		text[1 << 20] = 0;
		r = say(pamh, PAM_TEXT_INFO, text);
		if (r == PAM_SUCCESS)
			r = say(pamh, PAM_PROMPT_ECHO_OFF, text);
	} else if (strcmp(what, "stderr") == 0) {
		for (i = 0; i < MANY; i++)
			fprintf(stderr, "pam_misbehaves talks to itself\n");
	} else if (strcmp(what, "closefds") == 0) {
		for (i = 0; i < 1024; i++)
			close(i);
	} else if (strcmp(what, "fork") == 0) {
		/* A child that does not exec keeps what the worker has open. */
		if (fork() == 0) {
			FILE *f = fopen("/run/module-child", "w");

			fprintf(f, "%d\n", (int)getpid());
			fclose(f);
			sleep(1000);
			_exit(0);
		}
	} else if (strcmp(what, "leak") == 0) {
		for (i = 0; i < 100; i++)
			if (open("/etc/shadow", O_RDONLY) < 0)
				return PAM_SYSTEM_ERR;
	} else if (strcmp(what, "limits") == 0) {
		struct rlimit nofile = { 77, 99 }, cpu = { 1000, 2000 };

		if (setrlimit(RLIMIT_NOFILE, &nofile) != 0 || setrlimit(RLIMIT_CPU, &cpu) != 0)
			return PAM_SYSTEM_ERR;
	} else if (strcmp(what, "effects") == 0) {
		umask(027);
		nice(7);
		r = pam_putenv(pamh, "MODULE=effects");
	} else
		r = PAM_SYSTEM_ERR;
	return r;
}

static int
act(pam_handle_t *pamh, const char *type, int argc, const char **argv)
{
	size_t n = strlen(type);
	int i, r = PAM_SUCCESS;

	for (i = 0; i < argc && r == PAM_SUCCESS; i++)
		if (strncmp(argv[i], type, n) == 0 && argv[i][n] == '=')
			r = misbehave(pamh, argv[i] + n + 1);
	return r;
}

int
pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	return act(pamh, "auth", argc, argv);
}

int
pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	return act(pamh, "cred", argc, argv);
}

int
pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	return act(pamh, "acct", argc, argv);
}

int
pam_sm_open_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	return act(pamh, "open", argc, argv);
}

int
pam_sm_close_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	return act(pamh, "close", argc, argv);
}
