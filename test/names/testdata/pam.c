/* A PAM module that gives PAM_USER another name: pam_names.so FROM TO. */
#include <security/pam_modules.h>
#include <string.h>

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	const char *user;

	if (argc == 2 && pam_get_user(pamh, &user, NULL) == PAM_SUCCESS && strcmp(user, argv[0]) == 0)
		return pam_set_item(pamh, PAM_USER, argv[1]);
	return PAM_SUCCESS;
}

int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	return PAM_SUCCESS;
}
