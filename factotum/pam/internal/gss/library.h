/*
 * MIT Kerberos's libraries, which are loaded by dlopen(3), and only where they are
 * needed: logins without GSSAPI do not pay for them.
 */
#ifndef P9AUTH_GSS_LIBRARY_H
#define P9AUTH_GSS_LIBRARY_H

#include <stddef.h>

#include <gssapi/gssapi.h>
#include <gssapi/gssapi_ext.h>
#include <gssapi/gssapi_krb5.h>
#include <krb5.h>

/* What is used of libgssapi_krb5 and of libkrb5. */
#define GSS_FUNCTIONS(f) \
	f(gss_import_name) f(gss_release_name) f(gss_acquire_cred_from) f(gss_accept_sec_context) \
	f(gss_verify_mic) f(gss_display_name) f(gss_display_status) f(gss_release_buffer) \
	f(gss_krb5_copy_ccache)
#define KRB5_FUNCTIONS(f) \
	f(krb5_init_context) f(krb5_free_context) f(krb5_get_error_message) f(krb5_free_error_message) \
	f(krb5_parse_name) f(krb5_free_principal) f(krb5_kuserok) \
	f(krb5_kt_default) f(krb5_kt_default_name) f(krb5_kt_resolve) f(krb5_kt_close) f(krb5_kt_add_entry) \
	f(krb5_kt_start_seq_get) f(krb5_kt_next_entry) f(krb5_kt_end_seq_get) f(krb5_free_keytab_entry_contents) \
	f(krb5_cc_new_unique) f(krb5_cc_initialize) f(krb5_cc_destroy) \
	f(krb5_cc_start_seq_get) f(krb5_cc_next_cred) f(krb5_cc_end_seq_get) \
	f(krb5_marshal_credentials) f(krb5_free_data) f(krb5_free_cred_contents)

#define DECLARE(name) __typeof__(name) *name;
struct p9_gss { GSS_FUNCTIONS(DECLARE) };
struct p9_krb5 { KRB5_FUNCTIONS(DECLARE) };
#undef DECLARE

/* Each is NULL, with why written to problem, where the library is not there. */
const struct p9_gss *p9_load_gss(char *problem, size_t size);
const struct p9_krb5 *p9_load_krb5(char *problem, size_t size);

/* p9_krb5_problem writes what was done and the library's words for its failure. */
void p9_krb5_problem(const struct p9_krb5 *k, krb5_context c, krb5_error_code e, const char *doing, char *problem, size_t size);

/* Why a principal may not be a user goes here. */
int p9_userok(const char *principal, const char *user, char *why, size_t size);

/* The acceptor: see acceptor.c. */
int p9_ready(char *problem, size_t size);
int p9_accept(void *token, size_t length, void **out, size_t *out_length, char *problem, size_t size);
int p9_verify(void *message, size_t message_length, void *mic, size_t mic_length, char *problem, size_t size);
void p9_principal(char **name, size_t *length);
int p9_delegated(void **cache, size_t *length, char *problem, size_t size);
int p9_confine(void); /* confine.c */

#endif
